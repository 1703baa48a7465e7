// Gradients of attention as operators of vectors, whose tensors go by name.

import {
  type AttentionBackwardOptions,
  attention,
  attentionBackward,
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
  const { similarity: _, relativeBias, scoreFunction: score, ...plain } = attributes;
  return {
    ...plain,
    mask: optional("mask"),
    bias: optional("bias"),
    sinks: optional("sinks"),
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
    dCaptures: Object.fromEntries(capturedOf(call).map((name) => [name, true])),
  };
  const gradients = await attentionBackward(q, k, v, defined<AttentionBackwardOptions>(given));
  const captured = Object.entries(gradients.dCaptures).map(([name, gradient]) => [
    `d_captures.${name}`,
    gradient,
  ]);
  return {
    output,
    lse,
    d_q: gradients.dQ,
    d_k: gradients.dK,
    d_v: gradients.dV,
    ...Object.fromEntries(captured),
  };
};

export const gradients = { AttentionBackward };
