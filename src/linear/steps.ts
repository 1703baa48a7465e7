// The dispatches of linear attention. The tokens run in segments that share one workspace and hand
// a state on, so that neither memory nor the work of a dispatch grows with the number of tokens.

import { isAligned } from "../kernels/access.ts";
import {
  LINEAR_LANES,
  LINEAR_WG_SIZE,
  type LinearKernel,
  type LinearSpecialisation,
  linearTiles,
  scanBlocks,
  stateVec4s,
} from "../kernels/linear.ts";
import type { UniformValues } from "../kernels/uniform.ts";
import { addresses } from "../plan/access.ts";
import type { Operand } from "../plan/operand.ts";
import { checkDispatches } from "../plan/work.ts";
import type { ResolvedLinear } from "./problem.ts";
import type { StatePlaces } from "./states.ts";

/** About the most bytes of states of chunks in memory at a time. */
const WORKSPACE_BYTES = 2 ** 26;
/** Tokens of a chunk if all queries read the sum of all chunks. */
const UNORDERED_CHUNK = 256;
/**
 * The most tokens that one dispatch of the recurrent kernel runs through: each waits for the one
 * before.
 */
const MOST_STEPS = 4096;

/** One dispatch. */
export interface LinearStep {
  readonly kernel: LinearKernel;
  /** The operands that it binds, by the shader's names; for other names, those of the plan hold. */
  readonly names: Readonly<Record<string, string>>;
  readonly workgroups: number;
  readonly params: UniformValues;
}

/** How the tokens are cut. */
export interface Segments {
  /** Tokens of a chunk; then the most chunks, or tokens, of a dispatch, and how many there are. */
  readonly chunk: number;
  readonly size: number;
  readonly count: number;
  /** States in the workspace of each batch entry and head. */
  readonly slots: number;
}

/** Divides `count` into parts of at most `most`, as equal as possible; at least one. */
function partsOf(count: number, most: number): { first: number; count: number }[] {
  const parts = Math.max(1, Math.ceil(count / Math.max(1, Math.floor(most))));
  checkDispatches(parts);
  const size = Math.ceil(count / parts);
  return Array.from({ length: parts }, (_, part) => ({
    first: part * size,
    count: Math.max(0, Math.min(size, count - part * size)),
  }));
}

export function segmentsOf(problem: ResolvedLinear, spec: LinearSpecialisation): Segments {
  const { batch, states, heads, seqKv, headDim, vDim, causal, maxDispatchFlops } = problem;
  const stateFlops = 2 * headDim * vDim;
  if (!problem.chunked) {
    const size = Math.min(
      MOST_STEPS,
      maxDispatchFlops / (batch * (heads + 2 * states) * stateFlops || 1),
    );
    return { chunk: 1, size: partsOf(seqKv, size)[0].count, count: seqKv, slots: 0 };
  }
  const chunk = causal ? LINEAR_LANES * spec.rows : UNORDERED_CHUNK;
  const flops =
    chunk *
    batch *
    Math.max(states, heads) *
    (stateFlops + (causal ? 2 * chunk * (headDim + vDim) : 0));
  const bytes = 16 * batch * states * stateVec4s(headDim, vDim);
  const count = Math.ceil(seqKv / chunk);
  const size = partsOf(
    count,
    Math.min(maxDispatchFlops / (flops || 1), WORKSPACE_BYTES / (bytes || 1)),
  )[0].count;
  return { chunk, size, count, slots: Math.max(1, size) + (causal ? 0 : 1) };
}

/** @param pasts Operands to copy the state from, before the first dispatch. */
export function linearSteps(
  problem: ResolvedLinear,
  spec: LinearSpecialisation,
  segments: Segments,
  operands: ReadonlyMap<string, Operand>,
  names: StatePlaces,
): LinearStep[] {
  const { batch, states, heads, seqQ, headDim, vDim, causal, normalized, maxDispatchFlops } =
    problem;
  const { kTiles, vTiles } = linearTiles(headDim, vDim);
  const shared = sharedParams(problem, spec, segments, operands, names);
  const steps: LinearStep[] = [];
  const add = (
    kernel: LinearKernel,
    workgroups: number,
    params: UniformValues,
    own: LinearStep["names"] = {},
  ) => {
    if (workgroups > 0)
      steps.push({ kernel, names: own, workgroups, params: { ...shared, ...params } });
  };
  const copy = (source: string, result: string, elements: number) => {
    const from = operands.get(source);
    const to = operands.get(result);
    const params = { elements, from_base: from?.base ?? 0, to_base: to?.base ?? 0 };
    add("copy", Math.ceil(elements / LINEAR_WG_SIZE), params, { source, result });
  };
  const past = operands.has("pastState");
  const z = batch * states * headDim;
  if (past) copy("pastState", names.state, z * vDim);
  if (past && normalized) copy("pastNormalizer", names.normalizer, z);
  const parts = partsOf(segments.count, segments.size);
  for (const [index, part] of parts.entries()) {
    const params = { ...part, has_state: Number(past || names.state === "state" || index > 0) };
    if (!problem.chunked) {
      add("recurrent", batch * states * spec.recurrent.vBlocks, params);
      if (normalized) copy("nextNormalizer", names.normalizer, z);
      continue;
    }
    add("states", batch * states * part.count * kTiles * vTiles, params);
    add("scan", batch * states * scanBlocks(headDim, vDim, normalized), params);
    if (causal) add("output", batch * heads * part.count * vTiles, params);
  }
  if (!causal) {
    const qTile = LINEAR_LANES * spec.rows;
    const flops = 2 * qTile * batch * heads * headDim * vDim;
    for (const part of partsOf(Math.ceil(seqQ / qTile), maxDispatchFlops / (flops || 1))) {
      add("output", batch * heads * part.count * vTiles, part);
    }
  }
  return steps;
}

function sharedParams(
  problem: ResolvedLinear,
  spec: LinearSpecialisation,
  { chunk, slots }: Segments,
  operands: ReadonlyMap<string, Operand>,
  names: StatePlaces,
): UniformValues {
  const { heads, states, qHeads, kHeads, betaHeads } = problem;
  const base = (name: string) => operands.get(name)?.base ?? 0;
  const at = (name: string, row: "m" | "n", operand: Operand | undefined, dense: boolean) =>
    addresses(name, row, operand, dense, problem);
  const mask = operands.get("keyMask");
  const [maskB = 0, maskN = 0] =
    mask?.spec.strides.map((s, axis) => (mask.spec.shape[axis] > 1 ? s : 0)) ?? [];
  return {
    seq_q: problem.seqQ,
    seq_kv: problem.seqKv,
    n_heads: heads,
    n_states: states,
    q_group: heads / qHeads,
    state_group: heads / states,
    k_group: states / kHeads,
    beta_group: states / betaHeads,
    chunk,
    slots,
    scale: problem.scale,
    ...at("q", "m", operands.get("q"), isAligned(spec.q)),
    ...at("k", "n", operands.get("k"), isAligned(spec.k)),
    ...at("v", "n", operands.get("v"), isAligned(spec.v)),
    ...at("o", "m", operands.get("output"), isAligned(spec.o)),
    ...at("decay", "n", operands.get("decay"), isAligned(spec.decay)),
    ...at("beta", "n", operands.get("beta"), isAligned(spec.beta)),
    mask_base: base("keyMask"),
    mask_stride_b: maskB,
    mask_stride_n: maskN,
    lengths_base: base("kvLengths"),
    state_base: base(names.state),
    normalizer_base: base(names.normalizer),
  };
}
