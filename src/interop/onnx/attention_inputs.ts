// The inputs and attributes of ai.onnx Attention: which values are refused, and which can't be
// combined.

import { type Dtype, splitHeads, Tensor, type WeightsStage } from "../../index.ts";
import type { OnnxCall } from "./operator.ts";

export const definition = {
  operator: "ai.onnx.Attention",
  opsets: [23, 24, 25],
  inputs: ["Q", "K", "V", "attn_mask?", "past_key?", "past_value?", "nonpad_kv_seqlen?"],
  outputs: ["Y", "present_key?", "present_value?", "qk_matmul_output?"],
  attributes: {
    is_causal: "flag",
    q_num_heads: "int",
    kv_num_heads: "int",
    scale: "float",
    softcap: "float",
    softmax_precision: "int",
    qk_matmul_output_mode: "int",
    left_window_size: "int",
    right_window_size: "int",
  },
} as const;

type Definition = typeof definition;
export type Call = OnnxCall<
  Definition["inputs"][number],
  Definition["outputs"][number],
  Definition["attributes"]
>;

export const STAGES: readonly WeightsStage[] = ["raw", "capped", "scores", "probabilities"];
/** TensorProto's FLOAT, FLOAT16, DOUBLE and BFLOAT16. */
export const PRECISIONS: readonly unknown[] = [undefined, 1, 10, 11, 16];
export const FLOATS: readonly Dtype[] = ["f32", "f16", "bf16"];

/** Throws FoveaError for attributes that are wrong, or that this opset doesn't have. */
export function checkAttributes(call: Call): void {
  const {
    scale = 1,
    softcap = 0,
    qk_matmul_output_mode: mode = 0,
    softmax_precision: precision,
  } = call.attributes;
  const { left_window_size: left = -1, right_window_size: right = -1 } = call.attributes;
  call.expect(
    scale >= 0,
    () => `scale must not be negative, its root is a factor of Q and of K; got ${scale}`,
  );
  call.expect(softcap >= 0, () => `softcap must be positive, or 0 for none, got ${softcap}`);
  call.expect(mode in STAGES, () => `qk_matmul_output_mode must be 0, 1, 2 or 3, got ${mode}`);
  call.expect(
    PRECISIONS.includes(precision),
    () =>
      `softmax_precision must be 1 (float), 10 (float16), 11 (double) or 16 (bfloat16), got ${precision}`,
  );
  const windowed = call.attributes.left_window_size ?? call.attributes.right_window_size;
  call.expect(
    windowed === undefined || call.opset >= 25,
    () =>
      `left_window_size and right_window_size are known from opset 25 on, and this is ${call.opset}`,
  );
  call.expect(
    left >= -1 && right >= -1,
    () =>
      `window sizes are whole numbers of keys, or -1 for no bound, got left ${left}, right ${right}`,
  );
}

/** The inputs with four axes, [B, heads, rows, head size]. */
export interface Heads {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
}

/** The inputs with four axes. Throws FoveaError if they are not those of an attention. */
export function heads(call: Call): Heads {
  const inputs = { Q: call.tensor("Q"), K: call.tensor("K"), V: call.tensor("V") };
  const { Q, K, V } = inputs;
  const shapes = () => `Q [${Q.shape}], K [${K.shape}], V [${V.shape}]`;
  const rank = Q.shape.length;
  call.expect(
    (rank === 3 || rank === 4) && K.shape.length === rank && V.shape.length === rank,
    () => `Q, K and V must all have 3 axes or all 4, got ${shapes()}`,
  );
  for (const [name, { dtype }] of Object.entries(inputs))
    call.expect(FLOATS.includes(dtype), () => `${name} must be f32, f16 or bf16, got ${dtype}`);
  call.expect(
    Q.dtype === K.dtype,
    () => `Q and K must have one dtype, got ${Q.dtype} and ${K.dtype}`,
  );
  const { q_num_heads: qHeads, kv_num_heads: kvHeads } = call.attributes;
  if (rank === 4) {
    call.expect(
      call.opset < 25 || (qHeads === undefined && kvHeads === undefined),
      () =>
        "q_num_heads and kv_num_heads are for inputs with 3 axes; leave them out for those with 4",
    );
    call.expect(
      (qHeads ?? Q.shape[1]) === Q.shape[1] && (kvHeads ?? K.shape[1]) === K.shape[1],
      () => `q_num_heads ${qHeads} and kv_num_heads ${kvHeads} are not those of ${shapes()}`,
    );
  } else {
    call.expect(
      (qHeads ?? 0) > 0 && (kvHeads ?? 0) > 0,
      () => `q_num_heads and kv_num_heads are required for inputs with 3 axes, ${shapes()}`,
    );
  }
  const split = (name: keyof typeof inputs, count: number) => {
    const input = inputs[name];
    const width = input.shape[2];
    call.expect(
      width % count === 0,
      () => `the ${width} columns of ${name} must be a multiple of ${count} heads`,
    );
    return splitHeads(input, count);
  };
  const all =
    rank === 4
      ? { q: Q, k: K, v: V }
      : {
          q: split("Q", qHeads as number),
          k: split("K", kvHeads as number),
          v: split("V", kvHeads as number),
        };
  const { q, k, v } = all;
  call.expect(
    k.shape[0] === q.shape[0] && k.shape[3] === q.shape[3],
    () => `Q and K must have the same batch size and head size, got ${shapes()}`,
  );
  call.expect(
    [0, 1, 2].every((axis) => v.shape[axis] === k.shape[axis]),
    () => `K and V must have the same batch size, heads and length, got ${shapes()}`,
  );
  call.expect(
    q.shape[1] === k.shape[1] || q.shape[1] % k.shape[1] === 0,
    () => `the ${q.shape[1]} heads of Q must be a multiple of the ${k.shape[1]} of K and V`,
  );
  return all;
}

/** Checks the inputs of the past, and inputs that can't be combined. */
export function checkMemory(call: Call, { q, k, v }: Heads): void {
  const pasts = { past_key: call.tensor("past_key"), past_value: call.tensor("past_value") };
  const { past_key, past_value } = pasts;
  call.expect(
    (past_key === undefined) === (past_value === undefined),
    () => "past_key and past_value belong together; only one was given",
  );
  const [batch, kvHeads] = k.shape;
  for (const [name, like] of [["past_key", k] as const, ["past_value", v] as const]) {
    const past = pasts[name];
    const fits = [batch, kvHeads, past_key?.shape[2], like.shape[3]];
    call.expect(
      past === undefined ||
        (past.shape.length === 4 && fits.every((size, axis) => size === past.shape[axis])),
      () =>
        `${name} must be [B, kv_num_heads, past, head size] = [${batch}, ${kvHeads}, past, ${like.shape[3]}], got [${past?.shape}]`,
    );
    call.expect(
      past === undefined || past.dtype === like.dtype,
      () => `${name} must be ${like.dtype}, as what follows it, got ${past?.dtype}`,
    );
  }
  const lengths = call.integers("nonpad_kv_seqlen");
  if (lengths === undefined) return;
  call.expect(
    call.opset >= 24,
    () => `nonpad_kv_seqlen is known from opset 24 on, and this is ${call.opset}`,
  );
  call.expect(
    past_key === undefined && !call.wants("present_key") && !call.wants("present_value"),
    () =>
      "nonpad_kv_seqlen is for a cache that K and V are, and can't be combined with past or present keys and values",
  );
  const fits =
    lengths instanceof Tensor
      ? lengths.shape.length === 1 &&
        lengths.shape[0] === q.shape[0] &&
        ["i32", "u32"].includes(lengths.dtype)
      : lengths.length === q.shape[0] &&
        lengths.every((n) => Number.isInteger(n) && n >= 0 && n <= k.shape[2]);
  call.expect(
    fits,
    () =>
      `nonpad_kv_seqlen must be ${q.shape[0]} whole numbers from 0 to ${k.shape[2]}, one a batch entry, or an i32 tensor of them, got ${lengths instanceof Tensor ? `${lengths.dtype} [${lengths.shape}]` : `[${lengths}]`}`,
  );
}
