// The weights of multi-head attention: made from numbers or tensors, or new.

import { check, reading, show } from "../errors.ts";
import { isRecord, numbersOf, type OptionNames } from "../given.ts";
import { checkBufferSize, checkDevice } from "../gpu/buffers.ts";
import type { TensorData } from "../gpu/elements.ts";
import { tensor } from "../gpu/make_tensor.ts";
import { Tensor } from "../gpu/tensor.ts";
import { checkNames, takeOptions } from "../options.ts";
import { FLOATS } from "../plan/specs.ts";
import type { Dtype } from "../types.ts";

/** A linear layer: y = x W^T + b. */
export interface LinearWeights {
  /**
   * [out, in], of any strides: a weight that is stored [in, out] is given as `permute(1, 0)`. f32,
   * f16 or bf16.
   */
  readonly weight: Tensor;
  /** [out]. Default: nothing is added. */
  readonly bias?: Tensor;
}

/**
 * The weights of a {@link MultiHeadAttention}. H heads, Hkv key heads, head dims D of q and k, Dv
 * of v.
 */
export interface MultiHeadWeights {
  /** [H * D, query width] */
  readonly query: LinearWeights;
  /** [Hkv * D, key width] */
  readonly key: LinearWeights;
  /** [Hkv * Dv, value width] */
  readonly value: LinearWeights;
  /**
   * [output width, H * Dv]. Default: no projection; the output is that of the heads, side by side.
   */
  readonly output?: LinearWeights;
  /**
   * `[Hkv * D]`: a learned key, projected already, that every query sees (PyTorch's add_bias_kv).
   * With `biasV`.
   */
  readonly biasK?: Tensor;
  /** `[Hkv * Dv]`: the value of the learned key. */
  readonly biasV?: Tensor;
}

/**
 * The numbers of a weight: a tensor on the GPU, which is viewed by strides; or an array, which is
 * uploaded.
 */
export type WeightSource =
  | Tensor
  | Float32Array
  | { readonly data: TensorData; readonly shape: readonly number[]; readonly dtype?: Dtype };

/** Makes the tensors of one set of weights. If one of them is refused, the others are freed. */
export class Loader {
  readonly #device: GPUDevice;
  readonly #made: Tensor[] = [];

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /**
   * Gives a tensor of this shape. Undefined sizes are found out: one at most without a shape.
   *
   * @param given Should be a {@link WeightSource}, and is checked here
   */
  load(name: string, given: unknown, shape: readonly (number | undefined)[]): Tensor {
    const source = readSource(name, given);
    const known = shape.reduce<number>((product, size) => product * (size ?? 1), 1);
    const length = "data" in source ? source.data.length : 0;
    const actual = source.shape
      ? squeezed(source.shape, shape.length)
      : shape.map((size) => size ?? length / known);
    const holds =
      source.shape !== undefined || actual.reduce((product, size) => product * size, 1) === length;
    const fits = actual.every(
      (size, axis) => size === (shape[axis] ?? size) && Number.isSafeInteger(size),
    );
    check(
      actual.length === shape.length && fits && holds,
      "argument",
      () =>
        `multiHeadWeights: ${name} must be [${shape.map((size) => size ?? "any").join(", ")}], got ${source.shape ? show(source.shape) : `${length} elements`}.`,
    );
    if (source instanceof Tensor) {
      if (source.shape.length === actual.length) return source;
      return source.view({
        shape: actual,
        strides: source.strides.slice(source.shape.length - actual.length),
      });
    }
    const { data, dtype } = source;
    const made = tensor(this.#device, actual, { data, dtype, label: name });
    this.#made.push(made);
    return made;
  }

  /** Like `load`, for a weight that may be absent. */
  maybe(name: string, given: unknown, shape: readonly (number | undefined)[]): Tensor | undefined {
    return given === undefined || given === null ? undefined : this.load(name, given, shape);
  }

  free(): void {
    for (const made of this.#made) made.destroy();
  }
}

/** Numbers and their dtype. Without a shape, `load` finds it out. */
interface ArraySource {
  readonly data: TensorData;
  readonly shape?: readonly number[];
  readonly dtype: Dtype;
}

/** Reads once what a caller gave. */
function readSource(name: string, given: unknown): Tensor | ArraySource {
  if (given instanceof Tensor) return given;
  if (given instanceof Float32Array) return { data: given, dtype: "f32" };
  const { data, shape, dtype } = reading(`multiHeadWeights: ${name}`, () => {
    const { data, shape, dtype = "f32" } = (given ?? {}) as Record<string, unknown>;
    return { data, shape: numbersOf(shape), dtype };
  });
  const isList = Array.isArray(data) || (ArrayBuffer.isView(data) && !(data instanceof DataView));
  check(
    typeof given === "object" && isList && Array.isArray(shape),
    "argument",
    () =>
      `multiHeadWeights: ${name} must be a Tensor, a Float32Array or { data, shape }, got ${show(given)}.`,
  );
  check(
    shape.every((size) => Number.isSafeInteger(size) && size >= 0),
    "argument",
    () =>
      `multiHeadWeights: the shape of ${name} must be whole numbers from 0 up, got ${show(shape)}.`,
  );
  check(
    FLOATS.includes(dtype as Dtype),
    "argument",
    () =>
      `multiHeadWeights: the dtype of ${name} must be "f32", "f16" or "bf16", got ${show(dtype)}.`,
  );
  return { data: data as TensorData, shape: [...shape], dtype: dtype as Dtype };
}

/** The last axes of a shape, if those before them have size 1: bias_k is [1, 1, E]. */
function squeezed(shape: readonly number[], axes: number): readonly number[] {
  const extra = shape.slice(0, Math.max(0, shape.length - axes));
  return extra.every((size) => size === 1) ? shape.slice(extra.length) : shape;
}

/**
 * The members of an object of weights, read once. Throws FoveaError for a name that is not one of
 * them.
 */
export function partsOf<Name extends string>(what: string, given: unknown, names: readonly Name[]) {
  check(
    isRecord(given),
    "argument",
    () =>
      `multiHeadWeights: ${what} must be an object { ${names.join(", ")} }, got ${show(given)}.`,
  );
  const known = Object.fromEntries(names.map((name) => [name, "any?"] as const));
  return reading(`multiHeadWeights: ${what}`, () => {
    checkNames(`multiHeadWeights: ${what}`, given, known);
    const read = names.map((name) => [name, (given as Record<string, unknown>)[name]]);
    return Object.fromEntries(read) as Partial<Record<Name, unknown>>;
  });
}

/** Gives weights that a loader makes. If that fails, none of its tensors is left. */
export function loaded(
  device: GPUDevice,
  work: (loader: Loader) => MultiHeadWeights,
): MultiHeadWeights {
  const loader = new Loader(device);
  try {
    return work(loader);
  } catch (error) {
    loader.free();
    throw error;
  }
}

export const linear = (weight: Tensor, bias: Tensor | undefined): LinearWeights => ({
  weight,
  ...(bias && { bias }),
});

/**
 * Sizes of a new layer, as torch.nn.MultiheadAttention and keras.layers.MultiHeadAttention name
 * theirs.
 */
export interface NewMultiHead {
  /** Width of the queries; also of keys, values and output if those are not given. */
  readonly embedDim: number;
  /** Query heads H. */
  readonly heads: number;
  /** Default `heads`. */
  readonly kvHeads?: number;
  /** D, of each head. Default embedDim / heads. */
  readonly keyDim?: number;
  /** Dv, of each head. Default `keyDim`. */
  readonly valueDim?: number;
  /** Width of the keys that come in. Default embedDim. */
  readonly keyWidth?: number;
  /** Width of the values that come in. Default: that of the keys. */
  readonly valueWidth?: number;
  /** Width of the output, or `"heads"` for no output projection. Default embedDim. */
  readonly outputWidth?: number | "heads";
  /** Whether the projections have biases, which are zeros at first. Default true. */
  readonly bias?: boolean;
  /** A whole number; the same one gives the same weights. Default 0. */
  readonly seed?: number;
}

const NEW_MULTI_HEAD: OptionNames<NewMultiHead> = {
  embedDim: "number",
  heads: "number",
  kvHeads: "number",
  keyDim: "number",
  valueDim: "number",
  keyWidth: "number",
  valueWidth: "number",
  outputWidth: "any",
  bias: "boolean",
  seed: "number",
};

/**
 * New weights, uniform in +-sqrt(6 / (in + out)) as PyTorch and Keras start with (Glorot and Bengio
 * 2010, equation 16).
 *
 * @example
 * const weights = multiHeadWeights.glorot(device, { embedDim: 512, heads: 8 });
 * const layer = new MultiHeadAttention(device, weights, { heads: 8 });
 */
export function glorot(device: GPUDevice, sizes: NewMultiHead): MultiHeadWeights {
  checkDevice(device);
  const options = takeOptions("multiHeadWeights", sizes, NEW_MULTI_HEAD);
  const {
    embedDim,
    heads,
    kvHeads = heads,
    keyDim = embedDim / heads,
    valueDim = keyDim,
  } = options;
  const {
    keyWidth = embedDim,
    valueWidth = keyWidth,
    outputWidth = embedDim,
    bias = true,
    seed = 0,
  } = options;
  const numbers = { embedDim, heads, kvHeads, keyDim, valueDim, keyWidth, valueWidth };
  for (const [name, size] of Object.entries(
    outputWidth === "heads" ? numbers : { ...numbers, outputWidth },
  )) {
    check(
      Number.isInteger(size) && (size as number) >= 1,
      "argument",
      () => `multiHeadWeights: ${name} must be a whole number from 1 up, got ${show(size)}.`,
    );
  }
  return loaded(device, (loader) => {
    const layer = (name: string, rows: number, width: number, index: number) => {
      checkBufferSize(device, `multiHeadWeights: ${name} weight`, 4 * rows * width);
      const data = uniform(4 * seed + index, rows * width, Math.sqrt(6 / (rows + width)));
      const zeros = bias ? loader.load(`${name} bias`, new Float32Array(rows), [rows]) : undefined;
      return linear(loader.load(`${name} weight`, data, [rows, width]), zeros);
    };
    return {
      query: layer("query", heads * keyDim, embedDim, 0),
      key: layer("key", kvHeads * keyDim, keyWidth, 1),
      value: layer("value", kvHeads * valueDim, valueWidth, 2),
      ...(outputWidth !== "heads" && { output: layer("output", outputWidth, heads * valueDim, 3) }),
    };
  });
}

/**
 * Uniform numbers in -limit .. limit. Source: SplitMix32, the 32-bit finaliser of MurmurHash3 over
 * a Weyl sequence.
 */
function uniform(seed: number, count: number, limit: number): Float32Array {
  const values = new Float32Array(count);
  let state = Math.imul(seed + 1, 0x85ebca6b);
  for (let i = 0; i < count; i++) {
    state = (state + 0x9e3779b9) | 0;
    let bits = state;
    bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
    bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
    bits = (bits ^ (bits >>> 16)) >>> 0;
    values[i] = limit * (bits / 2 ** 31 - 1);
  }
  return values;
}
