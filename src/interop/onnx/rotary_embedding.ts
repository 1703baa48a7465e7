// ai.onnx RotaryEmbedding.

import { rotary, splitHeads } from "../../index.ts";
import { onnxOperator } from "./operator.ts";

/**
 * ai.onnx RotaryEmbedding-23. X [B, H, S, D], or [B, S, H * D] with `num_heads`; cos_cache and
 * sin_cache [positions, R / 2] with position_ids [B, S], or [B, S, R / 2] without. Channels past R
 * = `rotary_embedding_dim` (default D) are copied.
 *
 * @example
 * const [Y] = await RotaryEmbedding([X, cos, sin, [0, 1, 2, 3]], { interleaved: 1 });
 */
export const RotaryEmbedding = /* @__PURE__ */ onnxOperator(
  {
    operator: "ai.onnx.RotaryEmbedding",
    opsets: [23],
    inputs: ["X", "cos_cache", "sin_cache", "position_ids?"],
    outputs: ["Y"],
    attributes: { interleaved: "flag", num_heads: "int", rotary_embedding_dim: "int" },
  },
  async (call) => {
    const {
      interleaved = false,
      num_heads: heads = 0,
      rotary_embedding_dim: rotaryDim = 0,
    } = call.attributes;
    const X = call.tensor("X");
    const rank = X.shape.length;
    call.expect(
      rank === 3 || rank === 4,
      () => `X must be [B, H, S, D] or [B, S, H * D], got [${X.shape}]`,
    );
    call.expect(
      rank === 4 || heads > 0,
      () => `num_heads is required where X is [B, S, H * D] = [${X.shape}]`,
    );
    const Y = call.make(X.shape, X.dtype);
    const positionIds = call.integers("position_ids");
    await rotary(rank === 3 ? splitHeads(X, heads) : X, {
      interleaved,
      cos: call.tensor("cos_cache"),
      sin: call.tensor("sin_cache"),
      label: call.label,
      ...(rotaryDim > 0 && { rotaryDim }),
      ...(positionIds && { positionIds }),
      output: rank === 3 ? splitHeads(Y, heads) : Y,
    });
    return { Y };
  },
);
