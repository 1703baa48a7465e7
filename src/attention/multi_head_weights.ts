// The weights of multi-head attention, how they come from numbers or tensors, and new ones.

import { check } from "../errors.ts";
import type { TensorData } from "../gpu/elements.ts";
import { Tensor, tensor } from "../gpu/tensor.ts";
import type { Dtype } from "../types.ts";

/** A linear layer: y = x W^T + b. */
export interface LinearWeights {
  /** [out, in], of any strides: one that is stored [in, out] is a `permute(1, 0)`. f32, f16 or bf16. */
  readonly weight: Tensor;
  /** [out]. Default: nothing is added. */
  readonly bias?: Tensor;
}

/** The weights of a {@link MultiHeadAttention}. H heads, Hkv key heads, head dims D of q and k, Dv of v. */
export interface MultiHeadWeights {
  /** [H * D, query width] */
  readonly query: LinearWeights;
  /** [Hkv * D, key width] */
  readonly key: LinearWeights;
  /** [Hkv * Dv, value width] */
  readonly value: LinearWeights;
  /** [output width, H * Dv]. Default: the output is that of the heads, side by side. */
  readonly output?: LinearWeights;
  /** [Hkv * D]: a learned key, projected already, that every query sees (PyTorch's add_bias_kv). With `biasV`. */
  readonly biasK?: Tensor;
  /** [Hkv * Dv]: its value. */
  readonly biasV?: Tensor;
}

/** Numbers of a weight: a tensor on the GPU, which is looked at by strides; or an array, which is uploaded. */
export type WeightSource =
  | Tensor
  | Float32Array
  | { readonly data: TensorData; readonly shape: readonly number[]; readonly dtype?: Dtype };

/** Tensors of one set of weights: those that were made for it are freed if another one is refused. */
export class Loader {
  readonly #device: GPUDevice;
  readonly #made: Tensor[] = [];

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** A tensor of this shape, in which one size may be left to be found. */
  load(name: string, source: WeightSource, shape: readonly (number | undefined)[]): Tensor {
    const known = shape.reduce<number>((product, size) => product * (size ?? 1), 1);
    const bare = source instanceof Float32Array;
    check(
      bare || (typeof source === "object" && source !== null && Array.isArray(source.shape)),
      "argument",
      () => `multiHeadWeights: ${name} must be a Tensor, a Float32Array or { data, shape }, got ${source}.`,
    );
    const actual = bare ? shape.map((size) => size ?? source.length / known) : squeezed(source.shape, shape.length);
    const holds = !bare || actual.reduce((product, size) => product * size, 1) === source.length;
    const fits = actual.every((size, axis) => size === (shape[axis] ?? size) && Number.isInteger(size));
    check(
      actual.length === shape.length && fits && holds,
      "argument",
      () =>
        `multiHeadWeights: ${name} must be [${shape.map((size) => size ?? "any").join(", ")}], got ${bare ? `${source.length} elements` : `[${source.shape.join(", ")}]`}.`,
    );
    if (source instanceof Tensor) {
      if (source.shape.length === actual.length) return source;
      return source.view({ shape: actual, strides: source.strides.slice(source.shape.length - actual.length) });
    }
    const { data, dtype = "f32" } = bare ? { data: source } : source;
    const made = tensor(this.#device, actual, { data, dtype, label: name });
    this.#made.push(made);
    return made;
  }

  /** Like `load`, for what need not be there. */
  maybe(name: string, source: WeightSource | undefined, shape: readonly (number | undefined)[]): Tensor | undefined {
    return source && this.load(name, source, shape);
  }

  free(): void {
    for (const made of this.#made) made.destroy();
  }
}

/** The last axes of a shape, where those before them are of size 1: bias_k is [1, 1, E]. */
function squeezed(shape: readonly number[], axes: number): readonly number[] {
  const extra = shape.slice(0, Math.max(0, shape.length - axes));
  return extra.every((size) => size === 1) ? shape.slice(extra.length) : shape;
}

/** Weights from a loader, or none of its tensors. */
export function loaded(device: GPUDevice, work: (loader: Loader) => MultiHeadWeights): MultiHeadWeights {
  const loader = new Loader(device);
  try {
    return work(loader);
  } catch (error) {
    loader.free();
    throw error;
  }
}

export const linear = (weight: Tensor, bias: Tensor | undefined): LinearWeights => ({ weight, ...(bias && { bias }) });

/** Sizes of a new layer, as torch.nn.MultiheadAttention and keras.layers.MultiHeadAttention name theirs. */
export interface NewMultiHead {
  /** Width of the queries; also of keys, values and output where those are not said. */
  readonly embedDim: number;
  readonly heads: number;
  /** Default `heads`. */
  readonly kvHeads?: number;
  /** D, of each head. Default embedDim / heads. */
  readonly keyDim?: number;
  /** Dv, of each head. Default `keyDim`. */
  readonly valueDim?: number;
  /** Widths of keys and values that come in. Default embedDim, and that of the keys. */
  readonly keyWidth?: number;
  readonly valueWidth?: number;
  /** Width of the output, or `"heads"` for no projection behind the heads. Default embedDim. */
  readonly outputWidth?: number | "heads";
  /** Whether the projections have biases, zeros at first. Default true. */
  readonly bias?: boolean;
  /** A whole number; the same one gives the same weights. Default 0. */
  readonly seed?: number;
}

/**
 * New weights, uniform in +-sqrt(6 / (in + out)) as PyTorch and Keras start with (Glorot and Bengio 2010, equation 16).
 *
 * @example
 * const weights = multiHeadWeights.glorot(device, { embedDim: 512, heads: 8 });
 * const layer = new MultiHeadAttention(device, weights, { heads: 8 });
 */
export function glorot(device: GPUDevice, sizes: NewMultiHead): MultiHeadWeights {
  const { embedDim, heads, kvHeads = heads, keyDim = embedDim / heads, valueDim = keyDim } = sizes;
  const { keyWidth = embedDim, valueWidth = keyWidth, outputWidth = embedDim, bias = true, seed = 0 } = sizes;
  const numbers = { embedDim, heads, kvHeads, keyDim, valueDim, keyWidth, valueWidth };
  for (const [name, size] of Object.entries(outputWidth === "heads" ? numbers : { ...numbers, outputWidth })) {
    check(
      Number.isInteger(size) && (size as number) >= 1,
      "argument",
      () => `multiHeadWeights: ${name} must be a whole number from 1 up, got ${size}.`,
    );
  }
  return loaded(device, (loader) => {
    const layer = (name: string, rows: number, width: number, index: number) => {
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

/** Uniform numbers in -limit .. limit. Source: SplitMix32, the 32-bit finaliser of MurmurHash3 over a Weyl sequence. */
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
