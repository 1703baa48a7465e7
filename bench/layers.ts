// Multi-head attention, the whole layer, in different ways: for the suite `mha`. The harness has q, k, v and output
// [B, H, M, D]; q, read as rows of E = H * D, is what goes in, and output, read likewise, is what comes out.

import { MultiHeadAttention, multiHeadWeights, planProjection, splitHeads, type Tensor, tensor } from "../src/index.ts";
import { type ReferenceLinear, multiHeadAttention as reference, worstElement } from "../src/reference/index.ts";
import type { Dims } from "./cost.ts";
import type { Implementation, Memory, Runnable } from "./harness.ts";
import { LADDER } from "./ladder.ts";
import { errorBound, type Verdict } from "./verify.ts";

/** Multiply-adds count two: four projections, and both products of attention. */
const layerFlops = ({ B, H, M, N, D }: Dims): number => 2 * B * M * (4 * (H * D) ** 2 + 2 * N * H * D);

/** The same weights for every implementation and for the reference. */
function layerOf(device: GPUDevice, { shape: [, heads, , dim] }: { readonly shape: readonly number[] }) {
  const weights = multiHeadWeights.glorot(device, { embedDim: heads * dim, heads, bias: false, seed: 1 });
  return new MultiHeadAttention(device, weights, { heads });
}

const flatShape = ({ shape: [B, H, M, D] }: { readonly shape: readonly number[] }) => [B, M, H * D];

/** A tensor of the harness as rows. Views are kept, so that bind groups are found again. */
function rows(): (given: Tensor) => Tensor {
  const views = new WeakMap<Tensor, Tensor>();
  return (given) => {
    const view = views.get(given) ?? given.view({ shape: flatShape(given) });
    views.set(given, view);
    return view;
  };
}

/** The layer's own plan. */
const fovea: Implementation = {
  name: "fovea",
  flops: layerFlops,
  async plan(device, { q }): Promise<Runnable> {
    const layer = layerOf(device, q);
    const plan = await layer.plan({ query: { shape: flatShape(q) } });
    const asRows = rows();
    return {
      kernel: "multi-head attention",
      workspaceBytes: plan.workspaceBytes,
      encode: (pass, { q, output }) => plan.encode(pass, { query: asRows(q), output: asRows(output) }),
      verify: (memory) => verifyLayer(layer, memory),
      destroy() {
        plan.destroy();
        layer.destroy();
      },
    };
  },
};

/** The same projections around attention as three kernels with every score in memory. */
const naive: Implementation = {
  name: "naive attention",
  flops: layerFlops,
  async plan(device, { q: given }): Promise<Runnable> {
    const layer = layerOf(device, given);
    const shape = flatShape(given);
    const made = Array.from({ length: 4 }, () => tensor(device, shape));
    const [q, k, v, output] = made.map((one) => splitHeads(one, layer.heads));
    const { query, key, value, output: last } = layer.weights;
    const inward = await Promise.all(
      [query, key, value].map(({ weight }, index) =>
        planProjection(device, { x: { shape }, weight, output: made[index] }),
      ),
    );
    const attention = await LADDER[0].plan(device, { q, k, v, output });
    const weight = (last as typeof query).weight;
    const outward = await planProjection(device, { x: made[3], weight, output: { shape } });
    const asRows = rows();
    return {
      kernel: "naive attention between projections",
      workspaceBytes: attention.workspaceBytes + 4 * 4 * made[0].size,
      encode(pass, memory) {
        for (const plan of inward) plan.encode(pass, { x: asRows(memory.q) });
        attention.encode(pass);
        outward.encode(pass, { output: asRows(memory.output) });
      },
      verify: (memory) => verifyLayer(layer, memory),
      destroy() {
        for (const one of [...inward, attention, outward, ...made, layer]) one.destroy();
      },
    };
  },
};

export const LAYERS: readonly Implementation[] = [fovea, naive];

/** Compares the output of the last batch entry with the reference. */
async function verifyLayer({ weights, heads }: MultiHeadAttention, { q, output }: Memory): Promise<Verdict> {
  const [B, M, E] = flatShape(q);
  const read = async (layer: typeof weights.query): Promise<ReferenceLinear> => ({
    weight: { data: await layer.weight.read(), shape: layer.weight.shape },
  });
  const [query, key, value, last] = await Promise.all(
    [weights.query, weights.key, weights.value, weights.output as typeof weights.query].map(read),
  );
  const entry = async (given: Tensor) =>
    (await given
      .view({ shape: [B, M, E] })
      .slice(0, B - 1, B)
      .read()) as Float32Array;
  const x = { data: await entry(q), shape: [1, M, E] };
  const run = (precision: "f32" | "f64") =>
    reference(x, x, x, { query, key, value, output: last }, { heads, precision }).output;
  const [f64, plain] = [run("f64"), run("f32")];
  const bound = errorBound(f64, plain, "f32");
  const worst = worstElement(await entry(output), f64, [M, E]);
  return { correct: worst.error <= bound, maxError: worst.error, bound, worst, rows: M, ofRows: B * M };
}
