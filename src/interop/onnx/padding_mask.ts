// The masks of com.microsoft's attention operators: keys that are padding get a finite value added
// to their scores, so that a query whose keys are all padding attends to them as if none were.

import { type ScoreFunction, scoreFunction, Tensor, tensor } from "../../index.ts";
import type { OnnxCall } from "./operator.ts";

/** The members of a call that helpers of several operators need. */
export type Call = Pick<OnnxCall, "device" | "label" | "expect" | "make" | "own">;

/**
 * The sizes that a mask is for: B entries, S queries, and T keys, of which P come from the past.
 */
export interface MaskSizes {
  readonly batch: number;
  readonly queries: number;
  readonly past: number;
  readonly total: number;
}

/** Added to the score of a key that is padding, unless `mask_filter_value` says otherwise. */
const FILTER_VALUE = -10_000;

/** A mask of one value for each key: other than 0, or above 0, means that the key counts. */
const OF_KEYS = `fn score(s: f32, at: Position) -> f32 {
  let key = at.kv_idx - min(at.kv_idx, first_key);
  let index = first + at.batch * batch_step + at.q_idx * query_step + key * key_step;
  let counts = at.kv_idx < first_key || is_set(index);
  return select(s + filter_value, s, counts);
}`;
const WORDS = `${OF_KEYS}
fn is_set(index: u32) -> bool { return mask_values[index] > 0; }`;
/**
 * Four bytes a word; \`set_means\` is 1 where other than 0 means that the key counts, 0 where it
 * means padding.
 */
const BYTES = `${OF_KEYS}
fn is_set(index: u32) -> bool {
  let byte = (mask_values[index / 4u] >> (8u * (index % 4u))) & 255u;
  return u32(byte != 0u) == set_means;
}`;
/** A mask by ranges: keys count from a begin, if there is one, up to an end. */
const RANGES = `fn score(s: f32, at: Position) -> f32 {
  let key = i32(at.kv_idx);
  let begin = select(0, ranges[begins + at.batch * step], has_begins > 0u);
  let end = ranges[ends + at.batch * step];
  return select(s + filter_value, s, key >= begin && key < end);
}`;

interface MaskOptions {
  /** Added to the scores of padding. Default -10000. */
  readonly filterValue?: number | undefined;
  /** Whether set elements are padding, instead of the others. Only for masks of bytes. */
  readonly ignored?: boolean;
}

/**
 * A mask as a score function. Its shape says what it holds: ends of the keys [B]; ends and begins
 * [2B]; lengths and the starts of padded rows [3B + 2]; keys [B, T], or [B, L] of the new ones;
 * scores [B, S, T], or [B, 1, N, N] for a sequence of up to N tokens. [B, 1] and [1, 1] for more
 * than one key mask nothing. It is i32, or u8 for all but the first three, or numbers for these
 * three.
 */
export function paddingMask(
  call: Call,
  name: string,
  given: Tensor | readonly number[],
  sizes: MaskSizes,
  { filterValue = FILTER_VALUE, ignored = false }: MaskOptions = {},
): ScoreFunction | undefined {
  const mask = given instanceof Tensor ? given : call.make([given.length], "i32", { data: given });
  const { shape, dtype } = mask;
  const { batch, queries, past, total } = sizes;
  const label = `${call.label} ${name}`;
  const bytes = dtype === "u8";
  call.expect(
    dtype === "i32" || (bytes && shape.length > 1),
    () => `${name} must be i32, got ${dtype} [${shape}]`,
  );
  if (shape.length === 1 && [batch, 2 * batch, 3 * batch + 2].includes(shape[0])) {
    const { whole: ranges, first: ends } = captured(mask, "i32");
    const [step] = mask.strides;
    const hasBegins = shape[0] === 2 * batch;
    const places = {
      step,
      ends,
      begins: hasBegins ? ends + batch * step : 0,
      has_begins: Number(hasBegins),
    };
    return scoreFunction(RANGES, {
      captures: { ranges, ...integers(places), filter_value: filterValue },
      label,
    });
  }
  const steps = stepsOf(mask, sizes);
  call.expect(
    steps !== undefined,
    () =>
      `${name} must be [B], [2B], [3B + 2], [B, T], [B, L], [B, S, T] or [B, 1, N, N] with N >= T, for B = ${batch}, S = ${queries}, L = ${total - past}, T = ${total}; got [${shape}]`,
  );
  const { entry, query, key, firstQuery = 0, firstKey = 0 } = steps as MaskSteps;
  if (key === 0 && total > 1) return undefined;
  const { whole, first } = captured(mask, bytes ? "u32" : "i32");
  const captures = {
    ...integers({ first: first + firstQuery * query, first_key: firstKey }),
    ...integers({ batch_step: entry, query_step: query, key_step: key }),
    ...(bytes && integers({ set_means: ignored ? 0 : 1 })),
    mask_values: whole,
    filter_value: filterValue,
  };
  return scoreFunction(bytes ? BYTES : WORDS, { captures, label });
}

/**
 * Strides in elements; and the row of the mask for the first query, and the key of its first
 * column.
 */
interface MaskSteps {
  readonly entry: number;
  readonly query: number;
  readonly key: number;
  readonly firstQuery?: number;
  readonly firstKey?: number;
}

function stepsOf(
  { shape, strides }: Tensor,
  { batch, queries, past, total }: MaskSizes,
): MaskSteps | undefined {
  const is = (...expected: number[]) =>
    shape.length === expected.length && expected.every((size, axis) => size === shape[axis]);
  const ofKeys = { entry: strides[0], query: 0, key: strides[1] };
  if (is(batch, total)) return ofKeys;
  if (is(batch, total - past)) return { ...ofKeys, firstKey: past };
  if (is(batch, 1) || is(1, 1)) return { entry: 0, query: 0, key: 0 };
  if (is(batch, queries, total)) return { entry: strides[0], query: strides[1], key: strides[2] };
  const longest = shape[3];
  if (!is(batch, 1, longest, longest) || longest < total) return undefined;
  return { entry: strides[0], query: strides[2], key: strides[3], firstQuery: total - queries };
}

const integers = (values: Readonly<Record<string, number>>) =>
  Object.fromEntries(Object.entries(values).map(([name, value]) => [name, { u32: value }]));

/**
 * A tensor as functions capture it: its words from the last possible start of a binding on, and the
 * offset of its first element from there, in its own elements.
 */
export function captured(
  { device, buffer, offset, shape, strides, dtype, label }: Tensor,
  as: "f32" | "i32" | "u32",
): { readonly whole: Tensor; readonly first: number } {
  const bytes = dtype === "u8" ? 1 : 4;
  const step = device.limits.minStorageBufferOffsetAlignment / bytes;
  const first = offset % step;
  const extent = shape.includes(0)
    ? 0
    : shape.reduce((most, size, axis) => most + (size - 1) * strides[axis], 1);
  const words = Math.ceil(((first + extent) * bytes) / 4);
  const whole = tensor(device, [words], {
    buffer,
    offset: ((offset - first) * bytes) / 4,
    dtype: as,
    label,
  });
  return { whole, first };
}
