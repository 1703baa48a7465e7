// Ready score functions, in the form of a user's function; and the usual slopes of ALiBi.

import { check, show } from "../errors.ts";
import type { OptionNames } from "../given.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { takeOptions } from "../options.ts";
import { distanceBuckets, type RelativeBias } from "../positions/buckets.ts";
import { checkArray } from "./checks.ts";
import { makeFunction, type ScoreFunction, scoreFunction } from "./functions.ts";

/**
 * The usual slopes of ALiBi, one for each head: 2^(-max (h + 1) / H) if H is a power of two, and
 * otherwise the slopes for the power of two below H, followed by every second slope for the power
 * above it. Source: Press, Smith and Lewis (arXiv 2108.12409), and their code for other numbers of
 * heads.
 *
 * @param max The last head's slope is 2^-max. Default 8.
 *
 * @example
 * const { output } = await attention(q, k, v, { causal: true, alibiSlopes: alibiSlopes(12) });
 */
export function alibiSlopes(heads: number, max = 8): number[] {
  check(
    Number.isInteger(heads) && heads >= 1 && heads < 2 ** 29,
    "argument",
    () => `alibiSlopes: heads must be a whole number from 1 to 2^29 - 1, got ${show(heads)}.`,
  );
  check(
    Number.isFinite(max),
    "argument",
    () => `alibiSlopes: max must be a finite number, got ${show(max)}.`,
  );
  const power = 2 ** Math.floor(Math.log2(heads));
  const ofPower = (count: number) =>
    Array.from({ length: count }, (_, head) => 2 ** ((-max * (head + 1)) / count));
  const between = ofPower(2 * power).filter((_, head) => head % 2 === 0);
  return [...ofPower(power), ...between.slice(0, heads - power)];
}

/**
 * ALiBi as a function: s - slope * |p - j|. The option `alibiSlopes` does the same; this function
 * is a pattern for your own biases. Source: arXiv 2108.12409.
 *
 * @param slopes [H] or [B, H] f32
 *
 * @example
 * const slopes = tensor(device, [12], { data: alibiSlopes(12) });
 * const { output } = await attention(q, k, v, { causal: true, scoreFunction: alibiScore(slopes) });
 */
export function alibiScore(slopes: Tensor): ScoreFunction {
  checkArray("alibiScore: slopes", slopes, ["f32"], ["[H]", "[B, H]"]);
  const perEntry = slopes.shape.length === 2;
  const index = `${perEntry ? "at.batch * alibi_heads + " : ""}at.head`;
  const source = `fn score(s: f32, at: Position) -> f32 {
  return s - alibi_slopes[${index}] * abs(f32(at.position - i32(at.kv_idx)));
}`;
  const gradient = `fn gradient(s: f32, at: Position) -> f32 {
  return 1.0;
}
fn index_alibi_slopes(at: Position) -> u32 {
  return ${index};
}
fn gradient_alibi_slopes(s: f32, at: Position) -> f32 {
  return -abs(f32(at.position - i32(at.kv_idx)));
}`;
  const captures = {
    alibi_slopes: slopes,
    ...(perEntry && { alibi_heads: { u32: slopes.shape[1] } }),
  };
  return scoreFunction(source, { captures, label: "alibiScore", gradient });
}

/** The relative bias of {@link t5Score}: its table is a tensor [buckets, H] f32. */
export interface T5Table extends Omit<RelativeBias, "table" | "buckets"> {
  readonly table: Tensor;
}

/** The names of the members. */
const T5_TABLE: OptionNames<T5Table> = {
  table: "any",
  bidirectional: "boolean",
  maxDistance: "number",
};

/**
 * T5's relative bias as a function: s + table[bucket of j - p][head]. The option `relativeBias`
 * does the same. The bounds of the buckets are part of the text: another number of them, or another
 * `maxDistance`, compiles again. Source: arXiv 1910.10683, section 2.1.
 *
 * @example
 * const table = tensor(device, [32, 12], { data: new Float32Array(32 * 12) });
 * const { output } = await attention(q, k, v, { scale: 1, scoreFunction: t5Score({ table }) });
 */
export function t5Score(given: T5Table): ScoreFunction {
  const {
    table,
    bidirectional = true,
    maxDistance = 128,
  } = takeOptions("t5Score", given, T5_TABLE);
  checkArray("t5Score: table", table, ["f32"], ["[buckets, H]"]);
  const { side, exact, behind } = distanceBuckets(
    "t5Score",
    { bidirectional, maxDistance },
    table.shape[0],
  );
  // The bucket grows by one at each of these distances.
  const steps = behind.flatMap((bucket, r) =>
    r > exact ? new Array<number>(bucket - behind[r - 1]).fill(r) : [],
  );
  const source = `fn t5_bucket(distance: i32) -> i32 {
  var bucket = min(distance, ${exact});
${steps.map((r) => `  bucket += i32(distance >= ${r});\n`).join("")}  return bucket;
}
fn t5_index(at: Position) -> u32 {
  let ahead = i32(at.kv_idx) - at.position;
  let bucket = ${bidirectional ? `t5_bucket(abs(ahead)) + select(0, ${side}, ahead > 0)` : "t5_bucket(max(-ahead, 0))"};
  return u32(bucket) * t5_heads + at.head;
}
fn score(s: f32, at: Position) -> f32 {
  return s + t5_table[t5_index(at)];
}`;
  const gradient = `fn gradient(s: f32, at: Position) -> f32 {
  return 1.0;
}
fn index_t5_table(at: Position) -> u32 {
  return t5_index(at);
}
fn gradient_t5_table(s: f32, at: Position) -> f32 {
  return 1.0;
}`;
  const captures = { t5_table: table, t5_heads: { u32: table.shape[1] } };
  return scoreFunction(source, { captures, label: "t5Score", gradient });
}

/**
 * cap * tanh(s / cap) as a function; the option `softcap` does the same. Source: Gemma 2 (arXiv
 * 2408.00118), section 2.
 *
 * @example
 * const { output } = await attention(q, k, v, { scoreFunction: softcapScore(50) });
 */
export function softcapScore(cap: number): ScoreFunction {
  check(
    Number.isFinite(cap) && cap > 0,
    "argument",
    () => `softcapScore: cap must be a positive number, got ${show(cap)}.`,
  );
  // `tanh_of` comes from lib/tanh, because the tanh of some GPUs has three digits, or is NaN for a
  // large x.
  const source =
    "fn score(s: f32, at: Position) -> f32 {\n  return softcap_limit * tanh_of(s / softcap_limit);\n}";
  const gradient = `fn gradient(s: f32, at: Position) -> f32 {
  let t = tanh_of(s / softcap_limit);
  return (1.0 - t) * (1.0 + t);
}
fn gradient_softcap_limit(s: f32, at: Position) -> f32 {
  let t = tanh_of(s / softcap_limit);
  return t - s / softcap_limit * ((1.0 - t) * (1.0 + t));
}`;
  const options = { captures: { softcap_limit: cap }, label: "softcapScore", gradient };
  return makeFunction("score", source, options, { library: { tanh_of: "package::lib::tanh" } });
}
