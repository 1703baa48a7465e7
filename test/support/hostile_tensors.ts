// Calls of tensors themselves and of multi-head layers, for hostile values.

import {
  createGpuTimer,
  MultiHeadAttention,
  type MultiHeadOptions,
  type MultiHeadWeights,
  multiHeadWeights,
  splitHeads,
  type Tensor,
  tensor,
  unpackQkv,
} from "../../src/index.ts";
import { normal } from "../../src/reference/random.ts";
import { type Call, type Numbers, taken } from "./hostile.ts";
import { operator } from "./hostile_operators.ts";

/** Calls of tensors themselves. */
export function tensorCalls(device: GPUDevice): Call[] {
  const x = tensor(device, [2, 3, 8], { data: normal(1, 48) });
  return [
    {
      name: "tensor",
      args: { device, shape: [2, 2] },
      options: { data: [1, 2, 3, 4] },
      names: ["dtype", "buffer", "offset", "strides", "label"],
      run: async ([device, shape], options) =>
        taken(tensor(device as GPUDevice, shape as number[], options as object)),
      right: ({ shape }, { data }) => {
        const count = numbersOf(shape).reduce((a, b) => a * b, 1);
        return numbersOf(data ?? new Array(count).fill(0));
      },
    },
    {
      name: "view",
      options: { shape: [48] },
      names: ["strides", "offset", "label"],
      run: async (_, options) => x.view(options as { shape: number[] }).read(),
      right: (_, { shape, strides, offset = 0 }) => viewed(numbersOf(shape), strides, offset),
    },
    {
      name: "permute",
      args: { a: 0, b: 1, c: 2 },
      run: (axes) => x.permute(...(axes as number[])).read(),
    },
    {
      name: "slice",
      args: { axis: 2, start: 1, end: 2 },
      run: ([axis, start, end]) => x.slice(axis as number, start as number, end as number).read(),
      right: ({ axis, start, end }) => sliced(x, axis, start, end),
    },
    {
      name: "splitHeads",
      args: { x, heads: 2 },
      run: async ([x, heads]) => {
        const { shape } = splitHeads(x as Tensor, heads as number);
        return [shape[0], shape[2], shape[1] * shape[3]];
      },
    },
    {
      name: "unpackQkv",
      args: { x: x.view({ shape: [1, 2, 24] }) },
      options: { heads: 1, headDim: 8 },
      names: ["kvHeads", "vDim"],
      run: ([x], sizes) =>
        unpackQkv(x as Tensor, sizes as { heads: number; headDim: number }).v.read(),
    },
    {
      name: "createGpuTimer",
      args: { device },
      run: ([device]) => [createGpuTimer(device as GPUDevice).source.length],
    },
  ];
}

const numbersOf = (values: unknown): number[] => Array.from(values as ArrayLike<number>, Number);
let known: Numbers | undefined;
const all = () => {
  known ??= normal(1, 48);
  return known;
};
/**
 * Returns nothing for an offset that isn't a number: it has to be refused, whatever it can be
 * turned into.
 */
function viewed(shape: readonly number[], strides: unknown, offset: unknown): Numbers {
  if (typeof offset !== "number") return [];
  const steps =
    strides === undefined
      ? shape.map((_, axis) => shape.slice(axis + 1).reduce((a, b) => a * b, 1))
      : numbersOf(strides);
  const walk = (axis: number, at: number): number[] =>
    axis === shape.length
      ? [all()[at]]
      : Array.from({ length: shape[axis] }, (_, index) =>
          walk(axis + 1, at + index * steps[axis]),
        ).flat();
  return walk(0, offset);
}
function sliced(x: Tensor, axis: unknown, start: unknown, end: unknown): Numbers {
  if (typeof axis !== "number" || typeof start !== "number" || typeof end !== "number") return [];
  const shape = x.shape.map((size, a) => (a === axis ? end - start : size));
  return viewed(shape, x.strides, start * x.strides[axis]);
}

/** Calls of multi-head layers. */
export function layerCalls(device: GPUDevice): Call[] {
  const weights = multiHeadWeights.glorot(device, { embedDim: 8, heads: 2, seed: 5 });
  const layer = new MultiHeadAttention(device, weights, { heads: 2 });
  const query = tensor(device, [2, 3, 8], { data: normal(11, 48) });
  return [
    {
      name: "MultiHeadAttention",
      args: { device, weights },
      options: { heads: 2 },
      names: ["kvHeads", "zeroAttention", "label"],
      run: ([device, weights], options) => {
        const made = new MultiHeadAttention(
          device as GPUDevice,
          weights as MultiHeadWeights,
          options as MultiHeadOptions,
        );
        return [made.heads * made.headDim, made.kvHeads * made.headDim, made.outputWidth];
      },
    },
    operator("forward", (...given) => layer.forward(...(given as [Tensor])), { query }, {}, [
      "key",
      "value",
      "output",
      "lse",
      "weights",
      "weightsOutput",
      "storage",
      "variant",
      "maxDispatchFlops",
      "mask",
      "ignoreMask",
      "keyMask",
      "ignoreKeyMask",
      "bias",
    ]),
    {
      name: "glorot",
      args: { device },
      options: { embedDim: 8, heads: 2, seed: 5 },
      names: ["kvHeads", "keyDim", "valueDim", "keyWidth", "valueWidth", "outputWidth", "bias"],
      run: ([device], options) => {
        const made = multiHeadWeights.glorot(
          device as GPUDevice,
          options as { embedDim: number; heads: number },
        );
        const parts = [made.query, made.key, made.value, made.output].flatMap((one) =>
          one ? [one] : [],
        );
        for (const { weight, bias } of parts) {
          weight.destroy();
          bias?.destroy();
        }
        return [parts.length > 2 ? 1 : 0];
      },
    },
  ];
}
