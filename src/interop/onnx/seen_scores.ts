// Scores before the softmax as GroupQueryAttention gives them: 0, and not -Infinity, for keys that
// a query doesn't see.

import { scoreFunction, type Tensor, type WeightsOptions } from "../../index.ts";
import { weightsOf } from "./attention_parts.ts";
import { type Call, captured } from "./padding_mask.ts";

const SEEN = `fn score(s: f32, at: Position) -> f32 {
  let key = i32(at.kv_idx);
  let last = select(lengths[at.batch] - 1, min(at.position, lengths[at.batch] - 1), is_causal > 0u);
  let row = first + at.batch * step_b + at.head * step_h + at.q_idx * step_m;
  let added = bias[row + at.kv_idx * step_n];
  return select(0.0, s + added, key <= last && (window_size < 1 || key > last - window_size));
}`;

interface SeenOptions extends Pick<WeightsOptions, "scale" | "softcap" | "queryOffset"> {
  readonly causal: boolean;
  readonly bias?: Tensor;
  /** Keys of each batch entry. */
  readonly keys: readonly number[];
  /** Keys that a query sees, its own included; there is no bound unless it is above 0. */
  readonly windowSize: number;
}

/** Computes the scores [B, H, S, T] f32. */
export function scoresOfSeen(
  call: Call,
  { q, k }: { readonly q: Tensor; readonly k: Tensor },
  { bias, keys, windowSize, causal, scale, softcap, queryOffset }: SeenOptions,
): Promise<Tensor> {
  const captures = {
    lengths: call.make([keys.length], "i32", { data: keys }),
    window_size: { i32: windowSize },
    is_causal: { u32: Number(causal) },
    ...biasCaptures(bias ?? call.make([1, 1, 1, 1])),
  };
  return weightsOf(
    call,
    { q, k },
    {
      ...(scale && { scale }),
      ...(softcap && { softcap }),
      ...(queryOffset && { queryOffset }),
      scoreFunction: scoreFunction(SEEN, { captures, label: `${call.label} output_qk` }),
      stage: "scores",
    },
  );
}

function biasCaptures(bias: Tensor) {
  const [b, h, m, n] = bias.shape.map((size, axis) => ({ u32: size > 1 ? bias.strides[axis] : 0 }));
  const { whole, first } = captured(bias, "f32");
  return { bias: whole, first: { u32: first }, step_b: b, step_h: h, step_m: m, step_n: n };
}
