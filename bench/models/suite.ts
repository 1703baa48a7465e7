// Suite `models`: decoders by fovea/models, by onnxruntime-web as transformers.js uses it, and by
// jax-js.

import { createKvCache, planAttention, type Tensor, tensor } from "../../src/index.ts";
import { errorBound } from "../../src/reference/bounds.ts";
import { attention } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { once } from "../peers/arrays.ts";
import type { Contest, Contestant } from "../peers/contest.ts";
import { jaxDecoding, jaxPrompt } from "../peers/llama_jax.ts";
import { ortDecoding, ortPrompt } from "../peers/llama_ort.ts";
import { expectedOf, goldenOf, type Task, TOKENS } from "./decoding.ts";
import {
  type LlamaSizes,
  llamaOf,
  ONE_LAYER,
  operations,
  rowBytes,
  SMALL,
  textOf,
  weightBytes,
} from "./llama.ts";
import { oursDecoding, oursPrompt } from "./ours.ts";

type Make = (device: GPUDevice, task: Task) => Promise<Contestant>;

/** Libraries run in browsers only. */
const inBrowser = () => typeof document !== "undefined";

const slower = (of: string, atLeast: number) => ({
  name: `${of} / fovea`,
  of,
  over: "fovea",
  atLeast,
});

/** Sizes of attention, for tables. */
const dimsOf = ({ heads, kvHeads, headDim }: LlamaSizes, M: number, N: number) => {
  return { B: 1, H: heads, Hkv: kvHeads, M, N, D: headDim, Dv: headDim, causal: true };
};

/** A text of so many tokens before the one that is read, and what it goes on with. */
const taskOf = (sizes: LlamaSizes, at: number, count: number) =>
  once((): Task => {
    const llama = llamaOf(sizes);
    const ids = textOf(sizes, at + 1);
    return { llama, ids, golden: goldenOf(llama, ids, count) };
  });

/** Makers of contestants, of which the libraries' are for browsers only. */
function makers(task: () => Task, ours: Record<string, Make>, libraries: Record<string, Make>) {
  const all = Object.entries({ ...ours, ...(inBrowser() && libraries) });
  return Object.fromEntries(
    all.map(([name, make]) => [name, (device: GPUDevice) => make(device, task())]),
  );
}

/** One token behind `at` others. */
export function decodeContest(sizes: LlamaSizes, at: number): Contest {
  const task = taskOf(sizes, at, TOKENS + 1);
  return {
    name: `decode at position ${at}`,
    dims: dimsOf(sizes, 1, at + 1),
    flops: operations(sizes, at + 1),
    bytes: weightBytes(sizes) + (at + 1) * rowBytes(sizes),
    counted: true,
    contestants: makers(
      task,
      { fovea: oursDecoding },
      { "ort-webgpu": (_, one) => ortDecoding(one), "jax-js": (_, one) => jaxDecoding(one) },
    ),
    ratios: [slower("ort-webgpu", 5), slower("jax-js", 2)],
    expected: () => expectedOf(task().golden),
  };
}

/** A text of so many tokens from the first to the token that comes after it. */
export function promptContest(sizes: LlamaSizes, tokens: number): Contest {
  const task = taskOf(sizes, tokens - 1, 1);
  return {
    name: `prompt of ${tokens} tokens`,
    dims: dimsOf(sizes, tokens, tokens),
    flops: tokens * operations(sizes, (tokens + 1) / 2),
    bytes: weightBytes(sizes) + tokens * rowBytes(sizes),
    counted: true,
    contestants: makers(
      task,
      {
        fovea: (device, one) => oursPrompt(device, one),
        "fovea:one chunk": (device, one) => oursPrompt(device, one, tokens),
      },
      { "ort-webgpu": (_, one) => ortPrompt(one), "jax-js": (_, one) => jaxPrompt(one) },
    ),
    ratios: [slower("ort-webgpu", 4), slower("jax-js", 2)],
    expected: () => expectedOf(task().golden),
  };
}

/** The decode kernel alone, over a cache of as many rows. */
async function attentionAlone(device: GPUDevice, { llama, ids }: Task): Promise<Contestant> {
  const { heads: H, kvHeads, headDim: D, positions } = llama.sizes;
  const N = ids.length;
  const cache = await createKvCache(device, { batch: 1, kvHeads, headDim: D, capacity: positions });
  const arrays = [
    [1, H, 1, D],
    [1, kvHeads, N, D],
    [1, kvHeads, N, D],
  ].map((shape, at) => {
    return {
      shape,
      data: normal(
        31 + at,
        shape.reduce((all, size) => all * size),
      ),
    };
  });
  const made: Tensor[] = arrays.map(({ shape, data }) => tensor(device, shape, { data }));
  const [q, k, v] = made;
  const output = tensor(device, q.shape);
  await cache.append(k, v);
  const plan = await planAttention(device, { q, cache, output, causal: true });
  const expected = once(() => {
    const [f64, plain] = (["f64", "f32"] as const).map(
      (precision) => attention(arrays[0], arrays[1], arrays[2], { causal: true, precision }).output,
    );
    errorBound(f64, plain, "f32");
    return [{ at: Array.from(f64, (_, index) => index), f64, plain }];
  });
  return {
    kernel: plan.kernel,
    workspaceBytes: plan.workspaceBytes,
    dispatches: plan.dispatchCount,
    amount: TOKENS,
    part: { expected, flops: 4 * H * D * N, bytes: 2 * 4 * kvHeads * N * D },
    async run() {
      for (let step = 0; step < TOKENS; step++) {
        const encoder = device.createCommandEncoder();
        plan.encode(encoder);
        device.queue.submit([encoder.finish()]);
      }
      await device.queue.onSubmittedWorkDone();
    },
    read: async () => (await output.read()) as Float32Array,
    destroy() {
      for (const one of [plan, cache, output, ...made]) one.destroy();
    },
  };
}

/**
 * A token of one layer behind few and behind many others: how much longer it takes, beside how much
 * longer its attention alone does.
 */
export function flatContests(
  sizes: LlamaSizes = ONE_LAYER,
  ats: readonly number[] = [256, 6144],
): Contest[] {
  const heads = `${sizes.heads}/${sizes.kvHeads} heads`;
  const nameOf = (at: number) => `flat: one layer, ${heads}, position ${at}`;
  return ats.map((at): Contest => {
    const task = taskOf(sizes, at, TOKENS + 1);
    const growth = (of: string) => {
      return { name: `growth of ${of}`, of, over: of, overCase: nameOf(ats[0]) };
    };
    const beside = "fovea:attention";
    const own = { ...growth("fovea"), name: "growth of a token / of its attention", beside };
    return {
      name: nameOf(at),
      dims: dimsOf(sizes, 1, at + 1),
      flops: operations(sizes, at + 1),
      bytes: weightBytes(sizes) + (at + 1) * rowBytes(sizes),
      counted: true,
      together: "flat",
      contestants: makers(task, { fovea: oursDecoding, [beside]: attentionAlone }, {}),
      ratios: at === ats[0] ? [] : [growth("fovea"), { ...own, atMost: 1.2 }, growth(beside)],
      expected: () => expectedOf(task().golden),
    };
  });
}

/** All contests of the suite. */
export const modelContests = (): Contest[] => [
  decodeContest(SMALL, 256),
  promptContest(SMALL, 128),
  ...flatContests(),
];
