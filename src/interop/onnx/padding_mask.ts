// The masks of com.microsoft's attention operators: keys that are padding get a finite value added to their scores, so
// that a query whose keys are all padding attends to them as if none were.

import { type ScoreFunction, scoreFunction, Tensor, tensor } from "../../index.ts";
import type { OnnxCall, OnnxInput } from "./operator.ts";

/** What helpers of several operators need of a call. */
export type Call = Pick<OnnxCall, "device" | "label" | "expect" | "make" | "own">;

/** What a mask is for: B entries, S queries, and T keys, of which P come from the past. */
export interface MaskSizes {
  readonly batch: number;
  readonly queries: number;
  readonly past: number;
  readonly total: number;
}

/** Added to the score of a key that is padding, unless `mask_filter_value` says otherwise. */
export const FILTER_VALUE = -10_000;

/** A value other than 0, or one above it, means that the key counts. */
const OF_KEYS = `fn score(s: f32, at: Position) -> f32 {
  let key = at.kv_idx - min(at.kv_idx, first_key);
  let index = first + at.batch * batch_step + at.q_idx * query_step + key * key_step;
  let counts = at.kv_idx < first_key || is_set(index);
  return select(s + filter_value, s, counts);
}`;
const WORDS = `${OF_KEYS}
fn is_set(index: u32) -> bool { return mask_values[index] > 0; }`;
/** Four bytes a word; \`set_means\` is 1 where other than 0 means that the key counts, 0 where it means padding. */
const BYTES = `${OF_KEYS}
fn is_set(index: u32) -> bool {
  let byte = (mask_values[index / 4u] >> (8u * (index % 4u))) & 255u;
  return u32(byte != 0u) == set_means;
}`;
/** Keys from a begin, if there is one, up to an end. */
const RANGES = `fn score(s: f32, at: Position) -> f32 {
  let key = i32(at.kv_idx);
  let begin = select(0, ranges[begins + at.batch * step], has_begins > 0u);
  let end = ranges[ends + at.batch * step];
  return select(s + filter_value, s, key >= begin && key < end);
}`;

interface MaskOptions {
  /** Default -10000. */
  readonly filterValue?: number | undefined;
  /** What is set is padding, instead of what is not. Only for masks of bytes. */
  readonly ignored?: boolean;
}

/**
 * A mask as a function of the scores. By shape: ends of the keys [B]; ends and begins [2B]; lengths and the starts of
 * padded rows [3B + 2]; keys [B, T], or [B, L] of the new ones; scores [B, S, T], or [B, 1, N, N] for a sequence of up to
 * N tokens. [B, 1] and [1, 1] for more than one key mask nothing. i32, or u8 for all but the first three; numbers are
 * one of those.
 */
export function paddingMask(
  call: Call,
  name: string,
  given: OnnxInput,
  sizes: MaskSizes,
  { filterValue = FILTER_VALUE, ignored = false }: MaskOptions = {},
): ScoreFunction | undefined {
  if (!given) return undefined;
  const mask = given instanceof Tensor ? given : call.make([given.length], "i32", { data: given });
  const { shape, dtype } = mask;
  const { batch, queries, past, total } = sizes;
  const is = (...expected: number[]) =>
    shape.length === expected.length && expected.every((size, axis) => size === shape[axis]);
  const { label } = call;
  const filter_value = filterValue;
  const bytes = dtype === "u8";
  call.expect(dtype === "i32" || (bytes && shape.length > 1), () => `${name} must be i32, got ${dtype} [${shape}]`);
  if (shape.length === 1 && [batch, 2 * batch, 3 * batch + 2].includes(shape[0])) {
    const [step] = mask.strides;
    const begins = shape[0] === 2 * batch && batch > 0;
    const u32 = Object.fromEntries(
      Object.entries({
        ...{ step, ends: mask.offset, begins: mask.offset + (begins ? batch * step : 0) },
        has_begins: Number(begins),
      }).map(([key, value]) => [key, { u32: value }]),
    );
    const ranges = wholeBuffer(mask, "i32");
    return scoreFunction(RANGES, { captures: { ranges, ...u32, filter_value }, label: `${label} ${name}` });
  }
  const [b, m, n, firstRow, firstKey] = stepsOf(mask, sizes, is);
  call.expect(
    b !== undefined,
    () =>
      `${name} must be [B], [2B], [3B + 2], [B, T], [B, L], [B, S, T] or [B, 1, N, N] with N >= T, for B = ${batch}, S = ${queries}, L = ${total - past}, T = ${total}; got [${shape}]`,
  );
  if (n === 0 && total > 1) return undefined;
  const captures = {
    first: { u32: mask.offset + firstRow * m },
    first_key: { u32: firstKey },
    ...{ batch_step: { u32: b }, query_step: { u32: m }, key_step: { u32: n }, filter_value },
    mask_values: wholeBuffer(mask, bytes ? "u32" : "i32"),
    ...(bytes && { set_means: { u32: ignored ? 0 : 1 } }),
  };
  return scoreFunction(bytes ? BYTES : WORDS, { captures, label: `${label} ${name}` });
}

/** Steps from entry to entry, query to query and key to key; the row of the first query, and the first key. */
function stepsOf(
  { shape, strides }: Tensor,
  { batch, queries, past, total }: MaskSizes,
  is: (...expected: number[]) => boolean,
): readonly number[] {
  if (is(batch, total)) return [strides[0], 0, strides[1], 0, 0];
  if (is(batch, total - past)) return [strides[0], 0, strides[1], 0, past];
  if (is(batch, 1) || is(1, 1)) return [0, 0, 0, 0, 0];
  if (is(batch, queries, total)) return [...strides, 0, 0];
  const longest = shape[3];
  if (is(batch, 1, longest, longest) && longest >= total) {
    return [strides[0], strides[2], strides[3], total - queries, 0];
  }
  return [];
}

/** All of a tensor's buffer: functions count from its start, whatever the offset of a view is. */
function wholeBuffer({ device, buffer, label }: Tensor, dtype: "i32" | "u32"): Tensor {
  return tensor(device, [Math.floor(buffer.size / 4)], { buffer, dtype, label });
}
