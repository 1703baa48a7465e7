// What all choices of tokens have in common: their logits, the pass that comes first, and the
// memory between passes.

import { check } from "../../errors.ts";
import { isSoftware } from "../../gpu/device.ts";
import { isAligned } from "../../kernels/access.ts";
import {
  MOST_CHUNKS,
  SAMPLING_PARAMS,
  type SamplingSpecialisation,
  samplingKernel,
  VOCABULARY_END,
} from "../../kernels/models/sampling.ts";
import type { UniformValues } from "../../kernels/uniform.ts";
import { accessOf, addresses } from "../../plan/access.ts";
import type { Caller, Stage } from "../../plan/operation.ts";
import { bindingBase, checkedSpec, type ResolvedSpec } from "../../plan/specs.ts";
import type { TensorSpec } from "../../types.ts";

/**
 * Vec4s of a chunk, and lanes of a workgroup. On software adapters workgroups are few, and each
 * lane of one costs time at every barrier: with 256, a greedy token of 32,000 took twice as long.
 */
const GPU = { chunk4: 512, lanes: 256 } as const;
const SOFTWARE = { chunk4: 8192, lanes: 16 } as const;

/** Checks logits: f32 [B, V]. */
export function logitsSpec(label: string, given: TensorSpec): ResolvedSpec {
  const logits = checkedSpec(label, "logits", given);
  const { shape } = logits;
  check(
    shape.length === 2 && shape[1] > 0,
    "argument",
    () =>
      `${label}: logits must be [B, V] of one token or more, got [${shape.join(", ")}]; view() or slice() the last position of [B, T, V].`,
  );
  check(
    shape[1] < VOCABULARY_END,
    "limit",
    () => `${label}: logits must be of fewer than ${VOCABULARY_END} tokens, got ${shape[1]}.`,
  );
  return logits;
}

/** How the logits of an entry are shared among workgroups. */
export interface Shares {
  readonly width4: number;
  readonly chunk4: number;
  readonly chunks: number;
  /** Lanes of a workgroup. */
  readonly lanes: number;
}

export function sharesOf(device: GPUDevice, { shape: [, width] }: ResolvedSpec): Shares {
  const width4 = Math.ceil(width / 4);
  const usual = isSoftware(device) ? SOFTWARE : GPU;
  const chunk4 = Math.max(usual.chunk4, Math.ceil(width4 / MOST_CHUNKS));
  return { width4, chunk4, chunks: Math.ceil(width4 / chunk4), lanes: usual.lanes };
}

/** [B, V] as the slots of rows see it. */
const asRows = (spec: ResolvedSpec): ResolvedSpec => ({
  ...spec,
  shape: [1, 1, ...spec.shape],
  strides: [0, 0, ...spec.strides],
});

/** How a tensor [B, V] is reached, and the numbers that say where it lies. */
export function rowsAt(device: GPUDevice, name: "logits" | "probabilities", spec: ResolvedSpec) {
  const operand = { spec: asRows(spec), base: bindingBase(device, spec) };
  const access = accessOf(device, operand);
  return { access, values: addresses(name, "n", operand, isAligned(access), { layout: "bhmd" }) };
}

/** The numbers of a tensor [B] or [B, n]. */
export const columnsAt = (
  device: GPUDevice,
  name: "tokens" | "logprobs" | "seen",
  spec: ResolvedSpec,
): UniformValues => ({
  [`${name}_base`]: bindingBase(device, spec),
  [`${name}_stride_n`]: spec.strides[0],
  [`${name}_stride_d`]: spec.strides[1] ?? 0,
});

/** The numbers that all passes over logits take. */
export const passNumbers = (
  { device }: Caller,
  logits: ResolvedSpec,
  { width4, chunk4, chunks }: Shares,
): UniformValues => ({
  entries: logits.shape[0],
  width: logits.shape[1],
  width4,
  chunk4,
  chunks,
  ...rowsAt(device, "logits", logits).values,
});

/** The plan's names of its memory between passes. */
const NAMES = { left_logits: "workspace", parts: "blocks", entries: "tables" } as const;

/** A pass. `names` are those of the tensors that the caller binds. */
export const passStage = (
  spec: SamplingSpecialisation,
  values: UniformValues,
  workgroups: number,
  names: Readonly<Record<string, string>>,
): Stage => ({
  source: samplingKernel(spec),
  names: { ...NAMES, ...names },
  params: { struct: SAMPLING_PARAMS, values },
  workgroups,
});
