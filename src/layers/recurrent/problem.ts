// Problems of LSTM and GRU layers: their members, and what is checked of those that forward runs and
// gradients share.

import { check, show } from "../../errors.ts";
import { isRecord, type OptionNames } from "../../given.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import { type CellKind, GATES } from "../../kernels/recurrent.ts";
import {
  checkedSpec,
  expectShape,
  FLOATS,
  type PerBatch,
  type ResolvedSpec,
} from "../../plan/specs.ts";
import type { Dtype, TensorSpec } from "../../types.ts";

/** The name of a weight, as PyTorch's `nn.LSTM` and `nn.GRU` have it in their state. */
export type RecurrentWeightName =
  `${"weight" | "bias"}_${"ih" | "hh"}_l${number}${"" | "_reverse"}`;

/**
 * The weights of a recurrent network under PyTorch's names, or something for each of them. Layer k
 * has `weight_ih_lk` [G H, inputs] and `weight_hh_lk` [G H, H], and may have `bias_ih_lk` and
 * `bias_hh_lk` [G H], for the gates one after the other: i f g o of an LSTM (G = 4), r z n of a GRU
 * (G = 3). If there is a second direction, its weights end in `_reverse`. The inputs of layer 0 are
 * those of x, the inputs of the others the units of all directions of the layer below.
 */
export type RecurrentWeights<T = Tensor> = { readonly [Name in RecurrentWeightName]?: T };

/**
 * The network that a plan is made for. Shapes and strides are fixed by the plan; memory is given at
 * encode. D is the number of directions, 1 or 2, L the number of layers.
 */
export interface GruProblem {
  /** [B, T, inputs], or [T, B, inputs] if `batchFirst` is false. f32, f16 or bf16. */
  readonly x: TensorSpec;
  /** How many layers and directions there are follows from the names. f32, f16 or bf16. */
  readonly weights: RecurrentWeights<TensorSpec>;
  /**
   * [L D, B, H] f32, the state before the first step: layer by layer, in each the direction
   * forwards first. Default: zeros.
   */
  readonly h0?: TensorSpec;
  /**
   * How many steps each batch entry uses, from 0 to T: numbers, or a dense tensor [B] of i32 (or
   * u32), whose elements may change from run to run. Past them the output is 0; the direction
   * backwards begins at the last used step. Default: all.
   */
  readonly lengths?: PerBatch | TensorSpec;
  /** Whether the batch is the first axis of x and output, and time the second. Default true. */
  readonly batchFirst?: boolean;
  /** [B, T, D H], or [T, B, D H]; f32, f16 or bf16. Default: dense f32. */
  readonly output?: TensorSpec;
  /** [L D, B, H] f32, the state after the last used step. Default: dense. */
  readonly hN?: TensorSpec;
  /**
   * Whether `gates` and `states` are left for the gradients. Default: whether one of them is given.
   */
  readonly keep?: boolean;
  /** [L D, B, T, G H] f32, dense: the gates of all steps, after their functions. */
  readonly gates?: TensorSpec;
  /**
   * [L, 3, B, T, D H] f32, dense: of each layer the states h_t, the states h_t-1 that its steps
   * began with, and c_t-1 of an LSTM or W_hn h_t-1 + b_hn of a GRU.
   */
  readonly states?: TensorSpec;
  /**
   * Floating-point operations after which a dispatch is cut in two, as for attention. Default 2^36.
   */
  readonly maxDispatchFlops?: number;
  /** Name of the plan's GPU objects in errors and captures. Default: the name of the function. */
  readonly label?: string;
}

/** The LSTM that a plan is made for. */
export interface LstmProblem extends GruProblem {
  /** [L D, B, H] f32, the state of the cells before the first step. Default: zeros. */
  readonly c0?: TensorSpec;
  /** [L D, B, H] f32, the state of the cells after the last used step. Default: dense. */
  readonly cN?: TensorSpec;
}

/** The names of all members of a problem. */
export const GRU_PROBLEM: OptionNames<GruProblem> = {
  x: "any",
  weights: "any",
  h0: "any",
  lengths: "any",
  batchFirst: "boolean",
  output: "any",
  hN: "any",
  keep: "boolean",
  gates: "any",
  states: "any",
  maxDispatchFlops: "number",
  label: "string",
};

/** The names of all members of a problem. */
export const LSTM_PROBLEM: OptionNames<LstmProblem> = { ...GRU_PROBLEM, c0: "any", cN: "any" };

/** The weights of a layer in one direction, by the names of their operands. */
export interface CellWeights {
  readonly weightIh: string;
  readonly weightHh: string;
  readonly biasIh: string | undefined;
  readonly biasHh: string | undefined;
}

/** What is known of a network and its input. */
export interface ResolvedNetwork {
  readonly cell: CellKind;
  readonly label: string;
  readonly batch: number;
  readonly steps: number;
  readonly inputs: number;
  readonly hidden: number;
  readonly layers: number;
  readonly directions: number;
  readonly batchFirst: boolean;
  readonly x: ResolvedSpec;
  /** The weights by their names. */
  readonly weights: ReadonlyMap<string, ResolvedSpec>;
  /** The names of the weights of each layer and direction, as operands have them. */
  readonly cells: readonly CellWeights[];
  /** Checked numbers, or what their tensor looks like; undefined if all steps are used. */
  readonly lengths: readonly number[] | ResolvedSpec | undefined;
}

const NAME = /^(weight|bias)_(ih|hh)_l(0|[1-9]\d?)(_reverse)?$/;

/** Checks x, weights and lengths. Throws FoveaError that names what is wrong. */
export function resolveNetwork(
  label: string,
  cell: CellKind,
  problem: Pick<GruProblem, "x" | "weights" | "lengths" | "batchFirst">,
): ResolvedNetwork {
  const { batchFirst = true } = problem;
  const x = checkedSpec(label, "x", problem.x, FLOATS);
  const axes = batchFirst ? "[B, T, inputs]" : "[T, B, inputs]";
  check(
    x.shape.length === 3,
    "argument",
    () => `${label}: x must be ${axes}, got [${x.shape.join(", ")}].`,
  );
  const [first, second, inputs] = x.shape;
  const batch = batchFirst ? first : second;
  const steps = batchFirst ? second : first;
  check(
    steps > 0 && inputs > 0,
    "argument",
    () => `${label}: x ${axes} must have a step and an input, got [${x.shape.join(", ")}].`,
  );
  const network = resolveWeights(label, cell, problem.weights, inputs);
  const lengths = resolveLengths(label, problem.lengths, batch, steps);
  return { cell, label, batch, steps, inputs, batchFirst, x, lengths, ...network };
}

function resolveWeights(label: string, cell: CellKind, given: unknown, inputs: number) {
  check(
    isRecord(given),
    "argument",
    () =>
      `${label}: weights must be tensors by PyTorch's names, { weight_ih_l0, weight_hh_l0, ... }, got ${show(given)}.`,
  );
  const weights = new Map<string, ResolvedSpec>();
  let layers = 1;
  let directions = 1;
  for (const [name, spec] of Object.entries(given)) {
    if (spec === undefined) continue;
    const found = NAME.exec(name);
    check(
      found !== null,
      "argument",
      () =>
        `${label}: weights has no use for ${show(name)}. Names: weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, those of further layers with their numbers, and of a second direction with _reverse behind them.`,
    );
    layers = Math.max(layers, Number(found[3]) + 1);
    if (found[4]) directions = 2;
    weights.set(name, checkedSpec(label, `weights.${name}`, spec as TensorSpec, FLOATS));
  }
  const needed = (name: string): ResolvedSpec => {
    const spec = weights.get(name);
    check(
      spec !== undefined,
      "argument",
      () =>
        `${label}: weights.${name} is missing; there are ${[...weights.keys()].join(", ") || "none"}.`,
    );
    return spec;
  };
  const hidden = needed("weight_hh_l0").shape[1] ?? 0;
  const gates = GATES[cell] * hidden;
  check(
    hidden > 0,
    "argument",
    () =>
      `${label}: weights.weight_hh_l0 must be [${GATES[cell]} H, H] with H of 1 or more, got [${needed("weight_hh_l0").shape.join(", ")}].`,
  );
  const why = `for ${GATES[cell]} gates of ${hidden} units`;
  const cells = Array.from({ length: layers * directions }, (_, index): CellWeights => {
    const layer = Math.floor(index / directions);
    const suffix = `_l${layer}${index % directions ? "_reverse" : ""}`;
    const width = layer === 0 ? inputs : directions * hidden;
    expectShape(
      label,
      `weights.weight_ih${suffix}`,
      needed(`weight_ih${suffix}`),
      [gates, width],
      why,
    );
    expectShape(
      label,
      `weights.weight_hh${suffix}`,
      needed(`weight_hh${suffix}`),
      [gates, hidden],
      why,
    );
    const bias = (name: string) => {
      const spec = weights.get(name);
      if (spec) expectShape(label, `weights.${name}`, spec, [gates], why);
      return spec && `weights.${name}`;
    };
    return {
      weightIh: `weights.weight_ih${suffix}`,
      weightHh: `weights.weight_hh${suffix}`,
      biasIh: bias(`bias_ih${suffix}`),
      biasHh: bias(`bias_hh${suffix}`),
    };
  });
  return { weights, cells, layers, directions, hidden };
}

function resolveLengths(
  label: string,
  given: unknown,
  batch: number,
  steps: number,
): ResolvedNetwork["lengths"] {
  if (given === undefined) return undefined;
  if (Array.isArray(given)) {
    check(
      given.length === batch && given.every((n) => Number.isInteger(n) && n >= 0 && n <= steps),
      "argument",
      () =>
        `${label}: lengths must be ${batch} whole numbers (one a batch entry) from 0 to ${steps}, the steps that x has, got ${show(given)}.`,
    );
    return given;
  }
  const dtypes: readonly Dtype[] = ["i32", "u32"];
  const spec = checkedSpec(label, "lengths", given as TensorSpec, dtypes);
  expectShape(label, "lengths", spec, [batch], "(one a batch entry)");
  check(
    spec.strides[0] === 1 || batch <= 1,
    "argument",
    () => `${label}: lengths must be dense, got strides [${spec.strides.join(", ")}].`,
  );
  return spec;
}

/** The shapes of what a network has. */
export function shapesOf(network: ResolvedNetwork) {
  const { cell, batch, steps, hidden, layers, directions, batchFirst } = network;
  const width = directions * hidden;
  return {
    output: batchFirst ? [batch, steps, width] : [steps, batch, width],
    ends: [layers * directions, batch, hidden],
    gates: [layers * directions, batch, steps, GATES[cell] * hidden],
    states: [layers, 3, batch, steps, width],
  };
}

/** The end of a sentence about a shape that follows from a network. */
export const ofNetwork = ({ layers, directions, hidden, x }: ResolvedNetwork): string =>
  `for x [${x.shape.join(", ")}] and ${layers} x ${directions} cells of ${hidden} units (layers x directions)`;
