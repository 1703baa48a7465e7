// ONNX' operators, which own the memory between their inputs and outputs.

import { operators } from "../../src/interop/onnx/index.ts";
import { type LeakCase, rejected } from "./lab.ts";

const HEADS = [1, 2, 4, 8];

/** Runs an operator and destroys its results. */
async function dropped(
  results: Promise<readonly ({ destroy(): void } | undefined)[]>,
): Promise<void> {
  for (const one of await results) one?.destroy();
}

export const ONNX_CASES: readonly LeakCase[] = [
  {
    name: "ONNX: Attention, with all outputs",
    start: (lab) => {
      const q = lab.rows(HEADS);
      const { Attention } = operators["ai.onnx"];
      return async () => {
        await dropped(Attention([q, q, q, null, q, q], { is_causal: 1 }, { outputs: 4 }));
        await rejected("argument", () => Attention([q, q, q], { causal: 1 } as never));
        await rejected("out-of-memory", () =>
          lab.without(() => Attention([q, q, q], { is_causal: 1 })),
        );
      };
    },
  },
  {
    name: "ONNX: rows and positions",
    start: (lab) => {
      const x = lab.rows([1, 4, 8]);
      const weight = lab.rows([8]);
      const angles = lab.rows([9, 4]);
      const { Gelu, LayerNormalization, LogSoftmax, RMSNormalization, RotaryEmbedding, Softmax } =
        operators["ai.onnx"];
      const { SkipLayerNormalization } = operators["com.microsoft"];
      return async (n) => {
        await dropped(Softmax([x], { axis: n % 3 }));
        await dropped(LogSoftmax([x]));
        await dropped(Gelu([x]));
        await dropped(LayerNormalization([x, weight, weight], {}, { outputs: 3 }));
        await dropped(RMSNormalization([x, weight], {}));
        await dropped(SkipLayerNormalization([x, x, weight], {}, { outputs: 4 }));
        const positions = [[0, 1, 2, n % 9]];
        await dropped(
          RotaryEmbedding([x, angles, angles, positions.flat()], { num_heads: 1 } as never),
        );
        await rejected("argument", () => LayerNormalization([x, angles], {}));
      };
    },
  },
  {
    name: "ONNX: MultiHeadAttention and GroupQueryAttention",
    start: (lab) => {
      const x = lab.rows([1, 4, 16]);
      const past = lab.rows([1, 2, 6, 8]);
      const { MultiHeadAttention, GroupQueryAttention } = operators["com.microsoft"];
      const heads = { num_heads: 2, kv_num_heads: 2 };
      return async () => {
        await dropped(MultiHeadAttention([x, x, x], { num_heads: 2 }));
        await dropped(GroupQueryAttention([x, x, x, past, past, [3], [4]], heads, { outputs: 3 }));
        await dropped(GroupQueryAttention([x, x, x, null, null, [3], [4]], heads, { outputs: 3 }));
        await rejected("argument", () => MultiHeadAttention([x, x, x], { heads: 2 } as never));
      };
    },
  },
  {
    name: "ONNX: LinearAttention",
    start: (lab) => {
      const x = lab.rows([1, 4, 16]);
      const { LinearAttention } = operators["ai.onnx"];
      const attributes = { q_num_heads: 2, kv_num_heads: 2, update_rule: "linear" };
      return async () => {
        await dropped(LinearAttention([x, x, x], attributes, { outputs: 2 }));
        await rejected("out-of-memory", () =>
          lab.without(() => LinearAttention([x, x, x], attributes)),
        );
      };
    },
  },
];
