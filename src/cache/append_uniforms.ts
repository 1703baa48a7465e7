// The kernel of an append, and the contents of its uniforms.

import { isAligned } from "../kernels/access.ts";
import {
  ADVANCE_PARAMS,
  ALL_ROWS,
  APPEND_PARAMS,
  type AppendChoice,
  appendStruct,
  rowWeights,
} from "../kernels/cache.ts";
import { UNIFORM_STRIDE } from "../kernels/params.ts";
import { COPY, copyValues } from "../kernels/tables.ts";
import { accessOf, addresses } from "../plan/access.ts";
import type { Operand } from "../plan/operand.ts";
import { positionParams } from "../positions/positions.ts";
import type { FloatDtype, KernelSource } from "../types.ts";
import type { AppendTarget, ResolvedAppend } from "./append_problem.ts";

/** The specialisation of the kernel. */
export function choiceOf(
  target: AppendTarget,
  { operands, inPlace }: ResolvedAppend,
): AppendChoice {
  const { device, source, norm, rotary } = target;
  const access = (name: string) => accessOf(device, operands.get(name) as Operand);
  const { headDim, vDim } = source;
  return {
    headDim,
    vDim,
    k: access("k"),
    v: access("v"),
    ...(operands.has("q") && {
      q: { access: access("q"), output: access(inPlace ? "q" : "qOutput"), inPlace },
    }),
    qNorm: norm !== undefined && operands.has("q"),
    kNorm: norm !== undefined,
    rotary: rotary?.choice,
    positions: operands.has("positionIds"),
    layout: source,
    dtype: source.quantised ? "f32" : (source.k.dtype as FloatDtype),
  };
}

/** The offset of each uniform of an append in its buffer. */
export const UNIFORMS = {
  params: 0,
  countedParams: UNIFORM_STRIDE,
  advanceRows: 2 * UNIFORM_STRIDE,
  advanceCounts: 3 * UNIFORM_STRIDE,
  copy: 4 * UNIFORM_STRIDE,
  append: 5 * UNIFORM_STRIDE,
} as const;

/** The bytes of all uniforms. */
export function appendUniforms(
  target: AppendTarget,
  append: ResolvedAppend,
  { choice, source: kernel }: { readonly choice: AppendChoice; readonly source: KernelSource },
): ArrayBuffer {
  const { source, state, norm } = target;
  const { operands, layout, seqQ, heads, inPlace, grid, appendBytes } = append;
  const bytes = new ArrayBuffer(UNIFORMS.append + appendBytes);
  const { q } = choice;
  const ids = operands.get("positionIds")?.spec;
  const params = {
    rows: seqQ,
    grid_x: grid.x,
    counts_at: ALL_ROWS,
    ...addresses("k", "n", operands.get("k"), isAligned(choice.k), { layout }),
    ...addresses("v", "n", operands.get("v"), isAligned(choice.v), { layout }),
    ...addresses("q", "m", operands.get("q"), isAligned(q?.access ?? "dense"), { layout }),
    ...addresses(
      "o",
      "m",
      operands.get(inPlace ? "q" : "qOutput"),
      isAligned(q?.output ?? "dense"),
      { layout },
    ),
    ...positionParams(
      target.device,
      { offset: append.positionOffset, ...(ids && { stored: storedPositions(ids) }) },
      ids,
    ),
  };
  const counted = { ...params, counts_at: state.countsAt };
  APPEND_PARAMS.pack(params, bytes, UNIFORMS.params, kernel);
  APPEND_PARAMS.pack(counted, bytes, UNIFORMS.countedParams, kernel);
  ADVANCE_PARAMS.pack(state.advanceParams("addRows", seqQ), bytes, UNIFORMS.advanceRows);
  ADVANCE_PARAMS.pack(state.advanceParams("addCounts", seqQ), bytes, UNIFORMS.advanceCounts);
  const counts = operands.get("counts");
  if (counts) COPY.pack(copyValues(counts.spec, counts.base, state.countsAt), bytes, UNIFORMS.copy);
  const values = {
    batch: source.batch,
    kv_heads: source.kvHeads,
    q_heads: heads,
    cache_rows: source.k.shape[2],
    epsilon: norm?.epsilon ?? 0,
    k_weights: rowWeights(source.headDim, norm?.k),
    q_weights: rowWeights(source.headDim, norm?.q),
  };
  appendStruct(source.headDim).pack(values, bytes, UNIFORMS.append);
  return bytes;
}

/** The strides of positions that a caller stores, as slots/positions reads them. */
function storedPositions({ shape, strides }: Operand["spec"]) {
  const steps = strides.map((stride, axis) => (shape[axis] > 1 ? stride : 0));
  const [stream, entry, row] = [...new Array<number>(3 - steps.length).fill(0), ...steps];
  return { strides: [stream, entry, row], step: 0 } as const;
}
