// What plans need for the options that few problems have, beyond checking them: tensors and numbers
// that functions captured, params, and the modules that fill the slots. Loaded with
// extended_features.ts.

import { functionsOf } from "../functions/attention_function.ts";
import type { BlockMask } from "../functions/block_mask.ts";
import { checkCaptured, numberBytes } from "../functions/captures.ts";
import type { ProbabilityFunction } from "../functions/functions.ts";
import { Tensor } from "../gpu/tensor.ts";
import type { Params } from "../kernels/params.ts";
import type { SlotChoice } from "../kernels/slots.ts";
import type { Operand, Operands } from "../plan/operand.ts";
import type { ScoreOptions } from "./options.ts";
import type { Features } from "./resolved.ts";

/**
 * Adds the tensors that the functions of a problem captured, by their names with `add`, and gives
 * the numbers as uniforms hold them.
 */
export function capturesOf(
  device: GPUDevice,
  label: string,
  problem: ScoreOptions & { readonly probabilityFunction?: ProbabilityFunction },
  add: (name: string, spec: Tensor, fallback: Tensor) => void,
): (readonly [name: string, bytes: ArrayBuffer])[] {
  const numbers: [string, ArrayBuffer][] = [];
  for (const { captures } of functionsOf(problem)) {
    for (const [name, value] of Object.entries(captures)) {
      if (value instanceof Tensor) {
        checkCaptured(label, name, device, value);
        add(`captures.${name}`, value, value);
      } else numbers.push([`captures.${name}`, numberBytes(value)]);
    }
  }
  return numbers;
}

/** The slots of a kernel beyond those of plain attention. */
export function extendedSlots(features: Features): Partial<SlotChoice> {
  const has = (option: string) => features.tables.some(({ name }) => name === option);
  const { mask, similarity } = features;
  return {
    ...(similarity.kind !== "dot" && { similarity: similarity.choice }),
    ...(similarity.temperature && { temperature: similarity.temperature }),
    softcap: features.softcap !== undefined,
    bias: features.bias !== undefined,
    relativeBias: has("relativeBias"),
    alibi: has("alibiSlopes"),
    sinks: has("sinks"),
    dropout: features.dropout !== undefined,
    ...(mask && { maskTensor: mask.dtype === "u8" ? "bytes" : "bits" }),
    ...(features.scoreFunction && { score: features.scoreFunction.text }),
    ...(features.maskFunction && { mask: features.maskFunction.text }),
    blocks: features.blockMask !== undefined,
  };
}

/** Smaller numbers a device may take for 0. */
const SMALLEST_NORMAL = 2 ** -126;

/** The params that plain attention does not read. */
export function extendedParams(
  { dropout, softcap = 1, similarity, blockMask }: Features,
  operands: Operands,
) {
  return {
    softcap: Math.max(softcap, SMALLEST_NORMAL),
    norm_eps: similarity.eps,
    inner_scale: similarity.innerScale,
    max_temperature: similarity.maxTemperature,
    seed_low: (dropout?.seed ?? 0) % 2 ** 32,
    seed_high: Math.floor((dropout?.seed ?? 0) / 2 ** 32),
    keep_below: Math.floor((1 - (dropout?.p ?? 0)) * 2 ** 32),
    keep_factor: dropout && dropout.p < 1 ? 1 / (1 - dropout.p) : 0,
    ...overScores("bias", operands.get("bias")),
    ...overScores("mask", operands.get("mask")),
    ...blockParams(blockMask),
  } satisfies Partial<Params>;
}

/** The params of a block mask. */
function blockParams(blockMask: BlockMask | undefined) {
  if (!blockMask)
    return { block_q: 1, block_kv: 1, blocks_stride_b: 0, blocks_stride_h: 0, blocks_stride_m: 0 };
  const { shape, strides } = blockMask.blocks;
  const [b, h] = strides.map((stride, axis) => (shape[axis] > 1 ? stride : 0));
  const [block_q, block_kv] = blockMask.options.blockSize;
  return { block_q, block_kv, blocks_stride_b: b, blocks_stride_h: h, blocks_stride_m: strides[2] };
}

/** The params of a mask or a bias. */
function overScores<Name extends "mask" | "bias">(
  name: Name,
  operand: Operand | undefined,
): Record<`${Name}_base` | `${Name}_stride_${"b" | "h" | "m" | "n"}`, number> {
  const [b = 0, h = 0, m = 0, n = 0] = operand?.spec.strides ?? [];
  return {
    [`${name}_base`]: operand?.base ?? 0,
    [`${name}_stride_b`]: b,
    [`${name}_stride_h`]: h,
    [`${name}_stride_m`]: m,
    [`${name}_stride_n`]: n,
  } as ReturnType<typeof overScores<Name>>;
}
