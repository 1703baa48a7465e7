// Gradients of attention as operators of vectors, whose tensors go by name.

import {
  type AttentionBackwardOptions,
  type AttentionGradients,
  type AttentionOptions,
  type AttentionResult,
  attention,
  attentionBackward,
  type LinearAttentionBackwardOptions,
  type LinearAttentionOptions,
  linearAttention,
  linearAttentionBackward,
  multiplicativeAttention,
  multiplicativeAttentionBackward,
  scoreFunction,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import { differentiate } from "./differentiate.ts";
import type { NamedCall, NamedOperator } from "./named.ts";

/** Leaves out what is undefined. */
const defined = <T extends object>(options: { [Name in keyof T]: T[Name] | undefined }): T =>
  Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as T;

/** The options of a vector's scores. */
function scoresOf(call: NamedCall) {
  const { attributes, optional } = call;
  const { similarity, relativeBias, scoreFunction: score, ...plain } = attributes;
  const table = optional("relative_bias_table");
  return {
    ...plain,
    mask: optional("mask"),
    bias: optional("bias"),
    sinks: optional("sinks"),
    alibiSlopes: optional("alibi_slopes"),
    relativeBias: table && { ...relativeBias, table },
    temperature: optional("temperature"),
    logTemperature: optional("log_temperature"),
    similarity: similarityOf(call),
    scoreFunction: score && scoreOf(call, score),
  };
}

const CAPTURED = "captures.";

/** The names of the tensors that a vector's score function captures. */
const capturedOf = ({ vector }: NamedCall) =>
  vector.inputs.flatMap((input) =>
    input?.name?.startsWith(CAPTURED) ? [input.name.slice(CAPTURED.length)] : [],
  );

/** The score function of a vector. Files have formulas of derivatives; ours are from the WGSL. */
function scoreOf(
  call: NamedCall,
  given: { wgsl: string; constants?: Record<string, { u32: number }> },
) {
  const names = capturedOf(call);
  const captures = Object.fromEntries(names.map((name) => [name, call.tensor(CAPTURED + name)]));
  return scoreFunction(given.wgsl, {
    captures: { ...captures, ...given.constants },
    gradient: differentiate(given.wgsl, names),
  });
}

/** The similarity of a vector, with its learned numbers. */
function similarityOf({ attributes, optional, vector }: NamedCall) {
  const { similarity } = attributes;
  if (typeof similarity !== "object") return similarity;
  // A tensor of one element stands for a number.
  const number = (name: string) => {
    const found = vector.inputs.find((input) => input?.name === name);
    return found?.data.length === 1 ? Number(found.data[0]) : undefined;
  };
  return defined({
    ...similarity,
    qWeights: optional("q_weights"),
    kWeights: optional("k_weights"),
    vector: number("vector") ?? optional("vector"),
    innerBias: optional("inner_bias"),
    innerScale: number("inner_scale") ?? similarity.innerScale,
    gain: optional("gain"),
  });
}

/** The gradients of a similarity by the names of vectors. */
const OF_SIMILARITY = {
  d_q_weights: "dQWeights",
  d_k_weights: "dKWeights",
  d_vector: "dVector",
  d_inner_bias: "dInnerBias",
  d_inner_scale: "dInnerScale",
  d_gain: "dGain",
} as const;

/** A gradient that a vector does not have counts as 0. */
const zerosLike = (call: NamedCall, { shape }: Tensor) => call.own(tensor(call.device, shape));

/** The shape of the log-sum-exp that a vector expects. */
const lseShape = ({ vector }: NamedCall) =>
  vector.outputs.find((output) => output?.name === "lse")?.shape ?? [];

const AttentionBackward: NamedOperator = async (call) => {
  const [q, k, v] = ["q", "k", "v"].map((name) => call.tensor(name));
  const { output, lse, asked, gradients } = await attend(call, {
    forward: (options) => attention(q, k, v, options),
    backward: (options) => attentionBackward(q, k, v, options),
  });
  const ofSimilarity = asked.map(([name, option]) => [name, gradients[option]]);
  const captured = Object.entries(gradients.dCaptures).map(([name, gradient]) => [
    `d_captures.${name}`,
    gradient,
  ]);
  return {
    output,
    lse,
    ...namesOf(gradients),
    ...Object.fromEntries(ofSimilarity),
    ...Object.fromEntries(captured),
    d_bias: gradients.dBias,
    d_alibi_slopes: gradients.dAlibiSlopes,
    d_relative_bias_table: gradients.dRelativeBias,
    d_sinks: gradients.dSinks,
    d_temperature: gradients.dTemperature,
    d_log_temperature: gradients.dLogTemperature,
  };
};

const MultiplicativeAttentionBackward: NamedOperator = async (call) => {
  const [q, k, v, weight] = ["q", "k", "v", "weight"].map((name) => call.tensor(name));
  const { output, lse, gradients } = await attend(call, {
    forward: (options) => multiplicativeAttention(q, k, v, weight, options),
    backward: (options) => multiplicativeAttentionBackward(q, k, v, weight, options),
  });
  return { output, lse, ...namesOf(gradients), d_weight: gradients.dWeight };
};

const namesOf = ({ dQ, dK, dV }: AttentionGradients) => ({ d_q: dQ, d_k: dK, d_v: dV });

/** Runs attention and its gradients with the options of a vector. */
async function attend<Gradients>(
  call: NamedCall,
  {
    forward,
    backward,
  }: {
    readonly forward: (options: AttentionOptions) => Promise<AttentionResult>;
    readonly backward: (options: AttentionBackwardOptions) => Promise<Gradients>;
  },
) {
  const options = defined(scoresOf(call));
  // Rows of packed sequences that belong to no entry are left as they are.
  const rows = lseShape(call);
  const data = new Float32Array(rows.reduce((a, b) => a * b)).fill(Number.NEGATIVE_INFINITY);
  const lse = call.own(tensor(call.device, rows, { data }));
  const { output } = await forward({ ...options, lse });
  call.own(output);
  const given = {
    ...options,
    output,
    lse,
    dOutput: call.optional("d_output") ?? zerosLike(call, output),
    dLse: call.optional("d_lse"),
    dBias: "bias" in options,
    dAlibiSlopes: "alibiSlopes" in options,
    dRelativeBias: "relativeBias" in options,
    dSinks: "sinks" in options,
    dTemperature: "temperature" in options,
    dLogTemperature: "logTemperature" in options,
    dCaptures: Object.fromEntries(capturedOf(call).map((name) => [name, true])),
  };
  const asked = Object.entries(OF_SIMILARITY).filter(([name]) =>
    call.vector.outputs.some((output) => output?.name === name),
  );
  const wanted = Object.fromEntries(asked.map(([, option]) => [option, true]));
  const gradients = await backward(defined<AttentionBackwardOptions>({ ...given, ...wanted }));
  return { output, lse, asked, gradients };
}

const LinearAttentionBackward: NamedOperator = async (call) => {
  const [q, k, v] = ["q", "k", "v"].map((name) => call.tensor(name));
  const shared = {
    ...call.attributes,
    decay: call.optional("decay"),
    beta: call.optional("beta"),
    keyMask: call.optional("key_mask"),
    pastState: call.optional("past_state"),
    pastNormalizer: call.optional("past_normalizer"),
  };
  const forward = await linearAttention(
    q,
    k,
    v,
    defined<LinearAttentionOptions>({ ...shared, presentState: true }),
  );
  const { output, presentState, presentNormalizer } = forward;
  const gradients = await linearAttentionBackward(
    q,
    k,
    v,
    defined<LinearAttentionBackwardOptions>({
      ...shared,
      dOutput: call.optional("d_output") ?? zerosLike(call, output),
      dPresentState: call.optional("d_present_state"),
      dPresentNormalizer: call.optional("d_present_normalizer"),
    }),
  );
  return {
    output,
    present_state: presentState,
    present_normalizer: presentNormalizer,
    d_q: gradients.dQ,
    d_k: gradients.dK,
    d_v: gradients.dV,
    d_decay: gradients.dDecay,
    d_beta: gradients.dBeta,
    d_past_state: gradients.dPastState,
    d_past_normalizer: gradients.dPastNormalizer,
  };
};

export const gradients = {
  AttentionBackward,
  LinearAttentionBackward,
  MultiplicativeAttentionBackward,
};
