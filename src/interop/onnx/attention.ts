// ai.onnx Attention.

import { type ScoreOptions, splitHeads, type Tensor } from "../../index.ts";
import {
  type Call,
  checkAttributes,
  checkMemory,
  definition,
  FLOATS,
  type Heads,
  heads,
  STAGES,
} from "./attention_inputs.ts";
import { attend, cast, weightsOf } from "./attention_parts.ts";
import { onnxOperator } from "./operator.ts";
import { writePresent } from "./past_present.ts";

/**
 * ai.onnx Attention-23, -24 and -25: softmax(scale * Q K^T, capped, + attn_mask) V. Q
 * [B, Hq, S, D], K [B, Hkv, L, D] and V [B, Hkv, L, Dv], or [B, S, Hq * D], [B, L, Hkv * D] and
 * [B, L, Hkv * Dv] with `q_num_heads` and `kv_num_heads`; Y has the same layout. All are f32, f16
 * or bf16; V and past_value may have another dtype than the rest. Sums are f32 whatever
 * `softmax_precision` says.
 *
 * - attn_mask broadcasts to [B, Hq, S, T], T = past + L: u8, for which other numbers than 0 mean
 *   that the key is seen, or floats that are added, -Infinity to hide the key. Keys past its last
 *   dimension are hidden.
 * - past_key [B, Hkv, past, D] and past_value come before K and V; present_key and present_value
 *   are the two joined.
 * - nonpad_kv_seqlen [B], from opset 24 on: the keys of each entry. It is read back if attn_mask is
 *   shorter than T.
 * - With `is_causal`, and for the windows of opset 25, query i stands at key i + past, or
 *   nonpad_kv_seqlen[b] - S + i, or i. A window counts the keys before and after that one.
 * - qk_matmul_output [B, Hq, S, T]: by `qk_matmul_output_mode` the scaled scores (0), after the
 *   softcap (1), after masks too (2), or the probabilities (3).
 * - A query that sees no key gets 0, and values of hidden keys are never used.
 *
 * @example
 * const [Y, presentKey, presentValue] = await Attention(
 *   [Q, K, V, null, pastKey, pastValue],
 *   { is_causal: 1 },
 *   { outputs: 3 },
 * );
 */
export const Attention = /* @__PURE__ */ onnxOperator(definition, async (call) => {
  checkAttributes(call);
  const given = heads(call);
  checkMemory(call, given);
  const { q } = given;
  const { k, v } = await withPast(call, given);
  const [batch, qHeads, rows] = q.shape;
  const keys = k.shape[2];
  const mask = await maskOf(call, [batch, qHeads, rows, keys]);
  // Keys past the mask's last one are hidden, and need not be visited.
  const reach = mask?.reach ?? keys;
  const options = await visibility(call, given, reach);
  const { scale, softcap } = call.attributes;
  const scores = {
    ...(scale !== undefined && { scale }),
    ...(softcap && { softcap }),
    label: call.label,
  };
  const masked = { ...scores, ...mask?.options, ...options };
  const folded = call.tensor("Q").shape.length === 3;
  const width = v.shape[3];
  const Y = call.make(
    folded ? [batch, rows, qHeads * width] : [batch, qHeads, rows, width],
    q.dtype,
  );
  const output = folded ? splitHeads(Y, qHeads) : Y;
  const seen = { q, k: k.slice(2, 0, reach) };
  await attend(call, { ...seen, v: v.slice(2, 0, reach) }, { ...masked, output });
  if (!call.wants("qk_matmul_output")) return { Y, present_key: k, present_value: v };

  const mode = call.attributes.qk_matmul_output_mode ?? 0;
  const hidden =
    mode === 2 && reach < keys && new Float32Array(batch * qHeads * rows * keys).fill(-Infinity);
  const weights = call.make([batch, qHeads, rows, keys], "f32", hidden ? { data: hidden } : {});
  const stage = STAGES[mode];
  if (mode < 2) await weightsOf(call, { q, k }, { ...scores, stage, output: weights });
  else await weightsOf(call, seen, { ...masked, stage, output: weights.slice(3, 0, reach) });
  return {
    Y,
    present_key: k,
    present_value: v,
    qk_matmul_output: await cast(call, weights, q.dtype),
  };
});

/**
 * Keys and values with those of the past before them, copied if presents are asked for or a copy is
 * needed.
 */
async function withPast(call: Call, { k, v }: Heads): Promise<Pick<Heads, "k" | "v">> {
  const joined = async (
    input: "past_key" | "past_value",
    present: "present_key" | "present_value",
    added: Tensor,
  ) => {
    const past = call.tensor(input);
    if (!past && !call.wants(present)) return added;
    const [batch, kvHeads, length, width] = added.shape;
    const before = past?.shape[2] ?? 0;
    const all = call.make([batch, kvHeads, before + length, width], added.dtype);
    await writePresent(call, { rows: added, past, starts: before, present: all });
    return all;
  };
  const [keys, values] = await Promise.all([
    joined("past_key", "present_key", k),
    joined("past_value", "present_value", v),
  ]);
  return { k: keys, v: values };
}

/** The mask as an option of attention, and the number of keys that it covers. */
async function maskOf(call: Call, scores: readonly number[]) {
  const mask = call.tensor("attn_mask");
  if (!mask) return undefined;
  const { shape, dtype } = mask;
  const missing = 4 - shape.length;
  const fits = shape.every((size, axis) => {
    const most = scores[axis + missing];
    return axis === shape.length - 1 ? size <= most : size === most || size === 1;
  });
  call.expect(
    shape.length >= 1 && missing >= 0 && fits,
    () =>
      `attn_mask must broadcast to [B, q_num_heads, S, T] = [${scores.join(", ")}], or have fewer keys, got [${shape}]`,
  );
  call.expect(
    dtype === "u8" || FLOATS.includes(dtype),
    () => `attn_mask must be u8 (for bool), f32, f16 or bf16, got ${dtype}`,
  );
  const reach = shape[shape.length - 1];
  if (dtype === "u8") return { reach, options: { mask } };
  return { reach, options: { bias: await cast(call, mask, "f32") } };
}

/** The options that say lengths, positions and hidden keys. */
async function visibility(call: Call, { q, k }: Heads, reach: number): Promise<ScoreOptions> {
  const {
    is_causal: causal = false,
    left_window_size: left = -1,
    right_window_size: right = -1,
  } = call.attributes;
  const rows = q.shape[2];
  const shared = { causal, ...((left >= 0 || right >= 0) && { window: [left, right] as const }) };
  const past = call.tensor("past_key")?.shape[2] ?? 0;
  const lengths = call.integers("nonpad_kv_seqlen");
  if (!lengths) return { ...shared, queryOffset: past };
  // The last query stands at the last key, which is the engine's default, but not for the keys of a
  // short mask.
  if (reach === k.shape[2]) return { ...shared, kvLengths: lengths };
  const numbers = (await call.numbers("nonpad_kv_seqlen")) as readonly number[];
  return {
    ...shared,
    kvLengths: numbers.map((keys) => Math.min(keys, reach)),
    queryOffset: numbers.map((keys) => keys - rows),
  };
}
