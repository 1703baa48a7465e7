// Vectors of layers and their gradients, through the reference. Names of weights are PyTorch's.

import {
  crossEntropy,
  crossEntropyBackward,
  dropout,
  elementLoss,
  elementLossBackward,
  embedding,
  embeddingBackward,
  gru,
  gruBackward,
  layerNorm,
  layerNormBackward,
  lstm,
  lstmBackward,
  pointwise,
  pointwiseBackward,
  positionEncoding,
  positionEncodingBackward,
  project,
  projectBackward,
  type ReferenceActivation,
  rotary,
  rotaryBackward,
  softmaxAlong,
  softmaxAlongBackward,
} from "../../src/reference/index.ts";
import type { VectorTensor } from "../conformance/vector.ts";
import { multiHeadOf } from "./multi_head_vectors.ts";
import { defined, input, type NamedResults, type NamedVector } from "./named_vectors.ts";

/** Operators whose gradients the reference doesn't have, for Fovea has no such operation yet. */
export const NOT_HERE = ["TransformerEncoderLayer"];

type Compute = (vector: NamedVector) => NamedResults;

const activation =
  (name: ReferenceActivation): Compute =>
  (vector) => {
    const x = input(vector, "x");
    const dOutput = input(vector, "d_output").data;
    return {
      output: pointwise(x, { activation: name }),
      d_x: pointwiseBackward(x, { activation: name, dOutput }).dX,
    };
  };

const softmax =
  (log: boolean): Compute =>
  (vector) => {
    const x = input(vector, "x");
    const options = { axis: vector.attributes.axis ?? -1, log };
    return {
      output: softmaxAlong(x, options),
      d_x: softmaxAlongBackward(x, input(vector, "d_output").data, options),
    };
  };

const norm =
  (rms: boolean): Compute =>
  (vector) => {
    const x = input(vector, "x");
    const { weight, bias } = vector.inputs;
    const { axes = 1, eps } = vector.attributes;
    const forward = defined({ weight, bias, axis: -axes, epsilon: eps, rms });
    const { output } = layerNorm(x, forward);
    const dOutput = input(vector, "d_output").data;
    const { dX, dWeight, dBias } = layerNormBackward(x, { ...forward, dOutput });
    return { output, d_x: dX, d_weight: dWeight, d_bias: dBias };
  };

/** x W^T + b and its gradients, for weights of a name that ends in a dot, or of none. */
function linear(vector: NamedVector, x: VectorTensor, prefix = "") {
  const weight = input(vector, `${prefix}weight`);
  const bias = vector.inputs[`${prefix}bias`];
  const shape = [...x.shape.slice(0, -1), weight.shape[0]];
  return {
    output: { data: project(x, weight, bias), shape, dtype: "float64" },
    backward: (dOutput: Float64Array) => {
      const { dX, dWeight, dBias } = projectBackward(x, weight, dOutput);
      return { dX, named: { [`d_${prefix}weight`]: dWeight, [`d_${prefix}bias`]: dBias } };
    },
  };
}

const loss =
  (kind: "squared" | "logistic"): Compute =>
  (vector) => {
    const x = input(vector, "x");
    const target = input(vector, "target").data;
    const { weight, pos_weight: posWeight, d_loss: dLoss } = vector.inputs;
    const { reduction } = vector.attributes;
    const options = { kind, ...defined({ reduction, weight, posWeight }) };
    const gradients = elementLossBackward(x, target, dLoss?.data ?? [1], options);
    return {
      loss: elementLoss(x, target, options),
      d_x: gradients.dX,
      d_target: gradients.dTarget,
    };
  };

/** LSTM or GRU. What a vector does not have is not compared. */
function recurrent(vector: NamedVector): NamedResults {
  const { attributes, inputs } = vector;
  const { lengths, batchFirst = true } = attributes;
  const x = input(vector, "x");
  const weights = Object.fromEntries(
    Object.entries(inputs).flatMap(([name, tensor]) =>
      tensor && /^(weight|bias)_/.test(name) ? [[name, tensor]] : [],
    ),
  );
  const options = defined({
    lengths,
    batchFirst,
    h0: inputs.h0?.data,
    c0: inputs.c0?.data,
    dOutput: inputs.d_output?.data,
    dHN: inputs.d_h_n?.data,
    dCN: inputs.d_c_n?.data,
  });
  const isLstm = vector.op === "LSTM";
  const results = isLstm ? lstm(x, weights, options) : gru(x, weights, options);
  const gradients = (isLstm ? lstmBackward : gruBackward)(x, weights, options);
  const named = Object.entries(gradients.parameters).map(([name, values]) => [`d_${name}`, values]);
  return {
    output: results.output,
    h_n: results.hN,
    ...("cN" in results && { c_n: results.cN }),
    d_x: gradients.dX,
    d_h0: gradients.dH0,
    ...("dC0" in gradients && { d_c0: gradients.dC0 }),
    ...Object.fromEntries(named),
  };
}

const LAYERS: Readonly<Record<string, Compute>> = {
  BCEWithLogitsLoss: loss("logistic"),
  MSELoss: loss("squared"),
  CrossEntropyLoss: (vector) => {
    const logits = input(vector, "logits");
    const target = input(vector, "target").data;
    const { ignoreIndex, labelSmoothing, reduction } = vector.attributes;
    const classWeights = vector.inputs.class_weights?.data;
    const options = defined({ ignoreIndex, labelSmoothing, reduction, classWeights });
    const dLoss = vector.inputs.d_loss?.data ?? [1];
    return {
      loss: crossEntropy(logits, target, options),
      d_logits: crossEntropyBackward(logits, target, dLoss, options),
    };
  },
  Dropout: (vector) => {
    const { p, seed, step } = vector.attributes;
    const options = { p, ...defined({ seed, step, keepMask: vector.inputs.keep_mask?.data }) };
    return {
      output: dropout(input(vector, "x").data, options),
      d_x: dropout(input(vector, "d_output").data, options),
    };
  },
  Embedding: (vector) => {
    const weight = input(vector, "weight");
    const ids = input(vector, "ids").data;
    const { scale, paddingId } = vector.attributes;
    const options = defined({ scale, paddingId });
    const dOutput = input(vector, "d_output").data;
    return {
      output: embedding(weight, ids, options),
      d_weight: embeddingBackward(weight, ids, dOutput, options),
    };
  },
  GRU: recurrent,
  LSTM: recurrent,
  Linear: (vector) => {
    const { output, backward } = linear(vector, input(vector, "x"));
    const { dX, named } = backward(input(vector, "d_output").data);
    return { output: output.data, d_x: dX, ...named };
  },
  LayerNorm: norm(false),
  RMSNorm: norm(true),
  Softmax: softmax(false),
  LogSoftmax: softmax(true),
  GELU: (vector) =>
    activation(vector.attributes.approximate === "tanh" ? "gelu-tanh" : "gelu")(vector),
  ReLU: activation("relu"),
  SiLU: activation("silu"),
  Tanh: activation("tanh"),
  Sigmoid: activation("sigmoid"),
  SwiGLU: (vector) => (vector.attributes.form === "mlp" ? gatedLayers(vector) : halves(vector)),
  RotaryEmbedding: (vector) => {
    const x = input(vector, "x");
    const { position_ids: ids } = vector.inputs;
    const { positionOffset = 0, linearFactor, ...rest } = vector.attributes;
    const M = x.shape[2];
    const options = {
      ...rest,
      ...(linearFactor && { scaling: { type: "linear" as const, factor: linearFactor } }),
      position: (_: number, b: number, m: number) =>
        ids ? ids.data[b * M + m] : m + positionOffset,
    };
    return {
      output: rotary(x, options),
      d_x: rotaryBackward(input(vector, "d_output"), options),
    };
  },
  PositionEncoding: (vector) => {
    const x = input(vector, "x");
    const { table, position_ids: ids } = vector.inputs;
    const { positionOffset = 0, kind: _, ...rest } = vector.attributes;
    const options = defined({
      ...rest,
      table,
      position: (b: number, m: number) => (ids ? ids.data[b * x.shape[1] + m] : m + positionOffset),
    });
    const { dX, dTable } = positionEncodingBackward(x, input(vector, "d_output").data, options);
    return { output: positionEncoding(x, options), d_x: dX, d_table: dTable };
  },
  MultiheadAttention: multiHeadOf,
};

/** silu(first half) * second half of the last axis. */
function halves(vector: NamedVector): NamedResults {
  const { data, shape } = input(vector, "x");
  const width = shape[shape.length - 1] / 2;
  const rows = data.length / (2 * width);
  const half = (offset: number) => ({
    data,
    shape: [rows, width],
    strides: [2 * width, 1],
    offset,
  });
  const options = { activation: "silu" as const, factor: half(width) };
  const dOutput = input(vector, "d_output").data;
  const { dX, dFactor } = pointwiseBackward(half(0), { ...options, dOutput });
  const joined = Float64Array.from(data, (_, at) => {
    const row = Math.floor(at / (2 * width));
    const d = at % (2 * width);
    return d < width ? dX[row * width + d] : dFactor[row * width + d - width];
  });
  return { output: pointwise(half(0), options), d_x: joined };
}

/** down(silu(gate(x)) * up(x)) */
function gatedLayers(vector: NamedVector): NamedResults {
  const x = input(vector, "x");
  const gate = linear(vector, x, "gate.");
  const up = linear(vector, x, "up.");
  const options = { activation: "silu" as const, factor: up.output };
  const inner = { ...gate.output, data: pointwise(gate.output, options) };
  const down = linear(vector, inner, "down.");
  const last = down.backward(input(vector, "d_output").data);
  const { dX, dFactor } = pointwiseBackward(gate.output, { ...options, dOutput: last.dX });
  const ofGate = gate.backward(dX);
  const ofUp = up.backward(dFactor);
  return {
    output: down.output.data,
    d_x: ofGate.dX.map((value, at) => value + ofUp.dX[at]),
    ...ofGate.named,
    ...ofUp.named,
    ...last.named,
  };
}

/** Computes the outputs of a vector. */
export function layerOf(vector: NamedVector): NamedResults {
  const compute = LAYERS[vector.op];
  if (!compute) throw new Error(`${vector.name}: the reference has no ${vector.op}`);
  return compute(vector);
}
