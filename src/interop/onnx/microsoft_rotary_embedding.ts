// com.microsoft RotaryEmbedding and MRotaryEmbedding.

import { rotary, splitHeads, type Tensor } from "../../index.ts";
import { expectAxes, expectRank } from "./attention_parts.ts";
import { onnxOperator } from "./operator.ts";
import type { Call } from "./padding_mask.ts";

const ATTRIBUTES = {
  interleaved: "flag",
  num_heads: "int",
  rotary_embedding_dim: "int",
  is_packed_batching: "flag",
  scale: "float",
} as const;

/**
 * com.microsoft RotaryEmbedding. input [B, H, S, D], or [B, S, H * D]; cos_cache and sin_cache
 * [positions, R / 2]. position_ids are [B, S], or [1] or a scalar: the position of each entry's
 * first token. Without `rotary_embedding_dim` R is the head dim D; with it channels from R on are
 * copied, and `num_heads` tells H. A token whose position has no row is copied. `scale` must be 1:
 * ONNX Runtime has no other. `is_packed_batching` puts all texts into one row, and changes nothing
 * here.
 *
 * @example
 * const [output] = await MicrosoftRotaryEmbedding([input, [0], cos, sin], { interleaved: 1 });
 */
export const MicrosoftRotaryEmbedding = /* @__PURE__ */ onnxOperator(
  {
    operator: "com.microsoft.RotaryEmbedding",
    opsets: [1],
    inputs: ["input", "position_ids", "cos_cache", "sin_cache"],
    outputs: ["output"],
    attributes: ATTRIBUTES,
  },
  async (call) => {
    const { interleaved = false, scale = 1 } = call.attributes;
    call.expect(scale === 1, () => `attribute scale must be 1, got ${scale}`);
    const input = call.tensor("input");
    const cos = call.tensor("cos_cache");
    const sin = call.tensor("sin_cache");
    const rotaryDim = rotatedOf(call, call.attributes, cos, sin);
    const output = call.make(input.shape, input.dtype);
    const [x, into] = [input, output].map((one) => inHeads(call, one, rotaryDim, call.attributes));
    const [batch, , tokens] = x.shape;
    const ids = positions(call, call.integers("position_ids"), [batch, tokens]);
    // One id is the position of the first token.
    const isFirst = ids.size === 1;
    await rotary(x, {
      interleaved,
      cos,
      sin,
      rotaryDim,
      output: into,
      label: call.label,
      ...(isFirst
        ? { positionOffset: ids.view({ shape: [batch], strides: [0] }) }
        : { positionIds: ids }),
    });
    return { output };
  },
);

/**
 * com.microsoft MRotaryEmbedding: three positions a token, of time, height and width. input
 * [B, H, S, D], or [B, S, H * D] with `num_heads`; position_ids [3, B, S]; cos_cache and sin_cache
 * [positions, R / 2], R = `rotary_embedding_dim` (default D). `mrope_section`, required, says how
 * many of the R / 2 columns each position has; `mrope_layout` 0 means that these columns follow
 * each other, 1 that they alternate. cos and sin are multiplied by `scale`. Channels from R on are
 * copied.
 *
 * @example
 * const [output] = await MRotaryEmbedding([input, ids, cos, sin], {
 *   num_heads: 16,
 *   mrope_section: [16, 24, 24],
 * });
 */
export const MRotaryEmbedding = /* @__PURE__ */ onnxOperator(
  {
    operator: "com.microsoft.MRotaryEmbedding",
    opsets: [1],
    inputs: ["input", "position_ids", "cos_cache", "sin_cache"],
    outputs: ["output"],
    attributes: { ...ATTRIBUTES, mrope_section: "ints", mrope_layout: "int" },
  },
  async (call) => {
    const {
      interleaved = false,
      scale = 1,
      mrope_section: given,
      mrope_layout: layout = 0,
    } = call.attributes;
    const input = call.tensor("input");
    const cos = call.tensor("cos_cache");
    const sin = call.tensor("sin_cache");
    const rotaryDim = rotatedOf(call, call.attributes, cos, sin);
    const [t = -1, h = -1, w = -1, ...rest] = given ?? [];
    const sections = [t, h, w] as const;
    call.expect(
      Math.min(t, h, w) >= 0 && rest.length === 0 && t + h + w === rotaryDim / 2,
      () =>
        `attribute mrope_section must be three numbers from 0 up whose sum is the ${rotaryDim / 2} columns of cos_cache, got [${given ?? ""}]`,
    );
    call.expect(
      layout === 0 || layout === 1,
      () => `attribute mrope_layout must be 0 or 1, got ${layout}`,
    );
    call.expect(scale > 0, () => `attribute scale must be above 0, got ${scale}`);
    const output = call.make(input.shape, input.dtype);
    const heads = call.attributes.num_heads ?? 0;
    call.expect(
      input.shape.length === 4 || heads > 0,
      () => `attribute num_heads is required where input is [B, S, H * D] = [${input.shape}]`,
    );
    const [x, into] = [input, output].map((one) =>
      one.shape.length === 3 ? splitHeads(one, heads) : one,
    );
    const [batch, , tokens] = x.shape;
    await rotary(x, {
      interleaved,
      cos,
      sin,
      rotaryDim,
      output: into,
      label: call.label,
      attentionFactor: scale,
      sections: layout === 1 ? thirds(sections, rotaryDim / 2) : sections,
      sectionLayout: layout === 1 ? "interleaved" : "blocks",
      positionIds: positions(call, call.integers("position_ids"), [3, batch, tokens]),
    });
    return { output };
  },
);

/**
 * If the sections alternate, height and width have at most every third column each; columns that
 * don't fit belong to time.
 */
function thirds([, height, width]: readonly number[], columns: number): [number, number, number] {
  const h = Math.min(height, Math.floor((columns + 1) / 3));
  const w = Math.min(width, Math.floor(columns / 3));
  return [columns - h - w, h, w];
}

interface Attributes {
  readonly num_heads: number | undefined;
  readonly rotary_embedding_dim: number | undefined;
}

/** R, as the caches have it. */
function rotatedOf(
  call: Call,
  { rotary_embedding_dim: given = 0 }: Attributes,
  cos: Tensor,
  sin: Tensor,
): number {
  expectRank(call, "cos_cache", cos, 2, "[positions, R / 2]");
  expectAxes(call, "sin_cache", sin, cos.shape, "like cos_cache");
  const rotaryDim = 2 * cos.shape[1];
  call.expect(
    given === 0 || given === rotaryDim,
    () =>
      `attribute rotary_embedding_dim is ${given}, and cos_cache [${cos.shape}] is for ${rotaryDim}`,
  );
  return rotaryDim;
}

/**
 * Views x as [B, H, S, D]. Rows that aren't split into heads have heads of R channels, unless
 * `rotary_embedding_dim` says that heads are wider.
 */
function inHeads(call: Call, x: Tensor, rotaryDim: number, attributes: Attributes): Tensor {
  const { num_heads: heads = 0, rotary_embedding_dim: partial = 0 } = attributes;
  const { shape } = x;
  call.expect(shape.length === 3 || shape.length === 4, () => {
    return `input must be [B, H, S, D] or [B, S, H * D], got [${shape}]`;
  });
  call.expect(
    partial === 0 || heads > 0,
    () => "attribute num_heads is required where rotary_embedding_dim is given",
  );
  if (shape.length === 4) return x;
  const whole = shape[2] + rotaryDim === 0 ? Math.max(1, heads) : shape[2] / rotaryDim;
  const count = partial > 0 ? heads : whole;
  call.expect(
    Number.isInteger(count) && shape[2] % count === 0,
    () =>
      `input [${shape}] can't be split into heads of ${rotaryDim}${partial ? ` or more, ${heads} of them` : ""}`,
  );
  return splitHeads(x, count);
}

/** Positions as a tensor on the GPU, for which tokens without a row stay as they are. */
function positions(
  call: Call,
  given: Tensor | readonly number[],
  shape: readonly number[],
): Tensor {
  const isList = Array.isArray(given);
  const count = isList ? given.length : (given as Tensor).size;
  const all = shape.reduce((total, size) => total * size, 1);
  const isFirst = shape.length === 2 && count === 1;
  call.expect(
    isFirst || (count === all && (isList || String((given as Tensor).shape) === String(shape))),
    () =>
      `position_ids must be [${shape}]${shape.length === 2 ? ", or one number" : ""}, got ${isList ? `${count} numbers` : `[${(given as Tensor).shape}]`}`,
  );
  return isList ? call.make(isFirst ? [1] : shape, "i32", { data: given }) : (given as Tensor);
}
