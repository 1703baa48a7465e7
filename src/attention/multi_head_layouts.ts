// The weights of multi-head attention from the layouts that other libraries store them in: views, no copies on the GPU.

import { check } from "../errors.ts";
import type { Tensor } from "../gpu/tensor.ts";
import {
  glorot,
  type LinearWeights,
  type Loader,
  linear,
  loaded,
  type MultiHeadWeights,
  type WeightSource,
} from "./multi_head_weights.ts";

/** The state of PyTorch's nn.MultiheadAttention, by its names there, without a prefix. E = embed_dim. */
export interface PyTorchMultiHead {
  /** [3 E, E]: q, k and v, one after the other. */
  readonly in_proj_weight?: WeightSource;
  /** [E, E], [E, kdim] and [E, vdim], where kdim or vdim are not E. */
  readonly q_proj_weight?: WeightSource;
  readonly k_proj_weight?: WeightSource;
  readonly v_proj_weight?: WeightSource;
  /** [3 E] */
  readonly in_proj_bias?: WeightSource;
  /** [E, E] */
  readonly "out_proj.weight": WeightSource;
  /** [E] */
  readonly "out_proj.bias"?: WeightSource;
  /** [1, 1, E] */
  readonly bias_k?: WeightSource;
  readonly bias_v?: WeightSource;
}

/** The weights of Keras' MultiHeadAttention and GroupQueryAttention, by their paths in the layer. */
export interface KerasMultiHead {
  /** [query width, H, D] */
  readonly "query/kernel": WeightSource;
  /** [H, D] */
  readonly "query/bias"?: WeightSource;
  /** [key width, Hkv, D] */
  readonly "key/kernel": WeightSource;
  readonly "key/bias"?: WeightSource;
  /** [value width, Hkv, Dv] */
  readonly "value/kernel": WeightSource;
  readonly "value/bias"?: WeightSource;
  /** [H, Dv, output width] */
  readonly "attention_output/kernel": WeightSource;
  /** [output width] */
  readonly "attention_output/bias"?: WeightSource;
}

/** Inputs of com.microsoft Attention. */
export interface OnnxAttention {
  /** [input width, q + k + v] */
  readonly weights: WeightSource;
  /** [q + k + v] */
  readonly bias?: WeightSource;
  /** The attribute qkv_hidden_sizes: widths of q, k and v. Default: a third each. */
  readonly qkvHiddenSizes?: readonly [q: number, k: number, v: number];
  /** The MatMul and Add behind it, where a model has them: [q width or v width, output width] and [output width]. */
  readonly output?: OnnxLinear;
}

/** The initialisers of a MatMul and of the Add behind it. */
export interface OnnxLinear {
  /** [in, out] */
  readonly weight: WeightSource;
  /** [out] */
  readonly bias?: WeightSource;
}

const rowsOf = (part: Tensor, start: number, count: number) => part.slice(0, start, start + count);

/** Two neighbouring axes as one. */
function joined(name: string, part: Tensor, axis: number): Tensor {
  const { shape, strides } = part;
  check(
    shape[axis] <= 1 || strides[axis] === shape[axis + 1] * strides[axis + 1],
    "argument",
    () => `multiHeadWeights: the heads of ${name} don't lie side by side: strides [${strides}] of [${shape}].`,
  );
  const join = (values: readonly number[], value: number) => [
    ...values.slice(0, axis),
    value,
    ...values.slice(axis + 2),
  ];
  return part.view({ shape: join(shape, shape[axis] * shape[axis + 1]), strides: join(strides, strides[axis + 1]) });
}

/**
 * From PyTorch's nn.MultiheadAttention: its state_dict without the prefix. Packed projections stay packed, and are three
 * views. Arrays without a shape do, because `out_proj.weight` is square and gives E away.
 *
 * @example
 * const weights = multiHeadWeights.fromPyTorch(device, {
 *   in_proj_weight: new Float32Array(3 * 64 * 64).fill(0.01),
 *   "out_proj.weight": new Float32Array(64 * 64).fill(0.01),
 * });
 * const layer = new MultiHeadAttention(device, weights, { heads: 8 });
 */
function fromPyTorch(device: GPUDevice, state: PyTorchMultiHead): MultiHeadWeights {
  return loaded(device, (loader) => {
    const source = state["out_proj.weight"];
    const E = source instanceof Float32Array ? Math.sqrt(source.length) : source?.shape?.[0];
    check(
      E === undefined || Number.isInteger(E),
      "argument",
      () =>
        `multiHeadWeights: out_proj.weight must be square, [E, E], got ${(source as Float32Array).length} elements.`,
    );
    const out = loader.load("out_proj.weight", source, [E, E]);
    const packed = loader.maybe("in_proj_weight", state.in_proj_weight, [3 * E, E]);
    const separate = ["q", "k", "v"].map((which) => {
      const name = `${which}_proj_weight` as keyof PyTorchMultiHead;
      return loader.maybe(name, state[name], [E, which === "q" ? E : undefined]);
    });
    check(
      packed ? separate.every((part) => !part) : separate.every((part) => part),
      "argument",
      () => "multiHeadWeights: give in_proj_weight, or q_proj_weight, k_proj_weight and v_proj_weight.",
    );
    const bias = loader.maybe("in_proj_bias", state.in_proj_bias, [3 * E]);
    const [query, key, value] = separate.map((part, index) =>
      linear(part ?? rowsOf(packed as Tensor, index * E, E), bias && rowsOf(bias, index * E, E)),
    );
    const output = linear(out, loader.maybe("out_proj.bias", state["out_proj.bias"], [E]));
    const [biasK, biasV] = [loader.maybe("bias_k", state.bias_k, [E]), loader.maybe("bias_v", state.bias_v, [E])];
    return { query, key, value, output, ...(biasK && { biasK }), ...(biasV && { biasV }) };
  });
}

/**
 * From Keras' MultiHeadAttention or GroupQueryAttention: kernels [in, H, D] become [H * D, in] by strides.
 *
 * @param sizes Heads and head dims, where kernels are arrays without a shape.
 *
 * @example
 * const kernel = { data: new Float32Array(64 * 8 * 16).fill(0.01), shape: [64, 8, 16] };
 * const weights = multiHeadWeights.fromKeras(device, {
 *   "query/kernel": kernel,
 *   "key/kernel": kernel,
 *   "value/kernel": kernel,
 *   "attention_output/kernel": { data: kernel.data, shape: [8, 16, 64] },
 * });
 * const layer = new MultiHeadAttention(device, weights, { heads: 8 });
 */
function fromKeras(
  device: GPUDevice,
  layer: KerasMultiHead,
  sizes: {
    readonly heads?: number;
    readonly kvHeads?: number;
    readonly keyDim?: number;
    readonly valueDim?: number;
  } = {},
): MultiHeadWeights {
  const { heads, kvHeads = heads, keyDim, valueDim = keyDim } = sizes;
  return loaded(device, (loader) => {
    const into = (name: "query" | "key" | "value", count: number | undefined, width: number | undefined) => {
      checkShaped(`${name}/kernel`, layer[`${name}/kernel`], count, width);
      const kernel = loader.load(`${name}/kernel`, layer[`${name}/kernel`], [undefined, count, width]);
      const bias = loader.maybe(`${name}/bias`, layer[`${name}/bias`], kernel.shape.slice(1));
      const weight = joined(`${name}/kernel`, kernel, 1).permute(1, 0);
      return linear(weight, bias && joined(`${name}/bias`, bias, 0));
    };
    const name = "attention_output/kernel";
    checkShaped(name, layer[name], heads, valueDim);
    const kernel = loader.load(name, layer[name], [heads, valueDim, undefined]);
    const bias = loader.maybe("attention_output/bias", layer["attention_output/bias"], [kernel.shape[2]]);
    return {
      query: into("query", heads, keyDim),
      key: into("key", kvHeads, keyDim),
      value: into("value", kvHeads, valueDim),
      output: linear(joined(name, kernel, 0).permute(1, 0), bias),
    };
  });
}

function checkShaped(name: string, source: WeightSource, ...sizes: readonly (number | undefined)[]): void {
  check(
    !(source instanceof Float32Array) || sizes.every((size) => size !== undefined),
    "argument",
    () =>
      `multiHeadWeights: ${name} is an array without a shape; say { heads, keyDim, valueDim } too, or give { data, shape }.`,
  );
}

/**
 * From com.microsoft Attention of ONNX Runtime: packed weights [in, q + k + v]. The operator has no projection behind it;
 * the MatMul and Add that a model has there are given as `output`.
 *
 * @example
 * const weights = multiHeadWeights.fromOnnxAttention(device, {
 *   weights: { data: new Float32Array(64 * 192).fill(0.01), shape: [64, 192] },
 * });
 * const layer = new MultiHeadAttention(device, weights, { heads: 8 });
 */
function fromOnnxAttention(device: GPUDevice, operator: OnnxAttention): MultiHeadWeights {
  return loaded(device, (loader) => {
    const { qkvHiddenSizes, output } = operator;
    const total = qkvHiddenSizes?.reduce((sum, width) => sum + width, 0);
    const bare = operator.weights instanceof Float32Array && operator.bias;
    const fromBias = bare instanceof Float32Array ? bare.length : bare ? bare.shape[0] : undefined;
    check(
      !(operator.weights instanceof Float32Array) || (total ?? fromBias) !== undefined,
      "argument",
      () => "multiHeadWeights: weights is an array without a shape; say qkvHiddenSizes too, or give { data, shape }.",
    );
    const packed = loader.load("weights", operator.weights, [undefined, total ?? fromBias]).permute(1, 0);
    const [rows] = packed.shape;
    const widths = qkvHiddenSizes ?? [rows / 3, rows / 3, rows / 3];
    check(
      widths.every(Number.isInteger),
      "argument",
      () => `multiHeadWeights: ${rows} columns of weights are no q, k and v of one width; say qkvHiddenSizes.`,
    );
    const bias = loader.maybe("bias", operator.bias, [rows]);
    const starts = [0, widths[0], widths[0] + widths[1]];
    const [query, key, value] = widths.map((width, index) =>
      linear(rowsOf(packed, starts[index], width), bias && rowsOf(bias, starts[index], width)),
    );
    return { query, key, value, ...(output && { output: fromOnnxLinear(loader, "output", output) }) };
  });
}

/**
 * From the MatMul and Add nodes of an ONNX graph: initialisers [in, out] and [out] of q, k, v and output, each a tensor or
 * with a shape.
 *
 * @example
 * const node = { weight: { data: new Float32Array(64 * 64).fill(0.01), shape: [64, 64] } };
 * const weights = multiHeadWeights.fromOnnxMatMuls(device, { query: node, key: node, value: node, output: node });
 * const layer = new MultiHeadAttention(device, weights, { heads: 8 });
 */
function fromOnnxMatMuls(
  device: GPUDevice,
  nodes: {
    readonly query: OnnxLinear;
    readonly key: OnnxLinear;
    readonly value: OnnxLinear;
    readonly output?: OnnxLinear;
  },
): MultiHeadWeights {
  return loaded(device, (loader) => ({
    query: fromOnnxLinear(loader, "query", nodes.query),
    key: fromOnnxLinear(loader, "key", nodes.key),
    value: fromOnnxLinear(loader, "value", nodes.value),
    ...(nodes.output && { output: fromOnnxLinear(loader, "output", nodes.output) }),
  }));
}

function fromOnnxLinear(loader: Loader, name: string, { weight, bias }: OnnxLinear): LinearWeights {
  const made = loader.maybe(`${name}.bias`, bias, [undefined]);
  const stored = loader.load(`${name}.weight`, weight, [undefined, made?.shape[0]]);
  return linear(stored.permute(1, 0), made);
}

/**
 * Weights of {@link MultiHeadAttention} from the layouts of PyTorch, Keras and ONNX, or new ones. Tensors are looked at
 * by strides, arrays uploaded as they are; nothing is transposed.
 */
export const multiHeadWeights = { fromPyTorch, fromKeras, fromOnnxAttention, fromOnnxMatMuls, glorot } as const;
