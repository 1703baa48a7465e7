// The gradients of multi-head attention: the plan and the one-line call.

import type { ScoreGradientName } from "../../attention/gradients/score_problem.ts";
import type {
  SimilarityGradient,
  SimilarityGradients,
} from "../../attention/gradients/similarity_problem.ts";
import { type OptionNames, readOptions } from "../../given.ts";
import { type FloatTensor, Tensor } from "../../gpu/tensor.ts";
import { checkTensors, RUN_OPTIONS, type RunOptions, runOnce } from "../../plan/run.ts";
import type { BooleanMasks } from "../boolean_masks.ts";
import { MultiHeadAttention } from "../multi_head.ts";
import type { MultiHeadWeights } from "../multi_head_weights.ts";
import { type MultiHeadBackwardPlan, prepareMultiHeadBackward } from "./plan.ts";
import {
  MULTI_HEAD_BACKWARD_PROBLEM,
  type MultiHeadBackwardBindings,
  type MultiHeadBackwardProblem,
  type MultiHeadParameters,
} from "./problem.ts";

/**
 * Options of {@link multiHeadAttentionBackward}: those of the forward run, with tensors in place of
 * specs.
 */
export interface MultiHeadBackwardOptions
  extends Omit<
      MultiHeadBackwardProblem,
      | "query"
      | "key"
      | "value"
      | "dOutput"
      | "dLse"
      | "dWeights"
      | "dQuery"
      | "dKey"
      | "dValue"
      | "parameters"
      | "dCaptures"
      | ScoreGradientName
      | SimilarityGradient
      | keyof BooleanMasks
    >,
    BooleanMasks<Tensor>,
    SimilarityGradients<boolean | Tensor>,
    Partial<Record<ScoreGradientName, boolean | Tensor>>,
    RunOptions {
  /** [B, N, key width]. Default: the query, for self-attention. */
  readonly key?: Tensor;
  /** [B, N, value width]. Default: the key. */
  readonly value?: Tensor;
  /** [B, M, output width]: the gradient of the output. */
  readonly dOutput: Tensor;
  /** [B, H, M] f32: the gradient of the log-sum-exp. Default: zeros. */
  readonly dLse?: Tensor;
  /** [B, H, M, N'] or [B, M, N'] f32: the gradient of the probabilities. Default: zeros. */
  readonly dWeights?: Tensor;
  /** Where the gradient of the query goes. Default: a new tensor, the caller's to destroy. */
  readonly dQuery?: Tensor;
  /** Where the gradient of the key goes. Default: a new tensor. */
  readonly dKey?: Tensor;
  /** Where the gradient of the value goes. Default: a new tensor. */
  readonly dValue?: Tensor;
  /** Where the gradients of weights go. Default: a new tensor for each that is left out. */
  readonly parameters?: MultiHeadParameters<Tensor>;
  /** `true` for a new tensor, or where the gradient goes, by the names of captures. */
  readonly dCaptures?: Readonly<Record<string, boolean | Tensor>>;
}

/** The names of the options. */
const OPTIONS: OptionNames<MultiHeadBackwardOptions> = withoutQuery(MULTI_HEAD_BACKWARD_PROBLEM);

function withoutQuery({ query, ...options }: typeof MULTI_HEAD_BACKWARD_PROBLEM) {
  return { ...options, ...RUN_OPTIONS };
}

/**
 * The gradients of a layer: those that were asked for. Of those that options hold, they are as
 * {@link AttentionGradients} has them.
 */
export interface MultiHeadGradients
  extends SimilarityGradients<FloatTensor>,
    Partial<Record<ScoreGradientName, Tensor<"f32">>> {
  /** [B, M, query width] */
  readonly dQuery?: FloatTensor;
  /** [B, N, key width], if there was a key. */
  readonly dKey?: FloatTensor;
  /** [B, N, value width], if there was a value. */
  readonly dValue?: FloatTensor;
  /** The gradient of each weight of the layer, under the weight's name. */
  readonly parameters?: MultiHeadWeights;
  readonly dCaptures?: Readonly<Record<string, Tensor<"f32">>>;
}

/**
 * Compiles the gradients of a layer, those of L = sum(output * dOutput) + sum(lse * dLse) +
 * sum(weights * dWeights): of query, key and value, of all weights of the layer, and of what the
 * options hold, if that is asked for.
 *
 * ```
 * output projection:  dO = dOutput Wo,   dWo = dOutput^T O,   dbo = sum of dOutput
 * attention:          dq, dk, dv, as planAttentionBackward computes them from dO
 * projections:        dQuery = dq Wq,   dWq = dq^T query,   dbq = sum of dq;   likewise k and v
 * ```
 *
 * Nothing of the forward run is kept or needed: the projections of query, key and value and
 * attention of the heads are computed again, with the same options. What is used several times gets
 * the sum of its gradients: without a key, `dQuery` is the gradient of the query as query, key and
 * value. The gradient of dWeights is that of attention over the rows of an identity matrix. A query
 * that sees no key, and a key that no query sees, give and get no gradient, but dWeight multiplies
 * their rows of query, key or value by 0, so that these have to be finite.
 *
 * Sums have one order, so that the same inputs on the same device give the same bits.
 *
 * Rejects with FoveaError, as {@link planAttentionBackward} does, and then has allocated nothing.
 *
 * @example
 * const backward = await planMultiHeadAttentionBackward(layer, {
 *   query: { shape: [2, 128, 512] },
 *   causal: true,
 *   parameters: gradients, // tensors like those of layer.weights
 * });
 * backward.encode(encoder, { query, dOutput, dQuery });
 */
export async function planMultiHeadAttentionBackward(
  layer: MultiHeadAttention,
  problem: MultiHeadBackwardProblem,
): Promise<MultiHeadBackwardPlan> {
  const parts = MultiHeadAttention.partsOf(layer, NAME);
  const taken = await readOptions(NAME, problem, MULTI_HEAD_BACKWARD_PROBLEM);
  return (await prepareMultiHeadBackward(parts, taken)).plan;
}

const NAME = "multiHeadAttentionBackward";

/**
 * The gradients of a layer on the GPU. See {@link planMultiHeadAttentionBackward} for the formulas
 * and the rules. For calls in a loop make a plan.
 *
 * Resolves once the GPU has accepted the work; `read()` of a gradient waits for its values.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param layer The layer, with the weights of the forward run
 * @param query [B, M, query width], f32, f16 or bf16, as for {@link MultiHeadAttention.forward}
 * @param options Those of the forward run, and dOutput
 *
 * @example
 * const { output } = await layer.forward(x, { causal: true });
 * const { dQuery, parameters } = await multiHeadAttentionBackward(layer, x, {
 *   causal: true,
 *   dOutput,
 * });
 */
export async function multiHeadAttentionBackward(
  layer: MultiHeadAttention,
  query: Tensor,
  options: MultiHeadBackwardOptions,
): Promise<MultiHeadGradients> {
  const parts = MultiHeadAttention.partsOf(layer, NAME);
  const taken = await readOptions(NAME, options, OPTIONS);
  const { key, value, dOutput, dLse, dWeights } = taken;
  checkTensors(NAME, { query, dOutput }, { key, value, dLse, dWeights });
  const { plan, resolved } = await prepareMultiHeadBackward(parts, { ...taken, query });
  const prepared = { plan, allocated: Promise.resolve() };
  const results = await runOnce(parts.device, parts.label, prepared, taken, (make) => {
    const all = {};
    for (const { name, spec, given } of [
      ...resolved.ofLayer.values(),
      ...resolved.ofOptions.values(),
    ])
      put(all, name, given instanceof Tensor ? given : make(name, spec.shape, spec.dtype));
    return all as MultiHeadBackwardBindings;
  });
  return results as MultiHeadGradients;
}

/** Puts a tensor where a path says. */
function put(into: Record<string, unknown>, path: string, tensor: Tensor): void {
  const names = path.split(".");
  const last = names.pop() as string;
  let place = into;
  for (const name of names) {
    place[name] ??= {};
    place = place[name] as Record<string, unknown>;
  }
  place[last] = tensor;
}
