// The gradients of what the options of scores hold, as a problem asks for them.

import { check, show } from "../../errors.ts";
import type { OptionNames, Taken } from "../../given.ts";
import { Tensor } from "../../gpu/tensor.ts";
import { checkedSpec, expectApart, expectShape, type ResolvedSpec } from "../../plan/specs.ts";
import type { TensorSpec } from "../../types.ts";
import type { TakenScoreProblem } from "../problem.ts";
import type { ResolvedScores } from "../resolved.ts";

/**
 * Gradients of what the options hold, all f32. Each is `true` for a dense tensor, or what the
 * tensor looks like, and is computed only if it is asked for.
 */
export interface ScoreGradientProblem {
  /**
   * The gradient of `bias`, of its shape: of an axis of size 1, or one that is absent, the sum over
   * it. 0 where the bias is -Infinity and hides the key.
   */
  readonly dBias?: boolean | TensorSpec;
  /** [H] or [B, H], as `alibiSlopes` are. */
  readonly dAlibiSlopes?: boolean | TensorSpec;
  /** [buckets, H]: the gradient of the table of `relativeBias`. */
  readonly dRelativeBias?: boolean | TensorSpec;
  /** [H] */
  readonly dSinks?: boolean | TensorSpec;
  /** [H], also if `temperature` is one number for all heads: its gradient is the sum. */
  readonly dTemperature?: boolean | TensorSpec;
  /** [H], as dTemperature: the gradient of `logTemperature`. 0 where `maxTemperature` bounds. */
  readonly dLogTemperature?: boolean | TensorSpec;
}

/** The names of the gradients. */
export const SCORE_GRADIENTS: OptionNames<ScoreGradientProblem> = {
  dBias: "any",
  dAlibiSlopes: "any",
  dRelativeBias: "any",
  dSinks: "any",
  dTemperature: "any",
  dLogTemperature: "any",
};

export type ScoreGradientName = keyof ScoreGradientProblem;

/** The option that each is the gradient of. */
const OPTIONS = {
  dBias: "bias",
  dAlibiSlopes: "alibiSlopes",
  dRelativeBias: "relativeBias",
  dSinks: "sinks",
  dTemperature: "temperature",
  dLogTemperature: "logTemperature",
} as const satisfies Record<ScoreGradientName, string>;

/** A gradient that was asked for. */
export interface ScoreGradient {
  readonly name: ScoreGradientName;
  /** The tensor as the caller sees it. */
  readonly spec: ResolvedSpec;
  /** The tensor over the scores, [B | 1, H | 1, M | 1, N | 1]; of a table, M counts buckets. */
  readonly overScores: Pick<ResolvedSpec, "shape" | "strides">;
}

/**
 * The gradients that a problem asks for. Throws FoveaError("argument") for the gradient of an
 * option that the problem does not have, and for a tensor of another shape.
 */
export function resolveScoreGradients(
  { label, heads, batch }: Pick<ResolvedScores, "label" | "heads" | "batch">,
  problem: Taken<ScoreGradientProblem> & TakenScoreProblem,
): ScoreGradient[] {
  const shapeOf = (name: ScoreGradientName): readonly number[] => {
    const { bias, alibiSlopes, relativeBias } = problem;
    if (name === "dBias") return bias?.shape ?? [];
    if (name === "dRelativeBias") return [bucketsOf(relativeBias, heads), heads];
    const perEntry =
      alibiSlopes instanceof Tensor ? alibiSlopes.shape.length > 1 : alibiSlopes?.length !== heads;
    return name === "dAlibiSlopes" && perEntry ? [batch, heads] : [heads];
  };
  return (Object.keys(SCORE_GRADIENTS) as ScoreGradientName[]).flatMap((name) => {
    const asked = problem[name];
    if (!asked) return [];
    check(
      problem[OPTIONS[name]] !== undefined,
      "argument",
      () => `${label}: ${name} is the gradient of ${OPTIONS[name]}, which is not given.`,
    );
    check(
      asked === true || typeof asked === "object",
      "argument",
      () => `${label}: ${name} must be true, a tensor or a spec, got ${show(asked)}.`,
    );
    const shape = shapeOf(name);
    const spec = checkedSpec(label, name, asked === true ? { shape } : asked);
    expectShape(label, name, spec, shape);
    expectApart(label, name, spec);
    return [{ name, spec, overScores: overScores(name, spec) }];
  });
}

function bucketsOf(relativeBias: TakenScoreProblem["relativeBias"], heads: number): number {
  if (!relativeBias) return 0;
  const { table, buckets } = relativeBias;
  if (buckets !== undefined) return buckets;
  return table instanceof Tensor ? table.shape[0] : table.length / heads;
}

/** Gives the tensor the four axes of scores. */
function overScores(
  name: ScoreGradientName,
  { shape, strides }: ResolvedSpec,
): ScoreGradient["overScores"] {
  const placed = (values: readonly number[], none: number) => {
    const missing = new Array<number>(4 - values.length).fill(none);
    if (name === "dBias") return [...missing, ...values];
    if (name === "dRelativeBias") return [none, values[1], values[0], none];
    return values.length === 1 ? [none, values[0], none, none] : [...values, none, none];
  };
  return { shape: placed(shape, 1), strides: placed(strides, 0) };
}
