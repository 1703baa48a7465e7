// Operations around attention: rows, positions, projections, layers, linear attention, ONNX'
// operators.

import {
  activate,
  activationBackward,
  addBias,
  copyTensor,
  gatedPositionBias,
  gelu,
  layerNorm,
  linearAttention,
  linearAttentionBackward,
  logSoftmax,
  MultiHeadAttention,
  multiHeadAttentionBackward,
  multiHeadWeights,
  planLayerNorm,
  planLinearAttention,
  planMultiHeadAttentionBackward,
  planProjectionBackward,
  positionEncoding,
  project,
  projectionBackward,
  relativePositionBias,
  rmsNorm,
  rotary,
  softmax,
} from "../../src/index.ts";
import { drop, type Lab, type LeakCase, rejected, runPlan } from "./lab.ts";

const ROWS = [3, 4, 8];
const HEADS = [1, 2, 4, 8];

/** A new layer, whose weights are kept. */
function layerOf(lab: Lab): MultiHeadAttention {
  const weights = multiHeadWeights.glorot(lab.device, { embedDim: 8, heads: 2 });
  for (const { weight, bias } of [weights.query, weights.key, weights.value, weights.output].filter(
    (one) => !!one,
  )) {
    for (const one of [weight, bias]) if (one) lab.keep(one);
  }
  return new MultiHeadAttention(lab.device, weights, { heads: 2 });
}

export const OPERATION_CASES: readonly LeakCase[] = [
  {
    name: "rows: softmax, norms, GELU, biases, copies",
    start: (lab) => {
      const x = lab.rows(ROWS);
      const bias = lab.rows([8]);
      return async (n) => {
        drop(await softmax(x, { axis: n % 3 }));
        drop(await logSoftmax(x));
        drop(await layerNorm(x, { weight: bias, bias }));
        drop(await rmsNorm(x));
        drop(await gelu(x));
        drop(await activate(x, { activation: "silu", factor: x }));
        drop(await activationBackward(x, x, { activation: "silu", factor: bias }));
        drop(await addBias(x, bias));
        drop(await copyTensor(x.permute(1, 0, 2)));
      };
    },
  },
  {
    name: "rows: refused",
    start: (lab) => {
      const x = lab.rows(ROWS);
      return async () => {
        const gone = lab.refused(ROWS);
        for (const operation of [softmax, layerNorm, gelu, copyTensor]) {
          await rejected("out-of-memory", () => operation(gone));
          await rejected("argument", () => operation(x, { axes: 1 } as never));
          await rejected("out-of-memory", () => lab.without(() => operation(x)));
        }
        gone.destroy();
      };
    },
  },
  {
    name: "rows: plans",
    start: (lab) => {
      const x = lab.rows(ROWS);
      const output = lab.rows(ROWS);
      return async () => {
        runPlan(lab.device, await planLayerNorm(lab.device, { x }), { output });
        await rejected("out-of-memory", () => lab.without(() => planLayerNorm(lab.device, { x })));
      };
    },
  },
  {
    name: "positions: rotary, encodings, biases",
    start: (lab) => {
      const x = lab.rows(ROWS);
      const heads = lab.rows(HEADS);
      const table = lab.rows([32, 2]);
      const gates = {
        update: lab.rows([1, 2, 4, 1]),
        reset: lab.rows([1, 2, 4, 1]),
        scale: lab.rows([2, 1, 1]),
      };
      const bias = lab.rows([1, 2, 4, 4]);
      return async (n) => {
        drop(await rotary(heads, { positionOffset: n }));
        drop(await positionEncoding(x, { positionOffset: n }));
        drop(await relativePositionBias(table, { seqQ: 4, seqKv: 4 }));
        drop(await gatedPositionBias(bias, gates));
        await rejected("argument", () => rotary(heads, { positionIds: [1] }));
      };
    },
  },
  {
    name: "project",
    start: (lab) => {
      const x = lab.rows(ROWS);
      const weight = lab.rows([5, 8]);
      return async () => {
        drop(await project(x, weight));
        await rejected("argument", () =>
          project(x, x.slice(2, 0, 3).slice(0, 0, 1).slice(1, 0, 1)),
        );
        await rejected("out-of-memory", () => lab.without(() => project(x, weight)));
      };
    },
  },
  {
    name: "project: backward",
    start: (lab) => {
      const x = lab.rows([1200, 8]);
      const weight = lab.rows([5, 8]);
      const dOutput = lab.rows([1200, 5]);
      const dWeight = lab.rows([5, 8]);
      return async () => {
        drop(await projectionBackward(x, weight, dOutput));
        await rejected("argument", () => projectionBackward(x, weight, x));
        await rejected("out-of-memory", () =>
          lab.without(() => projectionBackward(x, weight, dOutput)),
        );
        const problem = { x, weight, dOutput, gradients: ["dWeight"] } as const;
        runPlan(lab.device, await planProjectionBackward(lab.device, problem), { dWeight });
      };
    },
  },
  {
    name: "MultiHeadAttention: forward",
    start: (lab) => {
      const layer = layerOf(lab);
      const x = lab.rows(ROWS);
      const mask = lab.rows([3, 4], "u8");
      return async (n) => {
        drop(await layer.forward(x, { weights: "mean", lse: true, kvLengths: [4, n % 5, 4] }));
        drop(await layer.forward(x, { keyMask: mask }));
        drop(await layer.forward(x, { ignoreKeyMask: mask, causal: true }));
      };
    },
  },
  {
    name: "MultiHeadAttention: plans, refusals",
    start: (lab) => {
      const layer = layerOf(lab);
      const query = lab.rows(ROWS);
      const output = lab.rows(ROWS);
      return async () => {
        runPlan(lab.device, await layer.plan({ query, causal: true }), { output });
        await rejected("argument", () => layer.forward(query, { kvLengths: [9, 9, 9] }));
        await rejected("argument", () => layer.forward(query, { heads: 2 } as never));
        await rejected("out-of-memory", () =>
          lab.without(() => layer.forward(query, { weights: "mean" })),
        );
      };
    },
  },
  {
    name: "MultiHeadAttention: backward",
    start: (lab) => {
      const layer = layerOf(lab);
      const x = lab.rows(ROWS);
      const dQuery = lab.rows(ROWS);
      return async (n) => {
        const options = { dOutput: x, kvLengths: [4, n % 5, 4] };
        const found = await multiHeadAttentionBackward(layer, x, options);
        const { parameters, ...inputs } = found;
        drop(inputs);
        for (const linear of Object.values(parameters ?? {})) drop(linear);
        const problem = { query: x, dOutput: x, gradients: ["dQuery"] } as const;
        runPlan(lab.device, await planMultiHeadAttentionBackward(layer, problem), { dQuery });
        await rejected("argument", () =>
          multiHeadAttentionBackward(layer, x, { dOutput: x, kvLengths: [9, 9, 9] }),
        );
        await rejected("argument", () =>
          multiHeadAttentionBackward(layer, x, {
            dOutput: x,
            parameters: { nonsense: x } as never,
          }),
        );
        await rejected("out-of-memory", () =>
          lab.without(() => multiHeadAttentionBackward(layer, x, options)),
        );
      };
    },
  },
  {
    name: "MultiHeadAttention: weights and layers",
    start: (lab) => async () => {
      const before = lab.objects();
      const layer = layerOf(lab);
      if (lab.objects() === before) throw new Error("weights are tensors, which are counted");
      drop(await layer.forward(lab.rows(ROWS)));
      lab.clear();
    },
  },
  {
    name: "linear attention",
    start: (lab) => {
      const q = lab.rows([1, 2, 70, 8]);
      const decay = lab.rows([1, 2, 70, 1]);
      return async (n) => {
        drop(
          await linearAttention(q, q, q, {
            causal: n % 2 === 0,
            presentState: true,
            normalized: true,
          }),
        );
        drop(
          await linearAttention(q, q, q, {
            causal: true,
            updateRule: "gated",
            decay,
            kvLengths: [n % 70],
          }),
        );
        await rejected("argument", () => linearAttention(q, q, q, { kvLengths: [99] }));
        await rejected("out-of-memory", () =>
          lab.without(() => linearAttention(q, q, q, { causal: true })),
        );
        (await planLinearAttention(lab.device, { q, k: q, v: q, causal: true })).destroy();
        drop(await linearAttentionBackward(q, q, q, { causal: n % 2 === 0, dOutput: q }));
        await rejected("argument", () =>
          linearAttentionBackward(q, q, q, { dOutput: q, gradients: ["dBeta"] }),
        );
        await rejected("out-of-memory", () =>
          lab.without(() => linearAttentionBackward(q, q, q, { dOutput: q })),
        );
      };
    },
  },
];
