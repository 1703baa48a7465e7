// Attention: calls, plans, and all the ways in which they are refused.

import {
  type AttentionOptions,
  additiveAttention,
  attention,
  attentionWeights,
  blockMaskOf,
  causalMask,
  createBlockMask,
  mergeAttention,
  mergeAttentionBackward,
  multiplicativeAttention,
  planAttention,
  prewarm,
  slidingWindow,
  tensor,
  topKKeys,
} from "../../src/index.ts";
import { overridden } from "../support/overridden.ts";
import { drop, type LeakCase, rejected, runPlan } from "./lab.ts";

const SHAPE = [1, 2, 4, 8];
const LONG = { shape: [1, 2, 64, 8] };

export const ATTENTION_CASES: readonly LeakCase[] = [
  {
    name: "attention",
    start: (lab) => {
      const q = lab.rows(SHAPE, "f32", lab.real);
      return async () => drop(await attention(q, q, q));
    },
  },
  {
    name: "attention: options that need memory",
    start: (lab) => {
      const q = lab.rows(SHAPE);
      const few = {
        kvLengths: [3],
        alibiSlopes: [1, 2],
        sinks: [0, 1],
        dropout: { p: 0.5, seed: 1 },
      };
      const onGpu = {
        kvLengths: lab.rows([1], "i32"),
        bias: lab.rows([4, 4]),
        mask: lab.rows([4, 4], "u8"),
      };
      const others: AttentionOptions[] = [
        { ...few, lse: true, rowMax: true },
        { ...onGpu, causal: true },
        { cuSeqlensQ: [0, 1, 4], cuSeqlensKv: [0, 2, 4] },
        { similarity: "cosine", temperature: [1, 2], kvSplits: 2 },
      ];
      return async (n) => drop(await attention(q, q, q, others[n % others.length]));
    },
  },
  {
    name: "attention: into a caller's encoder",
    start: (lab) => {
      const q = lab.rows(SHAPE);
      return async () => {
        const encoder = lab.device.createCommandEncoder();
        const results = await attention(q, q, q, { encoder, lse: true, kvLengths: [3] });
        lab.device.queue.submit([encoder.finish()]);
        drop(results);
      };
    },
  },
  {
    name: "attention: refused options",
    start: (lab) => {
      const q = lab.rows(SHAPE);
      const wrong = [
        { kvLengths: [9] },
        { is_causal: true },
        { variant: "none", kvLengths: [3] },
        { output: q, kvLengths: [3] },
        { encoder: 5 as never },
      ];
      return async (n) => {
        const code = n % wrong.length === 3 ? "overlap" : "argument";
        await rejected(code, () => attention(q, q, q, wrong[n % wrong.length]));
        await rejected("argument", () =>
          planAttention(lab.device, { q, k: q, v: LONG, kvLengths: [3] }),
        );
      };
    },
  },
  {
    name: "attention: a destroyed tensor",
    start: (lab) => {
      const q = lab.rows(SHAPE);
      const gone = lab.rows(SHAPE);
      gone.destroy();
      return async () => {
        await rejected("destroyed", () => attention(q, gone, q, { kvLengths: [3] }));
        await rejected("destroyed", () => attention(q, q, q, { output: gone, lse: true }));
      };
    },
  },
  {
    name: "attention: memory refused to a tensor",
    start: (lab) => {
      const q = lab.rows(SHAPE);
      return async () => {
        const k = lab.refused(SHAPE);
        await rejected("out-of-memory", () => attention(q, k, q, { kvLengths: [3], lse: true }));
        await rejected("out-of-memory", () =>
          planAttention(lab.device, { q, k, v: q, kvLengths: [3] }),
        );
        k.destroy();
      };
    },
  },
  {
    name: "attention: memory refused to the call",
    start: (lab) => {
      const q = lab.rows(SHAPE);
      const labels = [
        "attention output",
        "attention lse",
        "attention params",
        "attention tables",
        "attention workspace",
      ];
      return async (n) => {
        const options = { kvLengths: [3], lse: true, kvSplits: 2 };
        const refused = labels[n % labels.length];
        await rejected("out-of-memory", () =>
          lab.without(
            () => attention(q, q, q, options),
            (label) => label === refused,
          ),
        );
      };
    },
  },
  {
    name: "attention: error scopes that are rejected",
    together: 50,
    start: async (lab) => {
      let fails = false;
      const popErrorScope = async () => {
        const error = await lab.device.popErrorScope();
        if (fails) throw new Error("no scope");
        return error;
      };
      const q = lab.rows(SHAPE, "f32", overridden(lab.device, { popErrorScope }));
      await q.allocated;
      fails = true;
      return async () => {
        // the first of the scopes
        await rejected("out-of-memory", () => attention(q, q, q, { kvLengths: [3] }));
      };
    },
  },
  {
    name: "planAttention, encode, destroy",
    start: (lab) => {
      const q = lab.rows(SHAPE);
      const output = lab.rows(SHAPE);
      const lse = lab.rows([1, 2, 4]);
      return async (n) => {
        const plan = await planAttention(lab.device, {
          q,
          k: q,
          v: q,
          lse: true,
          kvLengths: [n % 5],
          kvSplits: 1 + (n % 3),
        });
        runPlan(lab.device, plan, { output, lse });
      };
    },
  },
  {
    name: "planAttention: one plan for all calls",
    start: async (lab) => {
      const q = lab.rows(SHAPE);
      const plan = lab.keep(await planAttention(lab.device, { q, k: q, v: q, kvLengths: [3] }));
      return async () => {
        const output = tensor(lab.device, SHAPE);
        const encoder = lab.device.createCommandEncoder();
        plan.encode(encoder, { output });
        lab.device.queue.submit([encoder.finish()]);
        await rejected("argument", () => plan.encode(encoder, { outputs: output } as never));
        output.destroy();
      };
    },
  },
  {
    name: "prewarm",
    start:
      ({ device }) =>
      async () => {
        await prewarm(device, [{ q: LONG, k: LONG, v: LONG, kvLengths: [3], kvSplits: 2 }]);
        await rejected("argument", () =>
          prewarm(device, [{ q: LONG, k: LONG, v: LONG, kvLengths: [99] }]),
        );
      },
  },
  {
    name: "block masks",
    start: (lab) => {
      const q = lab.rows([1, 2, 64, 8]);
      return async (n) => {
        const size = { seqQ: 64, seqKv: 64 };
        const found = await createBlockMask(
          lab.device,
          n % 2 ? slidingWindow(n % 64, 0) : causalMask(),
          size,
        );
        drop(await attention(q, q, q, { blockMask: found }));
        const listed = blockMaskOf(lab.device, ["full"], { ...size, blockSize: [64, 64] });
        drop(await attention(q, q, q, { blockMask: listed }));
        drop({ found, listed });
        await rejected("out-of-memory", () =>
          lab.without(() => createBlockMask(lab.device, causalMask(), size)),
        );
      };
    },
  },
  {
    name: "weights and top keys",
    start: (lab) => {
      const q = lab.rows(SHAPE);
      return async (n) => {
        drop(await attentionWeights(q, q, { heads: [n % 2], kvLengths: [3] }));
        drop(await attentionWeights(q, q, { meanOverHeads: true, rows: [n % 4] }));
        drop(await topKKeys(q, q, { k: 1 + (n % 3) }));
        await rejected("argument", () => topKKeys(q, q, { k: 99 }));
      };
    },
  },
  {
    name: "mergeAttention",
    start: (lab) => {
      const part = { output: lab.rows(SHAPE), lse: lab.rows([1, 2, 4]) };
      return async (n) => {
        drop(await mergeAttention(new Array(2 + (n % 3)).fill(part)));
        await rejected("argument", () => mergeAttention([]));
        const { output } = part;
        const parts = new Array(1 + (n % 3)).fill(part);
        const { dPartials } = await mergeAttentionBackward(parts, { output, dOutput: output });
        for (const gradients of dPartials) drop(gradients);
        await rejected("argument", () =>
          mergeAttentionBackward(parts, { output, dOutput: output, dPartials: [] }),
        );
        await rejected("out-of-memory", () =>
          lab.without(() => mergeAttentionBackward(parts, { output, dOutput: output })),
        );
      };
    },
  },
  {
    name: "additive and multiplicative attention",
    start: (lab) => {
      const q = lab.rows(SHAPE);
      const weight = lab.rows([2, 8, 8]);
      const vector = [1, 2, 3, 4, 5, 6, 7, 8];
      return async () => {
        drop(await additiveAttention(q, q, q, { vector, kvLengths: [3] }));
        drop(await multiplicativeAttention(q, q, q, weight, { kvLengths: [3] }));
        await rejected("argument", () =>
          additiveAttention(q, q, q, { vector: [1], kvLengths: [3] }),
        );
        await rejected("argument", () =>
          multiplicativeAttention(q, q, q, weight, { kvLengths: [9] }),
        );
      };
    },
  },
];
