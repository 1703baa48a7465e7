// Gradients of attention as operators of vectors, whose tensors go by name.

import {
  type AttentionBackwardOptions,
  attention,
  attentionBackward,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import type { NamedCall, NamedOperator } from "./named.ts";

/** Leaves out what is undefined. */
const defined = <T extends object>(options: { [Name in keyof T]: T[Name] | undefined }): T =>
  Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as T;

/** The options of a vector's scores. */
function scoresOf({ attributes, optional }: NamedCall) {
  const { relativeBias, scoreFunction, ...plain } = attributes;
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
  };
}

/** A gradient that a vector does not have counts as 0. */
const zerosLike = (call: NamedCall, { shape }: Tensor) => call.own(tensor(call.device, shape));

/** The shape of the log-sum-exp that a vector expects. */
const lseShape = ({ vector }: NamedCall) =>
  vector.outputs.find((output) => output?.name === "lse")?.shape ?? [];

const AttentionBackward: NamedOperator = async (call) => {
  const [q, k, v] = ["q", "k", "v"].map((name) => call.tensor(name));
  const options = defined(scoresOf(call));
  // Rows of packed sequences that belong to no entry are left as they are.
  const rows = lseShape(call);
  const data = new Float32Array(rows.reduce((a, b) => a * b)).fill(Number.NEGATIVE_INFINITY);
  const lse = call.own(tensor(call.device, rows, { data }));
  const { output } = await attention(q, k, v, { ...options, lse });
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
  };
  const gradients = await attentionBackward(q, k, v, defined<AttentionBackwardOptions>(given));
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
  };
};

export const gradients = { AttentionBackward };
