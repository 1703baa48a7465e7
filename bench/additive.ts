// Additive attention, beside the same built from other libraries' operations.

import { planAdditiveAttention, tensor } from "../src/index.ts";
import { attention as reference } from "../src/reference/index.ts";
import { normal } from "../src/reference/random.ts";
import { bytesOf, type Dims, flopsOf } from "./cost.ts";
import type { Contest, Contestant, Input } from "./peers/contest.ts";
import { foveaContestant, upload } from "./peers/fovea.ts";
import { jaxContestant } from "./peers/jax.ts";
import { tfjsContestant } from "./peers/tfjs.ts";
import { rowsToCheck } from "./verify.ts";

/**
 * The most bytes of terms that a library is asked to keep. tfjs would take a minute for as many as
 * jax-js may have.
 */
const MOST_TERMS = { "jax-js": 2 ** 30, tfjs: 2 ** 28 };

/** Whether this runs in a page, which the libraries need. */
const inPage = () => typeof document !== "undefined";

export function additiveContest(dims: Dims, vector: readonly number[]): Contest {
  const { H, N, D } = dims;
  const shape = [1, H, N, D];
  const [q, k, v] = [1, 2, 3].map((seed): Input => ({ data: normal(seed, H * N * D), shape }));
  const weights: Input = { data: Float32Array.from(vector), shape: [D] };
  const inputs: Input[] = [
    { data: q.data, shape: [H, N, 1, D] },
    { data: k.data, shape: [H, 1, N, D] },
    { data: v.data, shape: [H, N, D] },
    weights,
  ];
  const isAsked = (library: keyof typeof MOST_TERMS) =>
    inPage() && 4 * H * N * N * D <= MOST_TERMS[library];
  return {
    name: `N=${N} H=${H} D=${D} beside others`,
    dims,
    flops: flopsOf(dims),
    bytes: bytesOf(dims),
    contestants: {
      fovea: (device) => foveaAdditive(device, [q, k, v], vector),
      ...(isAsked("tfjs") && { tfjs: () => tfjsContestant(inputs, tfjsAdditive) }),
      ...(isAsked("jax-js") && { "jax-js": () => jaxContestant(inputs, jaxAdditive) }),
    },
    expected: () => {
      const rows = rowsToCheck(dims, 3e7);
      const options = { similarity: { kind: "additive", vector }, rows } as const;
      const at = rows.flatMap((row) => Array.from({ length: D }, (_, d) => row * D + d));
      const result = (precision: "f64" | "f32") =>
        reference(q, k, v, { ...options, precision }).output;
      return { at, f64: result("f64"), plain: result("f32") };
    },
  };
}

async function foveaAdditive(
  device: GPUDevice,
  inputs: readonly Input[],
  vector: readonly number[],
): Promise<Contestant> {
  const [q, k, v] = upload(device, inputs);
  const output = tensor(device, inputs[0].shape);
  const plan = await planAdditiveAttention(device, { q, k, v, output, vector });
  return foveaContestant(device, plan, output, [q, k, v, plan]);
}

const tfjsAdditive: Parameters<typeof tfjsContestant>[1] = (tf, q, k, v, vector) => {
  const [heads, rows, , width] = q.shape;
  const terms = tf.tanh(tf.add(q, k));
  const scores = tf.matMul(tf.reshape(terms, [-1, width as number]), tf.reshape(vector, [-1, 1]));
  return tf.matMul(tf.softmax(tf.reshape(scores, [heads, rows, -1])), v);
};

const jaxAdditive: Parameters<typeof jaxContestant>[1] = (jax, q, k, v, vector) => {
  const { numpy: np, nn } = jax;
  const scores = np.sum(np.tanh(q.add(k)).mul(vector), -1);
  return np.matmul(nn.softmax(scores, -1), v);
};
