// Vectors of the gradients of attention, through the reference.

import {
  attention,
  attentionBackward,
  linearAttention,
  linearAttentionBackward,
  multiplicativeAttention,
  multiplicativeAttentionBackward,
  type ReferenceBackwardOptions,
  type ReferencePosition,
  type ReferenceScoreGradient,
  type ReferenceSimilarity,
} from "../../src/reference/index.ts";
import { defined, input, type NamedResults, type NamedVector } from "./named_vectors.ts";

const GRADIENTS: Readonly<Record<string, (vector: NamedVector) => NamedResults>> = {
  AttentionBackward: (vector) => {
    const [q, k, v] = ["q", "k", "v"].map((name) => input(vector, name));
    const options = optionsOf(vector);
    return namesOf(attention(q, k, v, options), attentionBackward(q, k, v, options));
  },
  MultiplicativeAttentionBackward: (vector) => {
    const [q, k, v, weight] = ["q", "k", "v", "weight"].map((name) => input(vector, name));
    const options = { ...optionsOf(vector), weight };
    const gradients = multiplicativeAttentionBackward(q, k, v, options);
    return {
      ...namesOf(multiplicativeAttention(q, k, v, options), gradients),
      d_weight: gradients.dWeight,
    };
  },
  LinearAttentionBackward: (vector) => {
    const [q, k, v] = ["q", "k", "v"].map((name) => input(vector, name));
    const { inputs, attributes } = vector;
    const options = defined({
      ...attributes,
      decay: inputs.decay,
      beta: inputs.beta,
      keyMask: inputs.key_mask,
      pastState: inputs.past_state?.data,
      pastNormalizer: inputs.past_normalizer?.data,
      dOutput: inputs.d_output?.data,
      dState: inputs.d_present_state?.data,
      dNormalizer: inputs.d_present_normalizer?.data,
    });
    const { output, state, normalizer } = linearAttention(q, k, v, options);
    const gradients = linearAttentionBackward(q, k, v, options);
    return {
      output,
      present_state: state,
      present_normalizer: normalizer,
      d_q: gradients.dQ,
      d_k: gradients.dK,
      d_v: gradients.dV,
      d_decay: gradients.dDecay,
      d_beta: gradients.dBeta,
      d_past_state: gradients.dPastState,
      d_past_normalizer: gradients.dPastNormalizer,
    };
  },
};

/** Computes the outputs of a vector. */
export function gradientsOf(vector: NamedVector): NamedResults {
  const compute = GRADIENTS[vector.op];
  if (!compute) throw new Error(`${vector.name}: the reference has no ${vector.op}`);
  return compute(vector);
}

/** Results and gradients of attention by the names of the vectors. */
function namesOf(
  { output, lse }: ReturnType<typeof attention>,
  gradients: ReturnType<typeof attentionBackward>,
): NamedResults {
  return {
    output,
    lse,
    d_q: gradients.dQ,
    d_k: gradients.dK,
    d_v: gradients.dV,
    d_bias: gradients.dBias,
    d_alibi_slopes: gradients.dAlibiSlopes,
    d_relative_bias_table: gradients.dRelativeBias,
    d_sinks: gradients.dSinks,
    d_temperature: gradients.dTemperature,
    d_log_temperature: gradients.dLogTemperature,
    d_q_weights: gradients.dQWeights,
    d_k_weights: gradients.dKWeights,
    d_vector: gradients.dVector,
    d_inner_bias: gradients.dInnerBias,
    d_inner_scale: gradients.dInnerScale,
    d_gain: gradients.dGain,
    ...Object.fromEntries(
      Object.entries(gradients.dCaptures).map(([name, values]) => [`d_captures.${name}`, values]),
    ),
  };
}

function optionsOf(vector: NamedVector): ReferenceBackwardOptions {
  const { attributes, inputs } = vector;
  const { scoreFunction, relativeBias, similarity: _, ...plain } = attributes;
  const table = inputs.relative_bias_table;
  return defined({
    ...plain,
    ...(scoreFunction && scoreOf(vector, scoreFunction.name)),
    relativeBias: table && { ...relativeBias, table },
    similarity: similarityOf(vector),
    mask: inputs.mask,
    bias: inputs.bias,
    alibiSlopes: inputs.alibi_slopes,
    sinks: inputs.sinks?.data,
    temperature: inputs.temperature?.data,
    logTemperature: inputs.log_temperature?.data,
    dOutput: inputs.d_output?.data,
    dLse: inputs.d_lse?.data,
  });
}

function similarityOf({ attributes, inputs }: NamedVector): ReferenceSimilarity | undefined {
  const { similarity } = attributes;
  if (similarity === undefined) return undefined;
  const { q_weights, k_weights, vector, inner_bias, inner_scale, gain } = inputs;
  const weighed = [q_weights, k_weights, vector, inner_bias, inner_scale, gain].some(Boolean);
  if (!weighed) return similarity;
  return defined({
    ...(similarity === "cosine" ? { kind: "l2" } : similarity),
    qWeights: q_weights?.data,
    kWeights: k_weights?.data,
    vector: vector?.data.length === 1 ? vector.data[0] : vector?.data,
    innerBias: inner_bias?.data,
    innerScale: inner_scale?.data[0],
    gain: gain?.data,
  });
}

type Captured = (name: string) => { readonly [index: number]: number };
/** A score, its derivative by s, and those by what it reads: [name, index, derivative]. */
type Score = (
  s: number,
  at: ReferencePosition,
  of: Captured,
  columns: (name: string) => number,
) => readonly [score: number, derivative: number, ...reads: [string, number, number][]];

/** The functions of the vectors, by their names, from the formulas that stand in the files. */
const SCORES: Readonly<Record<string, Score>> = {
  distance_weight: (s, { position, kvIdx }, of) => {
    const distance = Math.abs(position - kvIdx);
    const w = of("w")[distance];
    return [s * w, w, ["w", distance, s]];
  },
  document: (s, { head, qIdx, kvIdx }, of) => {
    const same = Math.floor(qIdx / 5) === Math.floor(kvIdx / 5);
    const index = head * 2 + Number(same);
    return [s + of("d")[index], 1, ["d", index, 1]];
  },
  head_bias_tanh: (s, { head }, of) => {
    const b = of("b")[head];
    const c = of("c")[0];
    const t = Math.tanh(c * s);
    return [s + b * t, 1 + b * c * (1 - t * t), ["b", head, t], ["c", 0, b * s * (1 - t * t)]];
  },
  hiding: (s, { head, kvIdx }, of) =>
    head === 1 && kvIdx % 3 === 1
      ? [Number.NEGATIVE_INFINITY, 0]
      : [s + of("c")[0] * kvIdx, 1, ["c", 0, kvIdx]],
  rank_one: (s, { head, qIdx, kvIdx }, of, columns) => {
    const i = head * columns("u") + qIdx;
    const j = head * columns("r") + kvIdx;
    return [s + of("u")[i] * of("r")[j], 1, ["u", i, of("r")[j]], ["r", j, of("u")[i]]];
  },
  temperature: (s, { head }, of) => {
    const factor = Math.exp(of("t")[head]);
    return [s * factor, factor, ["t", head, s * factor]];
  },
};

/** The options of a score function. */
function scoreOf(
  vector: NamedVector,
  name: string,
): Required<Pick<ReferenceBackwardOptions, "scoreFunction" | "scoreGradient">> {
  const score = SCORES[name];
  if (!score) throw new Error(`${vector.name}: no score function ${name} is written down here`);
  const prefix = "captures.";
  const of: Captured = (capture) => input(vector, prefix + capture).data;
  const columns = (capture: string) => input(vector, prefix + capture).shape.at(-1) as number;
  const captured = Object.entries(vector.inputs)
    .filter(([tensor]) => tensor.startsWith(prefix))
    .map(([tensor, values]) => [tensor.slice(prefix.length), values?.data.length ?? 0]);
  const scoreGradient: ReferenceScoreGradient = {
    derivative: (s, at) => score(s, at, of, columns)[1],
    captures: Object.fromEntries(captured),
    captured: (s, at) =>
      score(s, at, of, columns)
        .slice(2)
        .map((read) => {
          const [tensor, index, derivative] = read as [string, number, number];
          return { name: tensor, index, derivative };
        }),
  };
  return { scoreFunction: (s, at) => score(s, at, of, columns)[0], scoreGradient };
}
