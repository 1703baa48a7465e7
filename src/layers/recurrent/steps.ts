// The steps of a layer in one direction, after the product of all inputs with W_ih: a part of a
// plan, on tensors of [B, T, ...] that were checked before.

import type { OptionNames } from "../../given.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import { isAligned } from "../../kernels/access.ts";
import {
  type CellKind,
  GATES,
  RECURRENT_PARAMS,
  recurrentCover,
  recurrentKernel,
  walkedParts,
} from "../../kernels/recurrent.ts";
import { padded } from "../../operations/projection_problem.ts";
import { accessOf, addresses } from "../../plan/access.ts";
import { type Caller, operation, type Stage } from "../../plan/operation.ts";
import { bindingBase, checkedSpec, FLOATS, type ResolvedSpec } from "../../plan/specs.ts";
import type { PlanTensors } from "../../plan/tensors.ts";
import type { Dtype, TensorSpec } from "../../types.ts";

/** A walk over the steps of a layer in one direction. */
export interface StepsProblem {
  readonly cell: CellKind;
  readonly reverse: boolean;
  readonly keep: boolean;
  /** W_hh [G H, H] */
  readonly weight: TensorSpec;
  /** b_hh [G H] */
  readonly bias?: TensorSpec;
  /** [B] */
  readonly lengths?: TensorSpec;
  /** [B, H] */
  readonly h0?: TensorSpec;
  readonly c0?: TensorSpec;
  /** [B, T, G H], dense: the products with W_ih, then the gates. */
  readonly gates: TensorSpec;
  /** [planes, B, T, H], the units of one direction. */
  readonly states: TensorSpec;
  /** [2, B, H], the last h and c. */
  readonly ends: TensorSpec;
  readonly maxDispatchFlops: number;
  readonly label?: string;
}

const STEPS_PROBLEM: OptionNames<StepsProblem> = {
  cell: "string",
  reverse: "boolean",
  keep: "boolean",
  weight: "any",
  bias: "any",
  lengths: "any",
  h0: "any",
  c0: "any",
  gates: "any",
  states: "any",
  ends: "any",
  maxDispatchFlops: "number",
  label: "string",
};

const READ = ["weight", "bias", "lengths", "h0", "c0"] as const;
const WRITTEN = ["gates", "states", "ends"] as const;
type StepsTensor = (typeof READ)[number] | (typeof WRITTEN)[number];

/** The tensors of a run. */
export type StepsBindings = { readonly [Name in StepsTensor]?: Tensor };

interface ResolvedSteps {
  readonly problem: Omit<StepsProblem, StepsTensor>;
  readonly specs: { readonly [Name in StepsTensor]?: ResolvedSpec };
}

/** The operation of a walk over steps. */
export const RECURRENT_STEPS = operation<StepsProblem, StepsBindings, ResolvedSteps, object>({
  name: "recurrent",
  problem: STEPS_PROBLEM,
  resolve: (problem, { label }) => ({
    problem,
    specs: specsOf(label, problem, [...READ, ...WRITTEN]),
  }),
  tensors: (into, { specs }) => addSteps(into, specs, WRITTEN, READ),
  kernel: stagesOf,
  results: () => ({}),
});

const DTYPES: readonly Dtype[] = [...FLOATS, "i32", "u32"];

/** The specs of those tensors that a problem has. */
export function specsOf<Name extends string>(
  label: string,
  problem: { readonly [One in Name]?: TensorSpec },
  names: readonly Name[],
): { readonly [One in Name]?: ResolvedSpec } {
  const specs: { [One in Name]?: ResolvedSpec } = {};
  for (const name of names) {
    const given = problem[name];
    if (given) specs[name] = checkedSpec(label, name, given, DTYPES);
  }
  return specs;
}

/** Adds the tensors of a walk: all that it writes, and those that there are of what it reads. */
export function addSteps<Written extends string, Read extends string>(
  { add }: Pick<PlanTensors, "add">,
  specs: { readonly [One in Written | Read]?: ResolvedSpec },
  written: readonly Written[],
  read: readonly Read[],
): void {
  for (const name of written) add(name, specs[name] as ResolvedSpec, undefined, true);
  for (const name of read) {
    const spec = specs[name];
    if (spec) add(name, spec as ResolvedSpec, undefined);
  }
}

/** A tensor as kernels reach it, or undefined if there is none. */
export const reachedOn = (device: GPUDevice, spec: ResolvedSpec | undefined) => {
  if (!spec) return undefined;
  const operand = { spec, base: bindingBase(device, spec) };
  return { ...operand, access: accessOf(device, operand) };
};

/** The members of the uniform that say where a tensor's rows are. */
export const rowAddressesOf = <Name extends "weight" | "bias">(
  name: Name,
  tensor: ReturnType<typeof reachedOn>,
) => {
  const operand = tensor && { spec: padded(tensor.spec), base: tensor.base };
  return addresses(name, "n", operand, isAligned(tensor?.access ?? "dense"), { layout: "bhmd" });
};

/** The columns of a weight whose rows end within a vec4. */
export const oddColumns = (columns: number): number | undefined =>
  columns % 4 === 0 ? undefined : columns;

function stagesOf({ problem, specs }: ResolvedSteps, { device }: Caller): readonly Stage[] {
  const { cell, reverse, keep, maxDispatchFlops } = problem;
  const reached = (name: StepsTensor) => reachedOn(device, specs[name]);
  const weight = reached("weight");
  const bias = reached("bias");
  const states = reached("states");
  const ends = reached("ends");
  const [, batch, steps, hidden] = states?.spec.shape ?? [];
  const { walks, tile, entries, unitTiles, workgroups } = recurrentCover(hidden, batch);
  const rows = GATES[cell] * hidden;
  const start = (name: "h0" | "c0") => {
    const tensor = reached(name);
    const [byEntry = 0, byUnit = 0] = tensor?.spec.strides ?? [];
    return { has: Number(tensor !== undefined), base: tensor?.base ?? 0, byEntry, byUnit };
  };
  const h0 = start("h0");
  const c0 = start("c0");
  const values = {
    batch,
    steps,
    hidden,
    unit_tiles: unitTiles,
    reverse: Number(reverse),
    has_lengths: Number(specs.lengths !== undefined),
    lengths_base: reached("lengths")?.base ?? 0,
    has_h0: h0.has,
    h0_base: h0.base,
    h0_stride_b: h0.byEntry,
    h0_stride_d: h0.byUnit,
    has_c0: c0.has,
    c0_base: c0.base,
    c0_stride_b: c0.byEntry,
    c0_stride_d: c0.byUnit,
    gates_base: reached("gates")?.base ?? 0,
    states_base: states?.base ?? 0,
    states_width: states?.spec.strides[2] ?? 0,
    ends_base: ends?.base ?? 0,
    ends_plane: ends?.spec.strides[0] ?? 0,
    ...rowAddressesOf("weight", weight),
    ...rowAddressesOf("bias", bias),
  };
  const source = recurrentKernel({
    cell,
    entries,
    lanes: tile,
    weight: weight?.access ?? "dense",
    oddUnits: oddColumns(hidden),
    bias: bias?.access,
    oddGates: oddColumns(rows),
    keep,
  });
  const flops = 2 * rows * Math.min(tile, hidden) * entries;
  return walkedParts(steps, walks, flops).map(([first, end], index) => ({
    source,
    names: {},
    params: {
      struct: RECURRENT_PARAMS,
      values: { ...values, first_step: first, end_step: end },
    },
    workgroups,
    flops: [flops * (end - first), maxDispatchFlops],
    boundLike: index > 0 ? 0 : undefined,
  }));
}
