// Problems of multi-head attention as tests and fuzzing describe them: plain data, run on the GPU
// and compared with the reference.

import {
  type AttentionOptions,
  type LinearWeights,
  MultiHeadAttention,
  type MultiHeadForwardOptions,
  type MultiHeadWeights,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import {
  type ReferenceLinear,
  type ReferenceMultiHead,
  type ReferenceMultiHeadOptions,
  type ReferenceTensor,
  multiHeadAttention as reference,
} from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { type Float, product, ROUND } from "./cases.ts";
import { expectClose } from "./closeness.ts";
import { expectExtremeClose } from "./extreme_bounds.ts";
import { addNans, makeExtreme } from "./extremes.ts";
import { defined, type Features, featuresOf } from "./features.ts";

export interface MultiHeadCase
  extends Omit<Features, "cuSeqlensQ" | "cuSeqlensKv" | "rowMax" | "blockSize" | "sinkTokens">,
    Pick<AttentionOptions, "causal" | "scale" | "attentionChunk" | "softcap"> {
  readonly B?: number;
  readonly H?: number;
  /** Key heads; default H. */
  readonly Hkv?: number;
  readonly M: number;
  /** Keys. Without them it is self-attention. */
  readonly N?: number;
  readonly D: number;
  /** Default D. */
  readonly Dv?: number;
  /** Width of the queries. */
  readonly E: number;
  /**
   * Widths of keys, values and output; default E. Those of keys and values are for cross-attention.
   */
  readonly Ek?: number;
  readonly Ev?: number;
  /** 0: no projection behind the heads. */
  readonly Eo?: number;
  /** Which projections have biases, of "qkvo"; default all. */
  readonly biases?: string;
  /** Whether weights are stored [in, out]. */
  readonly columns?: boolean;
  readonly learnedKey?: boolean;
  readonly zeroAttention?: boolean;
  /** Whether the mask of scores says what is ignored. */
  readonly ignores?: boolean;
  /** A mask of keys, in words of bits or in bytes, by what it says. */
  readonly keys?: { readonly means: "keep" | "ignore"; readonly bits?: boolean };
  readonly weights?: "perHead" | "mean";
  readonly storage?: Float;
  /** The dtype of what comes in, of the weights, and of the output. */
  readonly dtype?: Float;
  readonly seed?: number;
}

/** A tensor on both sides. */
interface Both extends ReferenceTensor {
  readonly gpu: Tensor;
}

/** Keeps a tensor, which is destroyed with the others of a case. */
type Keep = (made: Tensor) => Tensor;

/** Makes the inputs, the layer and the options of a case, for both sides. */
export function layerOf(device: GPUDevice, problem: MultiHeadCase, keep: Keep) {
  const { B = 1, H = 1, Hkv = H, M, N = M, D, Dv = D, E, seed = 1 } = problem;
  const {
    Ek = E,
    Ev = Ek,
    Eo = E,
    biases = "qkvo",
    columns = false,
    dtype = "f32",
    storage = "f32",
  } = problem;
  const { zeroAttention = false, learnedKey = false } = problem;
  let next = seed * 64;
  const make = (
    shape: readonly number[],
    deviation = 1,
    as: Float = dtype,
    of?: "Q" | "K" | "V",
  ): Both => {
    const drawn = normal(next++, product(shape), deviation);
    const extremes = problem.extremes ?? [];
    if (of) makeExtreme(drawn, shape[2], { of, extremes, seed, f16: true });
    const data = drawn.map(ROUND[as]);
    if (of) addNans(data, shape[2], { of, extremes, seed });
    return { shape, data, gpu: keep(tensor(device, shape, { data, dtype: as })) };
  };
  const linear = (name: string, out: number, width: number) => {
    const stored = make(columns ? [width, out] : [out, width], 1 / Math.sqrt(width));
    const weight = columns
      ? { data: stored.data, shape: [out, width], strides: [1, out], gpu: stored.gpu.permute(1, 0) }
      : stored;
    const bias = biases.includes(name) ? make([out], 0.5) : undefined;
    const gpu: LinearWeights = { weight: weight.gpu, ...(bias && { bias: bias.gpu }) };
    const cpu: ReferenceLinear = { weight, ...(bias && { bias }) };
    return { gpu, cpu };
  };
  const query = make([B, M, E], 1, dtype, "Q");
  const isSelf = problem.N === undefined;
  const key = isSelf ? query : make([B, N, Ek], 1, dtype, "K");
  const value = isSelf || Ev === Ek ? key : make([B, N, Ev], 1, dtype, "V");
  const wq = linear("q", H * D, E);
  const wk = linear("k", Hkv * D, isSelf ? E : Ek);
  const wv = linear("v", Hkv * Dv, value.shape[2]);
  const wo = Eo ? linear("o", Eo, H * Dv) : undefined;
  const learned = learnedKey ? { biasK: make([Hkv * D]), biasV: make([Hkv * Dv]) } : {};
  const weights: MultiHeadWeights = {
    query: wq.gpu,
    key: wk.gpu,
    value: wv.gpu,
    ...(wo && { output: wo.gpu }),
    ...(learned.biasK && { biasK: learned.biasK.gpu, biasV: learned.biasV.gpu }),
  };
  const layer64: ReferenceMultiHead = {
    query: wq.cpu,
    key: wk.cpu,
    value: wv.cpu,
    ...(wo && { output: wo.cpu }),
    ...learned,
  };

  const { causal, scale, attentionChunk, softcap } = problem;
  const shared = { causal, scale, attentionChunk, softcap };
  const features = featuresOf(problem, { B, H, M, N, D }, seed);
  const { mask, ...options } = features.gpu((shape, given) => keep(tensor(device, shape, given)));
  const masks = masksOf(problem, [B, H, M, N], features.cpu.mask, seed, (shape, given) =>
    keep(tensor(device, shape, given)),
  );
  const settings = {
    ...defined({ ...shared, storage }),
    ...(masks.gpu.mask || masks.gpu.ignoreMask || !mask ? {} : { mask }),
    ...options,
    ...masks.gpu,
    ...(!isSelf && { key: key.gpu }),
    ...(value !== key && { value: value.gpu }),
  } as Pick<MultiHeadForwardOptions, "key" | "value" | "bias" | "sinks">;
  const layer = new MultiHeadAttention(device, weights, {
    heads: H,
    kvHeads: Hkv,
    zeroAttention,
  });
  const options64 = {
    ...defined<ReferenceMultiHeadOptions>({ ...shared, ...features.cpu }),
    ...(masks.cpu && { mask: masks.cpu }),
    heads: H,
    kvHeads: Hkv,
    zeroAttention,
  };
  return { layer, inputs: { query, key, value }, settings, layer64, options64 };
}

/** Runs a case into poisoned outputs and compares output, LSE and weights with the reference. */
export async function runMultiHead(device: GPUDevice, problem: MultiHeadCase): Promise<void> {
  const { B = 1, H = 1, M, N = M, D, Dv = D, E, Eo = E } = problem;
  const { dtype = "f32", storage = "f32", zeroAttention = false, learnedKey = false } = problem;
  const used: Tensor[] = [];
  const keep = (made: Tensor) => {
    used.push(made);
    return made;
  };
  try {
    const { layer, inputs, settings, layer64, options64 } = layerOf(device, problem, keep);
    const { query, key, value } = inputs;
    const poison = (shape: readonly number[], as: Float = "f32") =>
      keep(
        tensor(device, shape, {
          data: new Float32Array(product(shape)).fill(Number.NaN),
          dtype: as,
        }),
      );
    const columnsOf = N + Number(learnedKey) + Number(zeroAttention);
    const width = Eo || H * Dv;
    const output = poison([B, M, width], learnedKey && !Eo ? "f32" : dtype);
    const lse = poison([B, H, M]);
    const weightsShape = problem.weights === "mean" ? [B, M, columnsOf] : [B, H, M, columnsOf];

    const result = await layer.forward(query.gpu, {
      ...settings,
      variant: "8x32", // takes the least time to compile
      output,
      lse,
      ...(problem.weights && {
        weights: problem.weights,
        weightsOutput: poison(weightsShape),
      }),
    });

    const f64 = reference(query, key, value, layer64, options64);
    const plain = reference(query, key, value, layer64, {
      ...options64,
      precision: "f32",
      stored: ROUND[storage],
    });
    const precision = output.dtype as Float;
    const stored = plain.output.map(ROUND[precision]);
    const expectRight = problem.extremes ? expectExtremeClose : expectClose;
    expectRight(
      "output",
      await result.output.read(),
      { f64: f64.output, plain: stored },
      output.shape,
      precision,
    );
    expectRight("lse", await lse.read(), { f64: f64.lse, plain: plain.lse }, [B, H, M]);
    if (result.weights) {
      const mean = (values: Float64Array) =>
        problem.weights === "mean" ? meanOf(values, B, H) : values;
      const both = { f64: mean(f64.weights), plain: mean(plain.weights) };
      // If a row is NaN, a key that it does not see may still weigh nothing.
      const values = Array.from(await result.weights.read(), (x, i) =>
        x === 0 && Number.isNaN(both.f64[i]) ? Number.NaN : x,
      );
      expectRight("weights", values, both, weightsShape);
    }
  } finally {
    for (const one of used) one.destroy();
  }
}

/** Takes the mean over the heads of [B, H, ...]. */
function meanOf(values: Float64Array, B: number, H: number): Float64Array {
  const size = values.length / Math.max(1, B * H);
  return Float64Array.from({ length: B * size }, (_, index) => {
    let sum = 0;
    for (let h = 0; h < H; h++)
      sum += values[(Math.floor(index / size) * H + h) * size + (index % size)];
    return sum / H;
  });
}

/**
 * Makes the masks of a case beyond a mask of scores that says what counts, and joins all masks into
 * one for the reference.
 */
function masksOf(
  { keys, ignores = false, mask: described }: MultiHeadCase,
  [B, H, M, N]: readonly number[],
  mask: ReferenceTensor | undefined,
  seed: number,
  make: (
    shape: readonly number[],
    options: { dtype: "u8" | "u32"; data: Uint8Array | Uint32Array },
  ) => Tensor,
) {
  const gpu: { mask?: Tensor; ignoreMask?: Tensor; keyMask?: Tensor; ignoreKeyMask?: Tensor } = {};
  const shape = mask?.shape ?? [];
  if (mask && ignores) {
    const data = Uint8Array.from(mask.data, (seen) => Number(seen === 0));
    gpu.ignoreMask = described?.bits
      ? make(...packed(shape, data))
      : make(shape, { dtype: "u8", data });
  }
  if (!keys) return { gpu, cpu: mask };
  const kept = Uint8Array.from(normal(seed * 8 + 77, B * N), (x) => Number(x > -0.7));
  const data = keys.means === "keep" ? kept : kept.map((seen) => 1 - seen);
  const given = keys.bits ? make(...packed([B, N], data)) : make([B, N], { dtype: "u8", data });
  gpu[keys.means === "keep" ? "keyMask" : "ignoreKeyMask"] = given;
  const at = (b: number, h: number, m: number, n: number) =>
    [b, h, m, n].reduce(
      (index, place, axis) => index * shape[axis] + (shape[axis] === 1 ? 0 : place),
      0,
    );
  const both = new Uint8Array(B * H * M * N);
  for (let index = 0; index < both.length; index++) {
    const n = index % N;
    const m = Math.floor(index / N) % M;
    const h = Math.floor(index / (N * M)) % H;
    const b = Math.floor(index / (N * M * H));
    both[index] = Number((mask ? mask.data[at(b, h, m, n)] : 1) !== 0 && kept[b * N + n] !== 0);
  }
  return { gpu, cpu: { data: both, shape: [B, H, M, N] } };
}

/** Packs bytes into bits along the last axis. */
function packed(
  shape: readonly number[],
  data: Uint8Array,
): [number[], { dtype: "u32"; data: Uint32Array }] {
  const keys = shape[shape.length - 1];
  const words = Math.ceil(keys / 32);
  const bits = new Uint32Array((data.length / Math.max(1, keys)) * words);
  for (let index = 0; index < data.length; index++) {
    const key = index % keys;
    if (data[index])
      bits[Math.floor(index / keys) * words + Math.floor(key / 32)] |= 1 << (key % 32);
  }
  return [[...shape.slice(0, -1), words], { dtype: "u32", data: bits }];
}
