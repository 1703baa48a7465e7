// ai.onnx and com.microsoft LinearAttention.

import { copyTensor, linearAttention, splitHeads, type Tensor } from "../../index.ts";
import { expectAxes, expectRank, headsOf } from "./attention_parts.ts";
import { onnxOperator } from "./operator.ts";
import type { Call } from "./padding_mask.ts";

const RULES = ["linear", "gated", "delta", "gated_delta"] as const;
const INPUTS = ["query", "key", "value", "past_state?", "decay?", "beta?"] as const;
const OUTPUTS = ["output", "present_state"] as const;
const ATTRIBUTES = {
  q_num_heads: "int",
  kv_num_heads: "int",
  update_rule: "string",
  scale: "float",
  chunk_size: "int",
} as const;

/**
 * ai.onnx LinearAttention-27. query [B, T, H * D], key [B, T, Hkv * D], value [B, T, Hkv * Dv],
 * with `q_num_heads` H, a multiple of `kv_num_heads` Hkv. `update_rule` is "linear", "gated",
 * "delta" or "gated_delta" (the default); decay [B, T, Hkv] or [B, T, Hkv * D] belongs to the gated
 * rules, beta [B, T, Hkv] or [B, T, 1] to rules with delta. past_state and present_state are
 * [B, Hkv, D, Dv]; the latter has the dtype of the former, or that of query. `scale` 0, the
 * default, is 1 / sqrt(D). `chunk_size` is a hint that changes no number, and is not needed here.
 *
 * @example
 * const [output, state] = await LinearAttention([q, k, v, past, decay, beta], {
 *   q_num_heads: 8,
 *   kv_num_heads: 4,
 * });
 */
export const LinearAttention = /* @__PURE__ */ onnxOperator(
  {
    operator: "ai.onnx.LinearAttention",
    opsets: [27],
    inputs: [...INPUTS, "erase_gate?"],
    outputs: OUTPUTS,
    attributes: ATTRIBUTES,
  },
  async (call) => {
    call.expect(
      !call.has("erase_gate"),
      () => "erase_gate is not supported; its keys are those that are written",
    );
    const { q_num_heads: q, kv_num_heads: kv } = call.attributes;
    const heads = [headsOf(call, q, "q_num_heads"), headsOf(call, kv, "kv_num_heads")] as const;
    call.expect(
      heads[0] % heads[1] === 0,
      () => `attribute q_num_heads = ${q} must be a multiple of kv_num_heads = ${kv}`,
    );
    const given = {
      query: call.tensor("query"),
      key: call.tensor("key"),
      value: call.tensor("value"),
      past: call.tensor("past_state"),
      decay: call.tensor("decay"),
      beta: call.tensor("beta"),
    };
    return attendLinear(call, given, call.attributes, heads, 0);
  },
);

/**
 * com.microsoft LinearAttention is like ai.onnx LinearAttention-27, but H may also divide Hkv, and
 * the output then has Hkv heads; and key may have fewer heads than value. `state_window` W from 1
 * to 8: past_state and present_state are [W, B, Hkv, D, Dv], the states after the last W tokens, or
 * zeros if there are fewer tokens; the last state is read.
 *
 * @example
 * const inputs = [query, key, value, null, decay, beta];
 * const [output, states] = await MicrosoftLinearAttention(inputs, {
 *   q_num_heads: 8,
 *   kv_num_heads: 2,
 *   state_window: 4,
 * });
 */
export const MicrosoftLinearAttention = /* @__PURE__ */ onnxOperator(
  {
    operator: "com.microsoft.LinearAttention",
    opsets: [1],
    inputs: INPUTS,
    outputs: OUTPUTS,
    attributes: { ...ATTRIBUTES, state_window: "int" },
  },
  async (call) => {
    const { q_num_heads: q, kv_num_heads: kv, state_window: window = 0 } = call.attributes;
    call.expect(
      0 <= window && window <= 8,
      () => `attribute state_window must be from 0 up to 8, got ${window}`,
    );
    const heads = [headsOf(call, q, "q_num_heads"), headsOf(call, kv, "kv_num_heads")] as const;
    const given = {
      query: call.tensor("query"),
      key: call.tensor("key"),
      value: call.tensor("value"),
      past: call.tensor("past_state"),
      decay: call.tensor("decay"),
      beta: call.tensor("beta"),
    };
    return attendLinear(call, given, call.attributes, heads, window);
  },
);

interface Given {
  readonly query: Tensor;
  readonly key: Tensor;
  readonly value: Tensor;
  readonly past: Tensor | undefined;
  readonly decay: Tensor | undefined;
  readonly beta: Tensor | undefined;
}

async function attendLinear(
  call: Call,
  { query, key, value, past, decay, beta }: Given,
  {
    update_rule: rule = "gated_delta",
    scale = 0,
  }: { update_rule: string | undefined; scale: number | undefined },
  [heads, states]: readonly [number, number],
  window: number,
): Promise<{ output: Tensor; present_state: Tensor }> {
  const updateRule = RULES.find((one) => one === rule);
  call.expect(
    updateRule !== undefined,
    () => `attribute update_rule must be ${RULES.join(", ")}, got "${rule}"`,
  );
  expectRank(call, "query", query, 3, "[B, T, H * D]");
  const [batch, tokens, width] = query.shape;
  const headDim = width / heads;
  call.expect(
    width % heads === 0,
    () => `query [${query.shape}] can't be split into q_num_heads = ${heads}`,
  );
  expectAxes(call, "key", key, [batch, tokens, key.shape[2]], "[B, T, Hk * D]");
  expectAxes(call, "value", value, [batch, tokens, value.shape[2]], "[B, T, Hkv * Dv]");
  call.expect(
    headDim > 0 ? key.shape[2] % headDim === 0 : key.shape[2] === 0,
    () => `key [${key.shape}] can't be split into heads of ${headDim}, as query has them`,
  );
  call.expect(
    value.shape[2] % states === 0,
    () => `value [${value.shape}] can't be split into kv_num_heads = ${states}`,
  );
  const vDim = value.shape[2] / states;
  const gate = (name: string, gate: Tensor | undefined, widths: readonly number[]) => {
    if (!gate) return;
    expectAxes(call, name, gate, [batch, tokens, gate.shape[2]], "[B, T, ..]");
    call.expect(
      widths.includes(gate.shape[2]),
      () => `${name} must be [${batch}, ${tokens}, ${widths.join(" or ")}], got [${gate.shape}]`,
    );
  };
  gate("decay", decay, [states, states * headDim]);
  gate("beta", beta, [states, 1]);
  const stateShape = [batch, states, headDim, vDim];
  const whole = window ? [window, ...stateShape] : stateShape;
  if (past)
    expectAxes(call, "past_state", past, whole, window ? "[W, B, Hkv, D, Dv]" : "[B, Hkv, D, Dv]");

  const output = call.make([batch, tokens, Math.max(heads, states) * vDim], query.dtype);
  const present = call.make(whole, (past ?? query).dtype);
  // Without channels the states hold nothing, and the output is 0.
  if (present.size === 0) return { output, present_state: present };
  const slot = (index: number) =>
    window ? present.slice(0, index, index + 1).view({ shape: stateShape }) : present;
  const slots = Math.max(1, window);
  let before =
    past && (await stateOf(call, window ? past.slice(0, window - 1, window) : past, stateShape));
  // The states of a window are those between runs; the first run takes all tokens but the last W -
  // 1.
  const first = Math.min(slots - 1, Math.max(0, slots - tokens));
  let begin = 0;
  for (let index = first; index < slots; index++) {
    const end = tokens - (slots - 1 - index);
    const some = (rows: Tensor, count: number) => splitHeads(rows.slice(1, begin, end), count);
    const after = window || present.dtype !== "f32" ? call.make(stateShape) : present;
    await linearAttention(
      some(query, heads),
      some(key, key.shape[2] / headDim),
      some(value, states),
      {
        updateRule: updateRule as (typeof RULES)[number],
        label: call.label,
        ...(scale !== 0 && { scale }),
        ...(decay && { decay: some(decay, states) }),
        ...(beta && { beta: some(beta, beta.shape[2]) }),
        ...(before && { pastState: before }),
        output: some(output, Math.max(heads, states)),
        presentState: after,
      },
    );
    if (after !== present) await copyTensor(after, { output: slot(index), label: call.label });
    before = after;
    begin = end;
  }
  return { output, present_state: present };
}

/** A state as the engine takes it, dense and f32. */
async function stateOf(call: Call, given: Tensor, shape: readonly number[]): Promise<Tensor> {
  const output = call.make(shape, "f32");
  await copyTensor(given.view({ shape, strides: given.strides.slice(-4) }), {
    output,
    label: call.label,
  });
  return output;
}
