// The graphs of FlexAttention as functions in WGSL, loaded with the first graph.

import { show } from "../../errors.ts";
import {
  FoveaError,
  type ProbabilityFunction,
  probabilityFunction,
  type ScoreFunction,
  scoreFunction,
} from "../../index.ts";
import { type GraphFunction, graphFunction } from "./graph/graph.ts";
import { GraphError } from "./graph/terms.ts";
import type { OnnxCall } from "./operator.ts";
import type { OnnxGraph } from "./operator_types.ts";

/**
 * The score function of a graph over scores of this shape. Throws FoveaError for a graph that has
 * no translation.
 */
export function graphScore(
  call: OnnxCall,
  graph: OnnxGraph,
  shape: readonly number[],
): ScoreFunction {
  const { source, captures } = translated(call, "score", graph, shape);
  return scoreFunction(source, { captures, label: "score_mod" });
}

/** The probability function of a graph, as {@link graphScore} has it for scores. */
export function graphProbability(
  call: OnnxCall,
  graph: OnnxGraph,
  shape: readonly number[],
): ProbabilityFunction {
  const { source, captures } = translated(call, "probability", graph, shape);
  return probabilityFunction(source, { captures, label: "prob_mod" });
}

/** Translates a graph to WGSL. Throws FoveaError for a graph that has no translation. */
function translated(
  call: OnnxCall,
  name: "score" | "probability",
  graph: OnnxGraph,
  shape: readonly number[],
): GraphFunction {
  try {
    const found = graphFunction(call.device, name, graph, shape);
    for (const memory of found.owned) call.own(memory);
    return found;
  } catch (error) {
    if (error instanceof FoveaError) throw error;
    const what =
      error instanceof GraphError
        ? error.message
        : `the graph cannot be read; ${show(String(error))}`;
    const cause = error instanceof GraphError ? {} : { cause: error };
    throw new FoveaError(
      "argument",
      `${call.label}: ${name === "score" ? "score_mod" : "prob_mod"}: ${what}.`,
      cause,
    );
  }
}
