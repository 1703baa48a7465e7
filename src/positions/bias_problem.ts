// A bias of scores in memory: its tensors, checked before the GPU sees any of them.

import { check } from "../errors.ts";
import type { OptionNames } from "../given.ts";
import { resolveSpec, type Tensor } from "../gpu/tensor.ts";
import type { Caller } from "../plan/operation.ts";
import { checkedSpec, expectApart, expectShape, FLOATS, type ResolvedSpec } from "../plan/specs.ts";
import type { TensorSpec } from "../types.ts";
import { distanceBuckets, type RelativeBias, t5Buckets } from "./buckets.ts";

export const GATES = ["update", "reset", "scale"] as const;

/** Gates of a bias, f32, f16 or bf16. All three broadcast to [B, H, M, 1]. */
export interface BiasGates<T> {
  /** [B, H, M, 1]; its sigmoid is u. */
  readonly update: T;
  /** [B, H, M, 1]; its sigmoid is r. */
  readonly reset: T;
  /** [H, 1, 1]; it is w. */
  readonly scale: T;
}

/** The bias that a plan is made for, given as `table` or as `bias`. Memory is given at encode. */
export interface PositionBiasProblem
  extends Partial<BiasGates<TensorSpec>>,
    Pick<RelativeBias, "bidirectional" | "maxDistance"> {
  /** [buckets, H] f32, f16 or bf16: T5's biases by the bucket of the distance. */
  readonly table?: TensorSpec;
  /** Position of the first query, with a table. Default 0. */
  readonly queryOffset?: number;
  /** f32, f16 or bf16; broadcasts to the output. */
  readonly bias?: TensorSpec;
  /** [B, H, M, N] f32, f16 or bf16. Default with `bias`: dense, with its shape and dtype. */
  readonly output?: TensorSpec;
  /** Name of the plan's GPU objects in errors and captures. Default `"positionBias"`. */
  readonly label?: string;
}

/** The names of all members of a problem. */
export const POSITION_BIAS_PROBLEM: OptionNames<PositionBiasProblem> = {
  update: "any",
  reset: "any",
  scale: "any",
  bidirectional: "boolean",
  maxDistance: "number",
  table: "any",
  queryOffset: "number",
  bias: "any",
  output: "any",
  label: "string",
};

/**
 * Memory for one run of a plan: tensors that look as the plan was told. The tensors that it was
 * made with are the default.
 */
export interface PositionBiasBindings extends Partial<BiasGates<Tensor>> {
  readonly table?: Tensor;
  readonly bias?: Tensor;
  readonly output?: Tensor;
}

/** A checked bias. */
export interface ResolvedBias {
  readonly output: ResolvedSpec;
  /** The table or the bias. */
  readonly source: ResolvedSpec;
  readonly isTable: boolean;
  readonly gates: BiasGates<ResolvedSpec> | undefined;
  /** The buckets of distances, beginning with the distance from the last query to the first key. */
  readonly buckets: Int32Array<ArrayBuffer> | undefined;
}

/** Checks a bias and fills in its defaults. Throws FoveaError that names what is wrong. */
export function resolveBias(problem: PositionBiasProblem, { label }: Caller): ResolvedBias {
  const { table, bias, queryOffset = 0 } = problem;
  const isTable = table !== undefined;
  check(
    isTable !== (bias !== undefined),
    "argument",
    () => `${label}: give a table or a bias, one of the two.`,
  );
  check(Number.isSafeInteger(queryOffset), "argument", () => {
    return `${label}: queryOffset must be a whole number, got ${queryOffset}.`;
  });
  const source = checkedSpec(
    label,
    isTable ? "table" : "bias",
    (table ?? bias) as TensorSpec,
    FLOATS,
  );
  check(problem.output !== undefined || !isTable, "argument", () => {
    return `${label}: output is needed with a table, and says how many queries and keys there are.`;
  });
  const output = problem.output
    ? checkedSpec(label, "output", problem.output, FLOATS)
    : resolveSpec("output", { shape: source.shape, dtype: source.dtype });
  check(
    output.shape.length === 4,
    "argument",
    () => `${label}: output must have the four axes BHMN, got shape [${output.shape.join(", ")}].`,
  );
  expectApart(label, "output", output);
  const [, heads, queries, keys] = output.shape;
  if (isTable)
    expectShape(label, "table", source, [source.shape[0], heads], "by buckets and heads");
  const given = GATES.filter((name) => problem[name] !== undefined);
  check(
    given.length === 0 || given.length === GATES.length,
    "argument",
    () =>
      `${label}: update, reset and scale belong together; only ${given.join(" and ")} ${given.length === 1 ? "was" : "were"} given.`,
  );
  const gate = (name: keyof BiasGates<unknown>) =>
    checkedSpec(label, name, problem[name] as TensorSpec, FLOATS);
  const gates = given.length
    ? { update: gate("update"), reset: gate("reset"), scale: gate("scale") }
    : undefined;
  if (!isTable) return { output, source, isTable, gates, buckets: undefined };
  const { bidirectional = true, maxDistance = 128 } = problem;
  const options = { bidirectional, maxDistance, buckets: source.shape[0] };
  distanceBuckets(label, options, source.shape[0]);
  const count = Math.max(1, queries + keys - 1);
  const first = Math.max(0, queries - 1) + queryOffset;
  return {
    output,
    source,
    isTable,
    gates,
    buckets: t5Buckets(1, count, { ...options, queryOffset: first }),
  };
}
