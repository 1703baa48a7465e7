// Adds kernels of linear attention's gradients to a list of stages: walks of segments, rows that are
// prepared, gradients that are written.

import { isAligned } from "../kernels/access.ts";
import {
  LINEAR_BACKWARD_PARAMS,
  type LinearBackwardSpecialisation,
  linearBackwardKernel,
  type RowForm,
} from "../kernels/gradients/linear.ts";
import {
  INVOCATIONS,
  type LinearBackwardKernel,
  workOf,
} from "../kernels/gradients/linear_tiles.ts";
import type { UniformValues } from "../kernels/uniform.ts";
import { accessOf, addresses } from "../plan/access.ts";
import type { Operand, Operands } from "../plan/operand.ts";
import type { Caller, Stage } from "../plan/operation.ts";
import { bindingBase, type ResolvedSpec } from "../plan/specs.ts";
import type { BackwardMemory, PreparedRows, Segment } from "./backward_memory.ts";
import type { LinearGradient } from "./backward_options.ts";
import { type ResolvedLinearBackward, rowsOf } from "./backward_problem.ts";

/** Names of operands, by the shaders' names. */
const OPERANDS = { key_mask: "keyMask", lengths: "kvLengths" };

/** Where a slot of the first head lies in the workspace, and elements from a head to the next. */
export interface Slot {
  readonly from_at: number;
  readonly head_pitch: number;
}

/** Gives what adds kernels to a list of stages. */
export function stageBuilder(
  problem: ResolvedLinearBackward,
  memory: BackwardMemory,
  { device }: Caller,
  operands: Operands,
) {
  const { batch, states, headDim, vDim, normalized, elu, layout, specs } = problem;
  const { chunk, pitch, sizes } = memory;
  const stages: Stage[] = [];
  let backwards = false; // whether gradients of outputs are divided by what outputs were
  const firsts = new Map<string, number>();
  const spec: LinearBackwardSpecialisation = {
    ...sizes,
    elu,
    lengths: problem.lengths !== undefined,
    mask: specs.has("keyMask"),
  };
  const shared = sharedParams(problem, memory, operands);

  const push = (
    kernel: LinearBackwardKernel,
    workgroups: number,
    params: UniformValues,
    made: {
      readonly form?: RowForm;
      readonly names?: Readonly<Record<string, string>>;
      readonly flops?: number;
    } = {},
  ) => {
    if (workgroups === 0) return;
    const { form, names = {}, flops } = made;
    const key = JSON.stringify([kernel, form, names]);
    const boundLike = firsts.get(key);
    if (boundLike === undefined) firsts.set(key, stages.length);
    stages.push({
      source: linearBackwardKernel(kernel, spec, form),
      names: { ...OPERANDS, ...names },
      params: { struct: LINEAR_BACKWARD_PARAMS, values: { ...shared, ...params } },
      workgroups,
      ...(flops !== undefined && { flops: [flops, problem.maxDispatchFlops] as const }),
      boundLike,
    });
  };
  /** Adds a walk or a scan of a segment. */
  const add = (kernel: LinearBackwardKernel, segment: Segment, params: UniformValues = {}) => {
    const { workgroups, flops, chunked } = workOf(kernel, sizes);
    const { first, count } = segment;
    push(
      kernel,
      batch * states * workgroups * (chunked ? count : 1),
      { first, count, ...params },
      { flops: flops * chunk * (chunked ? 1 : count) || 1 },
    );
  };
  const rowsIn = ({ first, count }: Segment, length: number) => {
    const first_row = first * chunk;
    return { first_row, rows: Math.min(count * chunk, length - first_row) };
  };
  const masked = spec.lengths || spec.mask;
  const prepared = new Map<PreparedRows, string>();
  /** Prepares the rows of tensors for a segment, unless they are there. */
  const prepare = (segment: Segment, ...names: readonly PreparedRows[]) => {
    for (const name of names) {
      const operand = operands.get(name === "ds" ? "dOutput" : name);
      if (!operand) continue;
      const weighted = name === "ds" && normalized && backwards;
      const key = JSON.stringify([segment.first, weighted]);
      if (prepared.get(name) === key) continue;
      prepared.set(name, key);
      const ofRows = { spec: rowsOf(operand.spec, layout), base: operand.base };
      const access = accessOf(device, ofRows);
      const [, out_heads, length, width] = ofRows.spec.shape;
      const rows = rowsIn(segment, length);
      const elements = batch * out_heads * rows.rows * Math.ceil(width / 4);
      const isKey = name === "q" || name === "k";
      push(
        "prepare",
        Math.ceil(elements / INVOCATIONS),
        {
          ...addresses("source", "n", ofRows, isAligned(access), { layout: "bhmd" }),
          ...rows,
          elements,
          out_heads,
          from_at: memory.rowsAt[name],
        },
        {
          form: {
            access,
            width,
            mapped: elu && isKey,
            decays: name === "decay",
            scaled: name === "ds" && !normalized,
            weighted,
            masked: masked && name !== "q" && name !== "ds",
          },
          names: { source: name === "ds" ? "dOutput" : name },
        },
      );
    }
  };
  /** Adds the kernel that writes a gradient from its parts. */
  const write = (
    name: LinearGradient,
    params: UniformValues & { readonly rows: number },
    looks: Omit<RowForm, "access" | "width"> & { readonly scalar?: boolean } = {},
  ) => {
    const { scalar = false, ...rest } = looks;
    const isState = name === "dPastState" || name === "dPastNormalizer";
    const gradient = specs.get(name) as ResolvedSpec;
    const rowsOfGradient = rowsOf(gradient, isState ? "bhmd" : layout);
    const operand = { spec: rowsOfGradient, base: bindingBase(device, rowsOfGradient) };
    const access = accessOf(device, operand);
    const [, outHeads, , width] = rowsOfGradient.shape;
    const elements = batch * outHeads * params.rows * (scalar ? 1 : Math.ceil(width / 4));
    push(
      scalar ? "scalars" : "gradient",
      Math.ceil(elements / INVOCATIONS),
      {
        ...addresses("o", "m", operand, isAligned(access), { layout: "bhmd" }),
        out_heads: outHeads,
        elements,
        ...params,
      },
      { form: { ...rest, access, width }, names: { o: name } },
    );
  };
  /** Brings a state, or a gradient of one, into a slot of the workspace. */
  const enter = (kind: "state" | "normalizer", from: string, slot: Slot) => {
    const operand = operands.get(from);
    if (!operand) return;
    const isState = kind === "state";
    const elements = batch * states * headDim * (isState ? vDim : 1);
    push(
      "enter",
      Math.ceil(elements / INVOCATIONS),
      {
        ...slot,
        from_at: slot.from_at + (isState ? 0 : memory.normalizerAt),
        elements,
        width: isState ? vDim : headDim,
        rows: isState ? headDim : 1,
        row_pitch: pitch,
        source_base: operand.base,
      },
      { names: { state: from } },
    );
  };
  return {
    stages,
    add,
    push,
    prepare,
    write,
    enter,
    rowsIn,
    /** From here on, gradients of outputs are divided by what the outputs were divided by. */
    goBackwards() {
      backwards = true;
    },
  };
}

function sharedParams(
  problem: ResolvedLinearBackward,
  memory: BackwardMemory,
  operands: Operands,
): UniformValues {
  const { heads, states, qHeads, kHeads, betaHeads } = problem;
  const { at, rowsAt, parts } = memory;
  const mask: Operand | undefined = operands.get("keyMask");
  const [maskB = 0, maskN = 0] =
    mask?.spec.strides.map((s, axis) => (mask.spec.shape[axis] > 1 ? s : 0)) ?? [];
  return {
    seq_q: problem.seqQ,
    seq_kv: problem.seqKv,
    n_heads: heads,
    n_states: states,
    q_group: heads / qHeads,
    k_group: states / kHeads,
    beta_group: states / betaHeads,
    chunk: memory.chunk,
    scale: problem.scale,
    states_at: at.states,
    state_slots: memory.stateSlots,
    gradients_at: at.gradients,
    gradient_slots: memory.gradientSlots,
    first: 0,
    count: 0,
    carry: 0,
    next: 0,
    weights_at: at.weights,
    parts_at: at.parts,
    parts: 0,
    tokens: memory.tokens,
    held_at: at.held,
    values_at: at.values,
    value_parts: parts.values,
    decays_at: at.decays,
    pairs_at: at.pairs,
    first_part: 0,
    column_parts: parts.rows,
    q_rows: rowsAt.q,
    k_rows: rowsAt.k,
    v_rows: rowsAt.v,
    ds_rows: rowsAt.ds,
    decay_rows: rowsAt.decay,
    beta_rows: rowsAt.beta,
    q_heads: qHeads,
    k_heads: kHeads,
    beta_heads: betaHeads,
    mask_base: mask?.base ?? 0,
    mask_stride_b: maskB,
    mask_stride_n: maskN,
    lengths_base: operands.get("kvLengths")?.base ?? 0,
  };
}
