// The kernels of linear attention's gradients in their order: forwards through the segments for what
// queries have read, then backwards for the rest.

import { DECAY_CHUNK, INVOCATIONS } from "../kernels/gradients/linear_tiles.ts";
import type { Operands } from "../plan/operand.ts";
import type { Caller, Stage } from "../plan/operation.ts";
import { stageBuilder } from "./backward_builder.ts";
import { type BackwardMemory, backwardMemory, type Segment } from "./backward_memory.ts";
import type { ResolvedLinearBackward } from "./backward_problem.ts";

export function backwardStages(
  problem: ResolvedLinearBackward,
  caller: Caller,
  operands: Operands,
): Stage[] {
  const memory = backwardMemory(problem);
  const builder = stageBuilder(problem, memory, caller, operands);
  const phases = phasesOf(problem, memory, builder);
  const { keys, queries, needs } = memory;
  const { causal, wanted } = problem;

  if (needs.reads || needs.states) {
    phases.enterPast();
    for (const [index, segment] of keys.entries()) {
      phases.forwards(segment, index);
      if (needs.reads && causal) phases.queries(segment, index);
    }
    if (needs.reads && !causal) for (const segment of queries) phases.queries(segment, keys.length);
  }
  if (!needs.backwards) return builder.stages;

  phases.enterPresent();
  let carry = memory.chunkSlots;
  const accumulate = (segment: Segment) => {
    phases.backwards(segment, carry);
    carry = memory.chunkSlots + 1;
  };
  if (!causal) for (const segment of queries) accumulate(segment);
  for (const [index, segment] of [...keys.entries()].reverse()) {
    // The states of the last segment are still there.
    if (causal && needs.states && index < keys.length - 1) phases.forwards(segment, index);
    if (causal) accumulate(segment);
    phases.tokens(segment, carry);
  }
  if (wanted.has("dPastState")) phases.leave("dPastState", carry);
  if (wanted.has("dPastNormalizer")) phases.leave("dPastNormalizer", carry);
  return builder.stages;
}

/** The kernels of each part of the way. */
function phasesOf(
  problem: ResolvedLinearBackward,
  memory: BackwardMemory,
  builder: ReturnType<typeof stageBuilder>,
) {
  const { batch, states, heads, qHeads, kHeads, betaHeads, headDim, vDim, decayDim } = problem;
  const { normalized, elu, causal, delta, wanted, seqQ, seqKv } = problem;
  const { at, chunkSlots, stateSlots, gradientSlots, tokens, stride, pitch } = memory;
  const { parts, sizes, needs } = memory;
  const masked = problem.lengths !== undefined || problem.specs.has("keyMask");
  /** Where the parts of a row's gradient lie, of heads that have `count` parts each. */
  const partPitches = (count: number) => ({
    from_at: at.parts,
    head_pitch: count * tokens * headDim,
    part_pitch: tokens * headDim,
    row_pitch: headDim,
  });
  /** Where a gradient of a state lies. */
  const slotOf = (slot: number) => ({
    from_at: at.gradients + slot * stride,
    head_pitch: gradientSlots * stride,
  });

  return {
    enterPast() {
      const slot = { from_at: at.states + chunkSlots * stride, head_pitch: stateSlots * stride };
      builder.enter("state", "pastState", slot);
      builder.enter("normalizer", "pastNormalizer", slot);
    },
    enterPresent() {
      builder.goBackwards();
      const slot = slotOf(chunkSlots);
      builder.enter("state", "dPresentState", slot);
      builder.enter("normalizer", "dPresentNormalizer", slot);
    },
    /** The states before the chunks of a segment. */
    forwards(segment: Segment, index: number) {
      const carried = { carry: chunkSlots + index, next: chunkSlots + index + 1 };
      builder.prepare(segment, "k", "v", "decay", "beta");
      if (delta) return builder.add("delta", segment, carried);
      builder.add("sums", segment);
      builder.add("scan", segment, carried);
    },
    /** What the queries of a segment read, and the gradient of q. */
    queries(segment: Segment, index: number) {
      const count = parts.rows + Number(normalized);
      const rows = builder.rowsIn(segment, seqQ);
      builder.prepare(segment, "q", "ds");
      builder.add("reads", segment, { parts: count, carry: chunkSlots + index });
      if (normalized) {
        const elements = batch * heads * rows.rows;
        const { first } = segment;
        builder.push("weights", Math.ceil(elements / INVOCATIONS), {
          ...rows,
          first,
          elements,
          parts: count,
        });
      }
      if (!wanted.has("dQ")) return;
      builder.write(
        "dQ",
        { ...rows, ...partPitches(count), parts: parts.rows, sharing: heads / qHeads },
        { mapped: elu, weighted: normalized },
      );
    },
    /** The gradients of the states after the chunks of a segment. */
    backwards(segment: Segment, carry: number) {
      const carried = { carry, next: chunkSlots + 1 };
      if (causal) builder.prepare(segment, "k", "decay", "beta");
      builder.prepare(segment, "q", "ds");
      if (delta) return builder.add("columns", segment, carried);
      builder.add("sums reversed", segment);
      builder.add("scan reversed", segment, carried);
    },
    /** The gradients of a segment's tokens. */
    tokens(segment: Segment, carry: number) {
      const rows = builder.rowsIn(segment, seqKv);
      builder.prepare(segment, "k", ...(wanted.has("dK") ? (["v"] as const) : []));
      if (needs.values && !delta) builder.add("columns", segment, { carry });
      const ofValues = { head_pitch: parts.values * tokens * pitch, row_pitch: pitch };
      if (wanted.has("dV"))
        builder.write(
          "dV",
          {
            ...rows,
            ...ofValues,
            from_at: at.values,
            part_pitch: tokens * pitch,
            parts: parts.values,
            sharing: 1,
          },
          { delta, masked },
        );
      if (wanted.has("dK")) {
        const count = parts.rows * (delta ? 2 : 1);
        builder.add("reads reversed", segment, { parts: count, carry });
        if (delta) builder.add("held", segment, { parts: count });
        builder.write(
          "dK",
          {
            ...rows,
            ...partPitches(count),
            parts: count,
            sharing: states / kHeads,
            q_rows: memory.rowsAt.k,
          },
          { masked, mapped: elu },
        );
      }
      if (wanted.has("dBeta"))
        builder.write(
          "dBeta",
          { ...rows, ...ofValues, from_at: at.values, width: vDim, sharing: states / betaHeads },
          { masked, product: true, scalar: true },
        );
      if (!wanted.has("dDecay")) return;
      builder.prepare(segment, "q", "ds", "v");
      const readers = sizes.group + Number(delta);
      const applied = { parts: (readers + 1) * parts.rows, column_parts: parts.rows };
      builder.add("applied", segment, { ...applied, first_part: 0 });
      if (delta)
        builder.add("applied held", segment, { ...applied, first_part: sizes.group * parts.rows });
      builder.add("applied reversed", segment, { ...applied, first_part: readers * parts.rows });
      const elements = batch * states * readers * rows.rows * DECAY_CHUNK;
      builder.push("pairs", Math.ceil(elements / INVOCATIONS), {
        ...rows,
        elements,
        first: segment.first,
      });
      builder.add("decay", segment, applied);
      const ofDecays = {
        from_at: at.decays,
        head_pitch: tokens * headDim,
        part_pitch: 0,
        row_pitch: headDim,
        width: headDim,
        parts: 1,
        sharing: 1,
      };
      const scalar = decayDim === 1 && headDim > 1;
      builder.write("dDecay", { ...rows, ...ofDecays }, { masked, scalar });
    },
    /** The gradient of the state before all tokens. */
    leave(name: "dPastState" | "dPastNormalizer", carry: number) {
      const isState = name === "dPastState";
      const slot = slotOf(carry);
      builder.write(name, {
        rows: isState ? headDim : 1,
        first_row: 0,
        from_at: slot.from_at + (isState ? 0 : memory.normalizerAt),
        head_pitch: slot.head_pitch,
        part_pitch: 0,
        row_pitch: pitch,
        parts: 1,
        sharing: 1,
      });
    },
  };
}
