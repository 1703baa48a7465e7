// The weights of multi-head attention from the layouts that other libraries store them in: views,
// no copies on the GPU.

import { check, show } from "../errors.ts";
import { numbersOf, type OptionNames } from "../given.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { takeOptions } from "../options.ts";
import { fromPyTorch } from "./multi_head_state.ts";
import {
  glorot,
  type LinearWeights,
  type Loader,
  linear,
  loaded,
  type MultiHeadWeights,
  partsOf,
  type WeightSource,
} from "./multi_head_weights.ts";

/**
 * The weights of Keras' MultiHeadAttention and GroupQueryAttention, by their paths in the layer.
 */
export interface KerasMultiHead {
  /** [query width, H, D] */
  readonly "query/kernel": WeightSource;
  /** [H, D] */
  readonly "query/bias"?: WeightSource;
  /** [key width, Hkv, D] */
  readonly "key/kernel": WeightSource;
  /** [Hkv, D] */
  readonly "key/bias"?: WeightSource;
  /** [value width, Hkv, Dv] */
  readonly "value/kernel": WeightSource;
  /** [Hkv, Dv] */
  readonly "value/bias"?: WeightSource;
  /** [H, Dv, output width] */
  readonly "attention_output/kernel": WeightSource;
  /** [output width] */
  readonly "attention_output/bias"?: WeightSource;
}

const KERAS_PARTS = (["query", "key", "value", "attention_output"] as const).flatMap(
  (name) => [`${name}/kernel`, `${name}/bias`] as const,
);

/** Sizes of a Keras layer, for kernels that are arrays without a shape. */
export interface KerasSizes {
  /** H */
  readonly heads?: number;
  /** Hkv. Default `heads`. */
  readonly kvHeads?: number;
  /** D */
  readonly keyDim?: number;
  /** Dv. Default `keyDim`. */
  readonly valueDim?: number;
}

const KERAS_SIZES: OptionNames<KerasSizes> = {
  heads: "number",
  kvHeads: "number",
  keyDim: "number",
  valueDim: "number",
};

/** Inputs of com.microsoft Attention. */
export interface OnnxAttention {
  /** [input width, q + k + v] */
  readonly weights: WeightSource;
  /** [q + k + v] */
  readonly bias?: WeightSource;
  /** The attribute qkv_hidden_sizes: widths of q, k and v. Default: a third each. */
  readonly qkvHiddenSizes?: readonly [q: number, k: number, v: number] | Int32Array | BigInt64Array;
  /**
   * The MatMul and Add after the operator, if a model has them: [q width or v width, output width]
   * and [output width].
   */
  readonly output?: OnnxLinear;
}

/** The initialisers of a MatMul and of the Add after it. */
export interface OnnxLinear {
  /** [in, out] */
  readonly weight: WeightSource;
  /** [out] */
  readonly bias?: WeightSource;
}

/** The nodes that project q, k and v, and the one after the heads, if there is one. */
export interface OnnxMatMuls {
  /** The node of q: [query width, H * D]. */
  readonly query: OnnxLinear;
  /** [key width, Hkv * D] */
  readonly key: OnnxLinear;
  /** [value width, Hkv * Dv] */
  readonly value: OnnxLinear;
  /** [H * Dv, output width]. Default: none. */
  readonly output?: OnnxLinear;
}

const rowsOf = (part: Tensor, start: number, count: number) => part.slice(0, start, start + count);

/** Joins two neighbouring axes to one. */
function joined(name: string, part: Tensor, axis: number): Tensor {
  const { shape, strides } = part;
  check(
    shape[axis] <= 1 || strides[axis] === shape[axis + 1] * strides[axis + 1],
    "argument",
    () =>
      `multiHeadWeights: the heads of ${name} don't lie side by side: strides [${strides}] of [${shape}].`,
  );
  const join = (values: readonly number[], value: number) => [
    ...values.slice(0, axis),
    value,
    ...values.slice(axis + 2),
  ];
  return part.view({
    shape: join(shape, shape[axis] * shape[axis + 1]),
    strides: join(strides, strides[axis + 1]),
  });
}

/**
 * Makes weights from those of Keras' MultiHeadAttention or GroupQueryAttention: kernels [in, H, D]
 * become [H * D, in] by strides.
 *
 * @param sizes Heads and head dims, if kernels are arrays without a shape.
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
  sizes: KerasSizes = {},
): MultiHeadWeights {
  const {
    heads,
    kvHeads = heads,
    keyDim,
    valueDim = keyDim,
  } = takeOptions("multiHeadWeights", sizes, KERAS_SIZES);
  const parts = partsOf("the layer", layer, KERAS_PARTS);
  return loaded(device, (loader) => {
    const into = (
      name: "query" | "key" | "value",
      count: number | undefined,
      width: number | undefined,
    ) => {
      checkShaped(`${name}/kernel`, parts[`${name}/kernel`], count, width);
      const kernel = loader.load(`${name}/kernel`, parts[`${name}/kernel`], [
        undefined,
        count,
        width,
      ]);
      const bias = loader.maybe(`${name}/bias`, parts[`${name}/bias`], kernel.shape.slice(1));
      const weight = joined(`${name}/kernel`, kernel, 1).permute(1, 0);
      return linear(weight, bias && joined(`${name}/bias`, bias, 0));
    };
    const name = "attention_output/kernel";
    checkShaped(name, parts[name], heads, valueDim);
    const kernel = loader.load(name, parts[name], [heads, valueDim, undefined]);
    const bias = loader.maybe("attention_output/bias", parts["attention_output/bias"], [
      kernel.shape[2],
    ]);
    return {
      query: into("query", heads, keyDim),
      key: into("key", kvHeads, keyDim),
      value: into("value", kvHeads, valueDim),
      output: linear(joined(name, kernel, 0).permute(1, 0), bias),
    };
  });
}

function checkShaped(
  name: string,
  source: unknown,
  ...sizes: readonly (number | undefined)[]
): void {
  check(
    !(source instanceof Float32Array) || sizes.every((size) => size !== undefined),
    "argument",
    () =>
      `multiHeadWeights: ${name} is an array without a shape; say { heads, keyDim, valueDim } too, or give { data, shape }.`,
  );
}

/**
 * Makes weights from those of ONNX Runtime's com.microsoft Attention: packed weights
 * [in, q + k + v]. The operator has no output projection; if a model has a MatMul and an Add after
 * it, give them as `output`.
 *
 * @example
 * const weights = multiHeadWeights.fromOnnxAttention(device, {
 *   weights: { data: new Float32Array(64 * 192).fill(0.01), shape: [64, 192] },
 * });
 * const layer = new MultiHeadAttention(device, weights, { heads: 8 });
 */
function fromOnnxAttention(device: GPUDevice, operator: OnnxAttention): MultiHeadWeights {
  const parts = partsOf("the operator", operator, ["weights", "bias", "qkvHiddenSizes", "output"]);
  return loaded(device, (loader) => {
    const given = numbersOf(parts.qkvHiddenSizes ?? undefined) as readonly number[] | undefined;
    check(
      given === undefined ||
        (Array.isArray(given) &&
          given.length === 3 &&
          given.every((n) => Number.isInteger(n) && n > 0)),
      "argument",
      () =>
        `multiHeadWeights: qkvHiddenSizes must be three whole numbers from 1 up, got ${show(given)}.`,
    );
    const bias = loader.maybe("bias", parts.bias, [undefined]);
    const total = given?.reduce((sum, width) => sum + width, 0) ?? bias?.shape[0];
    check(
      !(parts.weights instanceof Float32Array) || total !== undefined,
      "argument",
      () =>
        "multiHeadWeights: weights is an array without a shape; say qkvHiddenSizes too, or give { data, shape }.",
    );
    const packed = loader.load("weights", parts.weights, [undefined, total]).permute(1, 0);
    const [rows] = packed.shape;
    check(
      !bias || bias.shape[0] === rows,
      "argument",
      () => `multiHeadWeights: bias must be [${rows}], got [${bias?.shape}].`,
    );
    const widths = given ?? [rows / 3, rows / 3, rows / 3];
    check(
      widths.every(Number.isInteger),
      "argument",
      () =>
        `multiHeadWeights: ${rows} columns of weights are no q, k and v of one width; say qkvHiddenSizes.`,
    );
    const starts = [0, widths[0], widths[0] + widths[1]];
    const [query, key, value] = widths.map((width, index) =>
      linear(rowsOf(packed, starts[index], width), bias && rowsOf(bias, starts[index], width)),
    );
    return {
      query,
      key,
      value,
      ...(parts.output ? { output: fromOnnxLinear(loader, "output", parts.output) } : {}),
    };
  });
}

/**
 * Makes weights from the MatMul and Add nodes of an ONNX graph: initialisers [in, out] and [out] of
 * q, k, v and output, each of them a tensor, or an array with a shape.
 *
 * @example
 * const node = { weight: { data: new Float32Array(64 * 64).fill(0.01), shape: [64, 64] } };
 * const weights = multiHeadWeights.fromOnnxMatMuls(device, {
 *   query: node,
 *   key: node,
 *   value: node,
 *   output: node,
 * });
 * const layer = new MultiHeadAttention(device, weights, { heads: 8 });
 */
function fromOnnxMatMuls(device: GPUDevice, nodes: OnnxMatMuls): MultiHeadWeights {
  const parts = partsOf("the nodes", nodes, ["query", "key", "value", "output"]);
  return loaded(device, (loader) => ({
    query: fromOnnxLinear(loader, "query", parts.query),
    key: fromOnnxLinear(loader, "key", parts.key),
    value: fromOnnxLinear(loader, "value", parts.value),
    ...(parts.output ? { output: fromOnnxLinear(loader, "output", parts.output) } : {}),
  }));
}

function fromOnnxLinear(loader: Loader, name: string, node: unknown): LinearWeights {
  const { weight, bias } = partsOf(name, node, ["weight", "bias"]);
  const made = loader.maybe(`${name}.bias`, bias, [undefined]);
  const stored = loader.load(`${name}.weight`, weight, [undefined, made?.shape[0]]);
  return linear(stored.permute(1, 0), made);
}

/**
 * Weights of {@link MultiHeadAttention} from the layouts of PyTorch, Keras and ONNX, or new ones.
 * Tensors are viewed by strides, and arrays are uploaded as they are; nothing is transposed.
 */
export const multiHeadWeights = {
  fromPyTorch,
  fromKeras,
  fromOnnxAttention,
  fromOnnxMatMuls,
  glorot,
} as const;
