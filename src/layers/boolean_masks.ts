// Boolean masks in both conventions that libraries have: either true elements count, or true
// elements are ignored. They mask scores, or keys alone. One mask of scores whose true elements
// count is left as it is; all others are joined into a mask of bits, before each run.

import { check } from "../errors.ts";
import { paramsBuffer, settle } from "../gpu/buffers.ts";
import { compileKernel } from "../gpu/pipelines.ts";
import type { Tensor } from "../gpu/tensor.ts";
import {
  MASK_KINDS,
  MASKS,
  maskBitsKernel,
  maskBitsWorkgroups,
  WORD_KEYS,
} from "../kernels/mask_bits.ts";
import type { UniformValues } from "../kernels/uniform.ts";
import { resolveMemory } from "../plan/broadcast.ts";
import { memoryOf } from "../plan/operand_checks.ts";
import { Plan, plainHooks } from "../plan/plan.ts";
import { checkedSpec, type ResolvedSpec } from "../plan/specs.ts";
import { planTensors } from "../plan/tensors.ts";
import type { TensorSpec } from "../types.ts";

/**
 * Masks over the scores. Each is u8, 0 for false, or bits of u32, the first key in the lowest bit
 * of a word.
 *
 * | option | shape | true means | where it comes from |
 * |---|---|---|---|
 * | `mask` | [B \| 1, H \| 1, M \| 1, N \| 1] | the query sees the key | PyTorch's SDPA, Keras' attention_mask, ONNX |
 * | `ignoreMask` | the same | the query does not see it | attn_mask of PyTorch's nn.MultiheadAttention |
 * | `keyMask` | [B, N] | the key is one | Keras' value_mask, attention_mask of tokenizers |
 * | `ignoreKeyMask` | [B, N] | the key is padding | key_padding_mask of PyTorch's nn.MultiheadAttention |
 *
 * One of the first two and one of the last two may be given; a query then sees the keys that both
 * allow. Leading axes of a mask of scores may be left out. View a mask [B, M, N] of Keras as
 * [B, 1, M, N], and a mask [B * H, M, N] of PyTorch as [B, H, M, N].
 */
export interface BooleanMasks<T = TensorSpec> {
  readonly mask?: T;
  readonly ignoreMask?: T;
  readonly keyMask?: T;
  readonly ignoreKeyMask?: T;
}

export type MaskName = keyof BooleanMasks;
const PAIRS = [
  ["mask", "ignoreMask"],
  ["keyMask", "ignoreKeyMask"],
] as const;

/** A checked mask. */
export interface ResolvedMask {
  readonly name: MaskName;
  readonly given: TensorSpec;
  /** The mask as the caller gave it. */
  readonly spec: ResolvedSpec;
  /** The mask with four axes and with stride 0 along those of size 1. */
  readonly overScores: ResolvedSpec;
  readonly ignored: boolean;
}

/** Checks the masks of a problem with these scores [B, H, M, N]. */
export function resolveMasks(
  label: string,
  masks: BooleanMasks,
  scores: readonly number[],
): ResolvedMask[] {
  return PAIRS.flatMap((names, index) => {
    const given = names.filter((name) => masks[name] !== undefined);
    check(
      given.length <= 1,
      "argument",
      () =>
        `${label}: give ${names.join(" or ")}, not both: they are the same mask in two conventions.`,
    );
    return given.map((name): ResolvedMask => {
      const mask = masks[name] as TensorSpec;
      const spec = checkedSpec(label, name, { ...specOf(mask), dtype: mask.dtype ?? "u8" }, [
        "u8",
        "u32",
      ]);
      const what = `${label}: ${name}`;
      if (index === 1) checkKeyMask(what, spec, scores);
      const wide = index === 1 ? overKeys(spec) : spec;
      return {
        name,
        given: mask,
        spec,
        overScores: resolveMemory(what, wide, scores, "mask"),
        ignored: names[1] === name,
      };
    });
  });
}

const specOf = (given: TensorSpec): TensorSpec => {
  if (typeof given !== "object" || given === null) return given;
  const { shape, strides, offset } = given;
  return { shape, ...(strides && { strides }), ...(offset !== undefined && { offset }) };
};

function checkKeyMask(
  what: string,
  { shape, dtype }: ResolvedSpec,
  [batch, , , keys]: readonly number[],
): void {
  const words = dtype === "u32" ? Math.ceil(keys / WORD_KEYS) : keys;
  check(
    shape.length === 2 && (shape[0] === batch || shape[0] === 1) && shape[1] === words,
    "argument",
    () =>
      `${what} must be [B, ${dtype === "u32" ? "ceil(N / 32)" : "N"}] = [${batch}, ${words}], got [${shape.join(", ")}].`,
  );
}

/** Views a mask of keys as a mask of scores. */
const overKeys = (spec: ResolvedSpec): ResolvedSpec => {
  const [batch, keys] = spec.shape;
  const [b, n] = spec.strides;
  return { ...spec, shape: [batch, 1, 1, keys], strides: [b, 0, 0, n] };
};

/** Views a tensor that masks keys as one that masks scores. */
export const keyMaskView = (mask: Tensor): Tensor => {
  const { shape, strides } = overKeys(mask);
  return mask.view({ shape, strides });
};

/** Whether there is only one mask, and attention takes it as it is. */
export const isPlainMask = (masks: readonly ResolvedMask[]): boolean =>
  masks.length === 1 && !masks[0].ignored;

/**
 * Compiles the kernel that joins masks into the one that attention takes, over the scores
 * [B, H, M, N].
 */
export async function prepareMasks(
  device: GPUDevice,
  label: string,
  masks: readonly ResolvedMask[],
  keys: number,
) {
  const [b, h, m] = [0, 1, 2].map((axis) =>
    Math.max(...masks.map(({ overScores }) => overScores.shape[axis])),
  );
  const rowWords = Math.ceil(keys / WORD_KEYS);
  const compiled = await compileKernel(device, maskBitsKernel());
  const { operands, owned } = planTensors(device, label, ({ add, own }) => {
    for (const { name, spec, given } of masks) add(name, spec, given);
    own("output", [b, h, m, rowWords], { dtype: "u32" }, true);
  });
  const [bits] = owned;
  const workgroups = Math.max(1, maskBitsWorkgroups(bits.size));
  const x = Math.min(workgroups, device.limits.maxComputeWorkgroupsPerDimension);
  const sizes = { heads: h, rows: m, row_words: rowWords, keys, words: bits.size, grid_x: x };
  const names = {
    bits: "output",
    mask_0: masks[0].name,
    ...(masks[1] && { mask_1: masks[1].name }),
  } as const;
  try {
    const chunk = new ArrayBuffer(MASKS.stride);
    MASKS.pack({ ...sizes, ...valuesOf(masks, (name) => operands.get(name)?.base ?? 0) }, chunk);
    const { value: params, done } = paramsBuffer(device, `${label} mask`, [chunk]);
    const dispatches = [{ x, y: Math.ceil(workgroups / x), paramsOffset: 0 }];
    const stages = [
      { source: maskBitsKernel(), compiled, names, dispatches, uniformBytes: MASKS.bytes },
    ];
    const plan = Plan.make<Readonly<Record<string, Tensor | undefined>>>({
      device,
      label,
      operands,
      stages,
      params,
      numbers: new Map(),
      owned,
      hooks: plainHooks(operands),
    });
    const allocated = settle([done, ...memoryOf(operands)]);
    allocated.catch(() => plan.destroy());
    return { plan, allocated, bits };
  } catch (error) {
    bits.destroy();
    throw error;
  }
}

/** The members of the uniform for both masks. The second one may be absent. */
function valuesOf(
  masks: readonly ResolvedMask[],
  baseOf: (name: MaskName) => number,
): UniformValues {
  const each = [0, 1].map((index) => {
    const mask = masks[index] as ResolvedMask | undefined;
    return {
      [`strides_${index}`]: mask?.overScores.strides ?? [0, 0, 0, 0],
      [`base_${index}`]: mask ? baseOf(mask.name) : 0,
      [`kind_${index}`]: mask
        ? MASK_KINDS[mask.spec.dtype === "u8" ? "bytes" : "bits"]
        : MASK_KINDS.none,
      [`ignored_${index}`]: Number(mask?.ignored ?? false),
    };
  });
  return Object.assign({}, ...each);
}
