// The gradients of the steps of a layer in one direction: a part of a plan, on tensors of
// [B, T, ...] that were checked before.

import type { OptionNames } from "../../given.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import { recurrentBackwardKernel } from "../../kernels/gradients/recurrent.ts";
import {
  type CellKind,
  GATES,
  RECURRENT_PARAMS,
  recurrentCover,
  walkedParts,
} from "../../kernels/recurrent.ts";
import { type Caller, operation, type Stage } from "../../plan/operation.ts";
import type { ResolvedSpec } from "../../plan/specs.ts";
import type { TensorSpec } from "../../types.ts";
import { addSteps, oddColumns, reachedOn, rowAddressesOf, specsOf } from "./steps.ts";

/** A walk back over the steps of a layer in one direction. */
export interface StepsBackwardProblem {
  readonly cell: CellKind;
  readonly reverse: boolean;
  /** Whether `ends` holds gradients of the last h and c. Otherwise they are 0. */
  readonly hasDh: boolean;
  readonly hasDc: boolean;
  /** Whether the gradients of the first h and c are left in `ends`. */
  readonly toStart: boolean;
  /** W_hh [G H, H] */
  readonly weight: TensorSpec;
  /** [B] */
  readonly lengths?: TensorSpec;
  /** [B, T, G H], dense, as the forward run left them. */
  readonly gates: TensorSpec;
  /** [3, B, T, H], the units of one direction. */
  readonly states: TensorSpec;
  /** [B, T, H]: gradients of h_t, two of the same strides, which are added, or one, or none. */
  readonly dOutput?: TensorSpec;
  readonly dMore?: TensorSpec;
  /** [planes, B, T, G H], dense: the gradients of the gates before their functions. */
  readonly dGates: TensorSpec;
  /** [2, B, H] */
  readonly ends: TensorSpec;
  readonly maxDispatchFlops: number;
  readonly label?: string;
}

const STEPS_BACKWARD_PROBLEM: OptionNames<StepsBackwardProblem> = {
  cell: "string",
  reverse: "boolean",
  hasDh: "boolean",
  hasDc: "boolean",
  toStart: "boolean",
  weight: "any",
  lengths: "any",
  gates: "any",
  states: "any",
  dOutput: "any",
  dMore: "any",
  dGates: "any",
  ends: "any",
  maxDispatchFlops: "number",
  label: "string",
};

const READ = ["weight", "lengths", "gates", "states", "dOutput", "dMore"] as const;
const WRITTEN = ["dGates", "ends"] as const;
type StepsTensor = (typeof READ)[number] | (typeof WRITTEN)[number];

/** The tensors of a run. */
export type StepsBackwardBindings = { readonly [Name in StepsTensor]?: Tensor };

interface ResolvedSteps {
  readonly problem: Omit<StepsBackwardProblem, StepsTensor>;
  readonly specs: { readonly [Name in StepsTensor]?: ResolvedSpec };
}

/** The operation of a walk back over steps. */
export const RECURRENT_STEPS_BACKWARD = operation<
  StepsBackwardProblem,
  StepsBackwardBindings,
  ResolvedSteps,
  object
>({
  name: "recurrentBackward",
  problem: STEPS_BACKWARD_PROBLEM,
  resolve: (problem, { label }) => ({
    problem,
    specs: specsOf(label, problem, [...READ, ...WRITTEN]),
  }),
  tensors: (into, { specs }) => addSteps(into, specs, WRITTEN, READ),
  kernel: stagesOf,
  results: () => ({}),
});

/** Our names of what the kernel binds. */
const NAMES = { d_output: "dOutput", d_more: "dMore", d_gates: "dGates" };

function stagesOf({ problem, specs }: ResolvedSteps, { device }: Caller): readonly Stage[] {
  const { cell, reverse, hasDh, hasDc, toStart, maxDispatchFlops } = problem;
  const reached = (name: StepsTensor) => reachedOn(device, specs[name]);
  const weight = reached("weight");
  const states = reached("states");
  const ends = reached("ends");
  const dOutput = reached("dOutput");
  const [, batch, steps, hidden] = states?.spec.shape ?? [];
  const { walks, tile, entries, unitTiles, workgroups } = recurrentCover(hidden, batch);
  const [byEntry = 0, byRow = 0, byUnit = 0] = dOutput?.spec.strides ?? [];
  const values = {
    batch,
    steps,
    hidden,
    unit_tiles: unitTiles,
    reverse: Number(reverse),
    has_lengths: Number(specs.lengths !== undefined),
    lengths_base: reached("lengths")?.base ?? 0,
    gates_base: reached("gates")?.base ?? 0,
    states_base: states?.base ?? 0,
    states_width: states?.spec.strides[2] ?? 0,
    ends_base: ends?.base ?? 0,
    ends_plane: ends?.spec.strides[0] ?? 0,
    d_outputs: Number(dOutput !== undefined) + Number(specs.dMore !== undefined),
    d_output_base: dOutput?.base ?? 0,
    d_output_stride_b: byEntry,
    d_output_stride_n: byRow,
    d_output_stride_d: byUnit,
    has_d_h: Number(hasDh),
    has_d_c: Number(hasDc),
    ...rowAddressesOf("weight", weight),
  };
  const source = recurrentBackwardKernel({
    cell,
    entries,
    units4: tile / 4,
    weight: weight?.access ?? "dense",
    oddUnits: oddColumns(hidden),
  });
  const flops = 2 * GATES[cell] * hidden * Math.min(tile, hidden) * entries;
  return walkedParts(steps + Number(toStart), walks, flops).map(([first, end], index) => ({
    source,
    names: NAMES,
    params: {
      struct: RECURRENT_PARAMS,
      values: { ...values, first_step: first, end_step: end },
    },
    workgroups,
    flops: [flops * (end - first), maxDispatchFlops],
    boundLike: index > 0 ? 0 : undefined,
  }));
}
