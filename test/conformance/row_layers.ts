// Layers of rows and positions with their gradients as operators of vectors, by PyTorch's names of
// their tensors.

import {
  layerNorm,
  layerNormBackward,
  logSoftmax,
  logSoftmaxBackward,
  positionEncoding,
  positionEncodingBackward,
  rmsNorm,
  rmsNormBackward,
  rotary,
  rotaryBackward,
  softmax,
  softmaxBackward,
} from "../../src/index.ts";
import type { NamedCall, NamedOperator } from "./named.ts";

const norm =
  (rms: boolean): NamedOperator =>
  async ({ attributes, tensor, optional }) => {
    const { axes = 1, eps: epsilon = 1e-5 } = attributes;
    const weight = optional("weight");
    const bias = optional("bias");
    const options = {
      axis: -axes,
      epsilon,
      ...(weight && { weight }),
      ...(bias && { bias }),
    };
    const x = tensor("x");
    const { output } = await (rms ? rmsNorm : layerNorm)(x, options);
    const backward = rms ? rmsNormBackward : layerNormBackward;
    const { dX, dWeight, dBias } = await backward(x, tensor("d_output"), options);
    return { output, d_x: dX, d_weight: dWeight, d_bias: dBias };
  };

const probabilities =
  (log: boolean): NamedOperator =>
  async ({ attributes, tensor }) => {
    const { axis = -1 } = attributes;
    const x = tensor("x");
    const { output } = await (log ? logSoftmax : softmax)(x, { axis });
    const backward = log ? logSoftmaxBackward : softmaxBackward;
    const { dX } = await backward(x, tensor("d_output"), { axis });
    return { output, d_x: dX };
  };

/** The positions of a vector's rows: ids in memory, or an offset. */
const positionsOf = ({ attributes, optional }: NamedCall) => {
  const positionIds = optional("position_ids");
  return positionIds ? { positionIds } : { positionOffset: attributes.positionOffset ?? 0 };
};

const RotaryEmbedding: NamedOperator = async (call) => {
  const { positionOffset: _, linearFactor: factor, ...plain } = call.attributes;
  const options = {
    ...plain,
    ...positionsOf(call),
    ...(factor !== undefined && { scaling: { type: "linear", factor } as const }),
  };
  const { output } = await rotary(call.tensor("x"), options);
  const { dX } = await rotaryBackward(call.tensor("d_output"), options);
  return { output, d_x: dX };
};

const PositionEncoding: NamedOperator = async (call) => {
  const { positionOffset: _, kind: _kind, scale, ...sinusoidal } = call.attributes;
  const table = call.optional("table");
  const shared = {
    ...positionsOf(call),
    ...(scale !== undefined && { scale }),
    ...(table && { table }),
  };
  const { output } = await positionEncoding(call.tensor("x"), { ...sinusoidal, ...shared });
  const { dX, dTable } = await positionEncodingBackward(call.tensor("d_output"), shared);
  return { output, d_x: dX, d_table: dTable };
};

export const rowLayers = {
  LayerNorm: norm(false),
  LogSoftmax: probabilities(true),
  PositionEncoding,
  RMSNorm: norm(true),
  RotaryEmbedding,
  Softmax: probabilities(false),
};
