// Gradients of attention and of the operations around it: calls, plans, and the ways in which they
// are refused.

import {
  type AttentionBackwardOptions,
  accuracy,
  alibiScore,
  attentionBackward,
  bceWithLogits,
  bceWithLogitsBackward,
  crossEntropy,
  crossEntropyBackward,
  dropout,
  embedding,
  embeddingBackward,
  gatedPositionBiasBackward,
  layerNormBackward,
  logSoftmaxBackward,
  mseLoss,
  mseLossBackward,
  multiplicativeAttentionBackward,
  planAttentionBackward,
  planCrossEntropyBackward,
  planLayerNormBackward,
  positionEncodingBackward,
  relativePositionBiasBackward,
  rmsNormBackward,
  rotaryBackward,
  softmaxBackward,
  type Tensor,
} from "../../src/index.ts";
import { drop, type Lab, type LeakCase, rejected, runPlan } from "./lab.ts";

const SHAPE = [1, 2, 4, 8];
const ROWS = [3, 4, 8];

/** What gradients of attention are called with. */
function given(lab: Lab) {
  const q = lab.rows(SHAPE);
  const dOutput = lab.rows(SHAPE);
  const lse = lab.rows([1, 2, 4]);
  return { q, options: { output: q, lse, dOutput } as const };
}

/** Destroys gradients, those of captures among them. */
function dropAll({ dCaptures = {}, ...results }: { readonly dCaptures?: object }): void {
  drop(results);
  drop(dCaptures);
}

export const GRADIENT_CASES: readonly LeakCase[] = [
  {
    name: "attentionBackward: options that need memory",
    start: (lab) => {
      const { q, options } = given(lab);
      const bias = lab.rows([4, 4]);
      const slopes = lab.rows([2]);
      const learned = {
        bias,
        dBias: true,
        alibiSlopes: [1, 2],
        dAlibiSlopes: true,
        sinks: [0, 1],
        dSinks: true,
        temperature: [1, 2],
        dTemperature: true,
        relativeBias: { table: new Array(16).fill(0.1) },
        dRelativeBias: true,
      };
      const others: Partial<AttentionBackwardOptions>[] = [
        { causal: true, kvLengths: [3], dLse: options.lse },
        { cuSeqlensQ: [0, 1, 4], cuSeqlensKv: [0, 2, 4] },
        learned,
        { similarity: { kind: "rms", qWeights: new Array(8).fill(1) }, dQWeights: true },
        {
          similarity: { kind: "additive", innerBias: new Array(8).fill(1) },
          dVector: true,
          dInnerBias: true,
          dInnerScale: true,
        },
        { scoreFunction: alibiScore(slopes), dCaptures: { alibi_slopes: true } },
      ];
      return async (n) =>
        dropAll(await attentionBackward(q, q, q, { ...options, ...others[n % others.length] }));
    },
  },
  {
    name: "attentionBackward: refused options and tensors",
    start: (lab) => {
      const { q, options } = given(lab);
      const gone = lab.rows(SHAPE);
      gone.destroy();
      const wrong: readonly object[] = [
        { kvLengths: [9] },
        { is_causal: true },
        { variant: "none", kvLengths: [3] },
        { dSinks: true, kvLengths: [3] },
        { dCaptures: { w: true }, kvLengths: [3] },
        { dQ: q },
        { dOutput: gone },
        { dK: gone, kvLengths: [3] },
      ];
      const codes = ["overlap", "destroyed", "destroyed"] as const;
      return async (n) => {
        const index = n % wrong.length;
        await rejected(codes[index - 5] ?? "argument", () =>
          attentionBackward(q, q, q, { ...options, ...wrong[index] }),
        );
        await rejected("argument", () =>
          planAttentionBackward(lab.device, { q, k: q, v: { shape: [1] }, kvLengths: [3] }),
        );
      };
    },
  },
  {
    name: "attentionBackward: memory refused to the call",
    start: (lab) => {
      const { q, options } = given(lab);
      const labels = ["dQ", "dK", "dV", "dSinks", "params", "tables", "workspace"];
      const all = { ...options, kvLengths: [3], sinks: [0, 1], dSinks: true } as const;
      return async (n) => {
        const refused = `attentionBackward ${labels[n % labels.length]}`;
        await rejected("out-of-memory", () =>
          lab.without(
            () => attentionBackward(q, q, q, all),
            (label) => label === refused,
          ),
        );
      };
    },
  },
  {
    name: "planAttentionBackward, encode, destroy",
    start: (lab) => {
      const { q, options } = given(lab);
      const results = { dQ: lab.rows(SHAPE), dK: lab.rows(SHAPE), dV: lab.rows(SHAPE) };
      const problem = { q, k: q, v: q, causal: true, similarity: "cosine" } as const;
      return async (n) => {
        const plan = await planAttentionBackward(lab.device, { ...problem, kvLengths: [n % 5] });
        await rejected("argument", () =>
          plan.encode(lab.device.createCommandEncoder(), { ...options, ...results, x: q } as never),
        );
        runPlan(lab.device, plan, { ...options, ...results });
        await rejected("out-of-memory", () =>
          lab.without(() => planAttentionBackward(lab.device, problem)),
        );
      };
    },
  },
  {
    name: "multiplicativeAttentionBackward",
    start: (lab) => {
      const { q, options } = given(lab);
      const weight = lab.rows([8, 8]);
      return async () => {
        dropAll(await multiplicativeAttentionBackward(q, q, q, weight, options));
        await rejected("argument", () =>
          multiplicativeAttentionBackward(q, q, q, weight, { ...options, kvLengths: [9] }),
        );
        await rejected("out-of-memory", () =>
          lab.without(() => multiplicativeAttentionBackward(q, q, q, weight, options)),
        );
      };
    },
  },
  {
    name: "gradients of rows: softmax, norms",
    start: (lab) => {
      const x = lab.rows(ROWS);
      const weight = lab.rows([8]);
      const dX = lab.rows(ROWS);
      return async (n) => {
        drop(await softmaxBackward(x, x, { axis: n % 3 }));
        drop(await logSoftmaxBackward(x, x));
        drop(await layerNormBackward(x, x, { weight, bias: weight, residual: x }));
        drop(await rmsNormBackward(x, x, { weight }));
        for (const backward of [softmaxBackward, layerNormBackward, rmsNormBackward]) {
          await rejected("argument", () => backward(x, weight));
          await rejected("argument", () => backward(x, x, { axes: 1 } as never));
          await rejected("out-of-memory", () => lab.without(() => backward(x, x)));
        }
        runPlan(lab.device, await planLayerNormBackward(lab.device, { x, dOutput: x }), { dX });
      };
    },
  },
  {
    name: "gradients of positions: rotary, encodings, biases",
    start: (lab) => {
      const x = lab.rows(ROWS);
      const heads = lab.rows([1, 2, 4, 8]);
      const table = lab.rows([32, 2]);
      const learned = lab.rows([9, 8]);
      const ids = lab.rows([4], "i32");
      const bias = lab.rows([1, 2, 4, 4]);
      const gates = {
        update: lab.rows([1, 2, 4, 1]),
        reset: lab.rows([1, 2, 4, 1]),
        scale: lab.rows([2, 1, 1]),
      };
      return async (n) => {
        drop(await rotaryBackward(heads, { positionOffset: n }));
        drop(await positionEncodingBackward(x, { table: learned, positionOffset: n % 5 }));
        drop(await positionEncodingBackward(x, { table: learned, positionIds: ids }));
        drop(await relativePositionBiasBackward(table, bias));
        drop(await gatedPositionBiasBackward(bias, bias, gates));
        await rejected("argument", () => rotaryBackward(heads, { positionIds: [1] }));
        await rejected("argument", () => positionEncodingBackward(x, { gradients: ["dTable"] }));
        await rejected("argument", () => relativePositionBiasBackward(x, bias));
        await rejected("out-of-memory", () =>
          lab.without(() => positionEncodingBackward(x, { table: learned, positionIds: ids })),
        );
        await rejected("out-of-memory", () =>
          lab.without(() => gatedPositionBiasBackward(bias, bias, gates)),
        );
      };
    },
  },
  {
    name: "embeddings, dropout, losses and metrics",
    start: (lab) => {
      const x = lab.rows([6, 8]);
      const dX = lab.rows([6, 8]);
      const ids = lab.rows([6], "i32");
      const weights = lab.rows([8]);
      return async (n) => {
        drop(await embedding(x, ids));
        drop(await embeddingBackward(x, ids, x, { paddingId: n % 6 }));
        drop(await dropout(x, { p: 0.5, seed: n }));
        drop(await crossEntropy(x, ids, { classWeights: weights, labelSmoothing: 0.1 }));
        const { loss, dLogits } = await crossEntropyBackward(x, ids, { loss: true });
        drop({ ...(loss && { loss }), dLogits });
        drop(await mseLoss(x, x));
        drop(await mseLossBackward(x, x, { gradients: ["dX", "dTarget"] }));
        drop(await bceWithLogits(x, x, { posWeight: weights }));
        drop(await bceWithLogitsBackward(x, x, { weight: weights }));
        drop(await accuracy(x, ids));
        const works: readonly ((x: Tensor, ids: Tensor) => Promise<unknown>)[] = [
          crossEntropy,
          crossEntropyBackward,
          accuracy,
          embedding,
        ];
        for (const work of works) {
          await rejected("argument", () => work(x, x));
          await rejected("out-of-memory", () => lab.without(() => work(x, ids)));
        }
        await rejected("argument", () => dropout(x, { p: 2, seed: 1 }));
        await rejected("out-of-memory", () => lab.without(() => dropout(x, { p: 0.5, seed: 1 })));
        const plan = await planCrossEntropyBackward(lab.device, { logits: x, target: ids });
        runPlan(lab.device, plan, { dLogits: dX });
      };
    },
  },
];
