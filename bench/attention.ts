// Scaled dot-product attention, beside that of other libraries.

import { planAttention, tensor } from "../src/index.ts";
import { attention as reference } from "../src/reference/index.ts";
import { normal } from "../src/reference/random.ts";
import { bytesOf, type Dims, flopsOf, windowOf } from "./cost.ts";
import { once, product, swapped } from "./peers/arrays.ts";
import { bareDispatch } from "./peers/bare.ts";
import type { Contest, Contestant, Input } from "./peers/contest.ts";
import { foveaContestant, upload } from "./peers/fovea.ts";
import { jaxContestant } from "./peers/jax.ts";
import { ortContestant } from "./peers/ort.ts";
import { tfjsContestant } from "./peers/tfjs.ts";
import { rowsToCheck } from "./verify.ts";

export interface AttentionContestOptions {
  /** Our variants that take part beside the one that the table chooses. */
  readonly variants?: readonly string[];
  /**
   * Whether other libraries take part. They don't if a result would take them minutes, or all
   * memory. Default true.
   */
  readonly libraries?: boolean;
  /** Rounds that are enough if a run takes seconds. Default any number. */
  readonly mostRounds?: number;
  /**
   * Whether the work is small: then an empty dispatch takes part, and the shortest run of each turn
   * counts. Default false.
   */
  readonly overhead?: boolean;
}

/**
 * Attention that all libraries can do: each head has its own keys, and the only mask is a causal
 * one.
 */
export function attentionContest(
  name: string,
  dims: Dims,
  {
    variants = [],
    libraries = true,
    overhead = false,
    mostRounds = Number.POSITIVE_INFINITY,
  }: AttentionContestOptions = {},
): Contest {
  const { B, H, M, N, D } = dims;
  const shapes = [[B, H, M, D], [B, H, N, D], [B, H, N, D]]; // biome-ignore format: q, k and v
  const inputs = once(() =>
    shapes.map((shape, seed): Input => ({ data: normal(seed + 1, product(shape), 1), shape })),
  );
  const ours = (variant?: string) => (device: GPUDevice) =>
    foveaAttention(device, inputs(), dims, variant);
  return {
    name,
    dims,
    flops: flopsOf(dims),
    bytes: bytesOf(dims),
    shortest: overhead,
    mostRounds,
    contestants: {
      fovea: ours(),
      ...Object.fromEntries(variants.map((variant) => [`fovea:${variant}`, ours(variant)])),
      ...(overhead && { "bare dispatch": (device: GPUDevice) => bareDispatch(device, inputs()) }),
      ...(libraries && typeof document !== "undefined" && peers(inputs, dims)),
    },
    expected: () => {
      const rows = rowsToCheck(dims, Math.max(3e7, LEAST_ROWS * 2 * N * (D + dims.Dv)));
      const at = rows.flatMap((row) => Array.from({ length: D }, (_, d) => row * D + d));
      const [q, k, v] = inputs();
      const result = (precision: "f64" | "f32") =>
        reference(q, k, v, { causal: dims.causal, ...windowOf(dims), rows, precision }).output;
      return { at, f64: result("f64"), plain: result("f32") };
    },
  };
}

/** Rows that are compared, however long they are. */
const LEAST_ROWS = 16;

async function foveaAttention(
  device: GPUDevice,
  inputs: readonly Input[],
  dims: Dims,
  variant?: string,
) {
  const [q, k, v] = upload(device, inputs);
  const output = tensor(device, inputs[0].shape, {
    data: new Float32Array(q.size).fill(Number.NaN),
  });
  const plan = await planAttention(device, {
    q,
    k,
    v,
    output,
    causal: dims.causal,
    ...windowOf(dims),
    ...(variant && { variant }),
  });
  return foveaContestant(device, plan, output, [q, k, v, plan]);
}

/** Makes a contestant of each library, with tensors in the layout that it takes. */
function peers(
  inputs: () => readonly Input[],
  { B, H, M, N, D, causal }: Dims,
): Contest["contestants"] {
  const rows = [M, N, N];
  const byRow = once(() =>
    inputs().map(
      ({ data }, index): Input => ({
        data: swapped(data, B, H, rows[index], D),
        shape: [B, rows[index], H, D],
      }),
    ),
  );
  const joined = (): Input[] =>
    byRow().map(({ data }, index) => ({ data, shape: [B, rows[index], H * D] }));
  const back = (values: ArrayLike<number>) => swapped(values, B, M, H, D);
  const node = {
    operator: "MultiHeadAttention",
    domain: "com.microsoft",
    // onnxruntime's rule for masks differs if queries and keys are of different number; a token of
    // decoding sees all keys.
    attributes: { num_heads: H, ...(causal && M === N && { unidirectional: 1 }) },
    inputs: rows.map((length, index) => ({ name: "qkv"[index], shape: [B, length, H * D] })),
    outputs: [{ name: "o", shape: [B, M, H * D] }],
  };
  const ort = (provider: "webgpu" | "wasm") => () => ortContestant(provider, node, joined(), back);
  const jax = (backend: "webgpu" | "wasm") => async (): Promise<Contestant> => {
    const isCausal = causal && M === N;
    const attend: Parameters<typeof jaxContestant>[1] = ({ nn }, q, k, v) =>
      nn.dotProductAttention(q, k, v, { isCausal });
    const one = await jaxContestant(byRow(), attend, backend);
    return { ...one, read: async () => back(await one.read()) };
  };
  return {
    "ort-webgpu": ort("webgpu"),
    "ort-wasm": ort("wasm"),
    "jax-js": jax("webgpu"),
    "jax-wasm": jax("wasm"),
    // In tfjs, causal masks are the user's to make.
    ...((!causal || M === 1) && {
      tfjs: () =>
        tfjsContestant(inputs(), (tf, q, k, v) => {
          const scores = tf.mul(tf.matMul(q, k, false, true), 1 / Math.sqrt(D));
          return tf.matMul(tf.softmax(scores), v);
        }),
    }),
  };
}
