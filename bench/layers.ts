// The suite `mha`: multi-head attention, the whole layer, with the same weights everywhere.

import {
  MultiHeadAttention,
  type MultiHeadWeights,
  planProjection,
  splitHeads,
  type Tensor,
  tensor,
} from "../src/index.ts";
import { multiHeadAttention as reference } from "../src/reference/index.ts";
import { normal } from "../src/reference/random.ts";
import { LADDER } from "./ladder.ts";
import type { Contest, Contestant, Input } from "./peers/contest.ts";
import { foveaContestant, upload } from "./peers/fovea.ts";
import { type JaxArray, jaxContestant } from "./peers/jax.ts";
import { tfjsContestant } from "./peers/tfjs.ts";

/** Self-attention of x [B, M, H * D] with projections as wide as x, without biases. */
export function layerContest(B: number, M: number, H: number, D: number): Contest {
  const E = H * D;
  const x: Input = { data: normal(1, B * M * E), shape: [B, M, E] };
  // [out, in], for q, k, v and output.
  const weights = [2, 3, 4, 5].map(
    (seed): Input => ({ data: normal(seed, E * E, 1 / Math.sqrt(E)), shape: [E, E] }),
  );
  const inputs = [x, ...weights];
  return {
    name: `x=(${B}, ${M}, ${E}) H=${H}`,
    dims: { B, H, Hkv: H, M, N: M, D, Dv: D, causal: false },
    // Four projections, and both products of attention.
    flops: 2 * B * M * (4 * E * E + 2 * M * E),
    bytes: 4 * (2 * B * M * E + 4 * E * E),
    contestants: {
      fovea: (device) => foveaLayer(device, inputs, H),
      "naive attention": (device) => naiveLayer(device, inputs, H),
      ...(typeof document !== "undefined" && {
        tfjs: () => tfjsContestant(inputs, tfjsLayer(H)),
        "jax-js": () => jaxContestant(inputs, jaxLayer(H)),
      }),
    },
    // Only the last batch entry is checked.
    expected: () => {
      const last = { data: x.data.subarray((B - 1) * M * E), shape: [1, M, E] };
      const [query, key, value, output] = weights.map((weight) => ({ weight }));
      const run = (precision: "f64" | "f32") =>
        reference(last, last, last, { query, key, value, output }, { heads: H, precision }).output;
      const at = Array.from({ length: M * E }, (_, index) => (B - 1) * M * E + index);
      return { at, f64: run("f64"), plain: run("f32") };
    },
  };
}

/** Plans the layer itself. */
async function foveaLayer(
  device: GPUDevice,
  inputs: readonly Input[],
  heads: number,
): Promise<Contestant> {
  const [x, ...loaded] = upload(device, inputs);
  const [query, key, value, last] = loaded.map((weight) => ({ weight }));
  const weights: MultiHeadWeights = { query, key, value, output: last };
  const layer = new MultiHeadAttention(device, weights, { heads });
  const output = tensor(device, x.shape);
  const plan = await layer.plan({ query: x, output });
  const made = [x, layer, plan];
  const { workspaceBytes } = plan;
  const encode = (pass: GPUComputePassEncoder) => plan.encode(pass);
  return foveaContestant(
    device,
    { kernel: "multi-head attention", workspaceBytes, encode },
    output,
    made,
  );
}

/** Plans the same projections around attention as three kernels, with every score in memory. */
async function naiveLayer(
  device: GPUDevice,
  inputs: readonly Input[],
  heads: number,
): Promise<Contestant> {
  const [x, ...weights] = upload(device, inputs);
  const between = Array.from({ length: 4 }, () => tensor(device, x.shape));
  const [q, k, v, o] = between.map((one) => splitHeads(one, heads));
  const output = tensor(device, x.shape);
  const project = (from: Tensor, weight: Tensor, to: Tensor) =>
    planProjection(device, { x: from, weight, output: to });
  const inward = await Promise.all(
    between.slice(0, 3).map((to, index) => project(x, weights[index], to)),
  );
  const attention = await LADDER[0].plan(device, { q, k, v, output: o });
  const plans = [...inward, attention, await project(between[3], weights[3], output)];
  const workspaceBytes = attention.workspaceBytes + 4 * 4 * x.size;
  const encode = (pass: GPUComputePassEncoder) => {
    for (const plan of plans) plan.encode(pass);
  };
  const recorded = { kernel: "naive attention between projections", workspaceBytes, encode };
  return foveaContestant(device, recorded, output, [x, ...weights, ...between, ...plans]);
}

/** Computes the layer by whole-array operations, as users of the libraries would write it. */
const tfjsLayer =
  (H: number): Parameters<typeof tfjsContestant>[1] =>
  (tf, x, ...weights) => {
    const [B, M, E] = x.shape as [number, number, number];
    const project = (from: typeof x, index: number) =>
      tf.matMul(tf.reshape(from, [B * M, E]), weights[index], false, true);
    const heads = (index: number) =>
      tf.transpose(tf.reshape(project(x, index), [B, M, H, E / H]), [0, 2, 1, 3]);
    const q = heads(0);
    const k = heads(1);
    const v = heads(2);
    const scores = tf.mul(tf.matMul(q, k, false, true), 1 / Math.sqrt(E / H));
    const joined = tf.transpose(tf.matMul(tf.softmax(scores), v), [0, 2, 1, 3]);
    return project(tf.reshape(joined, [B, M, E]) as typeof x, 3);
  };

const jaxLayer =
  (H: number): Parameters<typeof jaxContestant>[1] =>
  ({ numpy: np, nn }, x, ...weights) => {
    const [B, M, E] = x.shape;
    const project = (from: JaxArray, index: number) =>
      np.matmul(from, np.swapaxes(weights[index], 0, 1));
    const heads = (from: JaxArray, index: number) =>
      np.swapaxes(project(from, index).reshape([B, M, H, E / H]), 1, 2);
    const q = heads(x.ref, 0);
    const k = heads(x.ref, 1);
    const v = heads(x, 2);
    const scores = np.matmul(q, np.swapaxes(k, 2, 3)).mul(1 / Math.sqrt(E / H));
    const joined = np.swapaxes(np.matmul(nn.softmax(scores, -1), v), 1, 2).reshape([B, M, E]);
    return project(joined, 3);
  };
