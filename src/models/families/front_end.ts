// Convolutions over frames of sound, without gradients.

import { linear } from "../../training/operations/dense.ts";
import { concatenate, contiguous } from "../../training/operations/elements.ts";
import { Value } from "../../training/value.ts";

/**
 * A convolution over frames, with one frame of zeros before the first and one after the last: the
 * product of windows, which are views of the frames, and the weight.
 *
 * @param x [B, T, C]
 * @param weight [N, C, 3], as PyTorch's Conv1d has it
 * @param bias [N]
 * @param stride Frames from one window to the next
 * @returns [B, ceil(T / stride), N]
 */
export function convolution(x: Value, weight: Value, bias: Value, stride: number): Value {
  const { graph, shape } = x;
  const [B, T, C] = shape;
  const [N, , size] = weight.shape;
  const edge = graph.constant([B, 1, C], new Float32Array(B * C));
  const { memory, strides, offset } = concatenate([edge, x, edge], 1);
  const count = Math.ceil(T / stride);
  const places = [strides[0], stride * strides[1], 1];
  const windows = new Value(graph, memory, [B, count, size * C], places, offset);
  return linear(windows, contiguous(weight.permute(0, 2, 1)).reshape(N, size * C), bias);
}
