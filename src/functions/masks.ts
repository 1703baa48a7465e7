// Ready mask functions. Each is a few lines of WGSL in the form of a user's function, and may serve
// as a pattern for one. Numbers and arrays are captured, so that other values never compile
// anything again.

import { check } from "../errors.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { checkArray, whole } from "./checks.ts";
import { type Captures, type MaskFunction, maskFunction } from "./functions.ts";

const INTEGERS = ["i32", "u32"] as const;

const mask = (label: string, text: string, captures: Captures = {}): MaskFunction =>
  maskFunction(`fn mask(at: Position) -> bool {\n${text}\n}`, { captures, label });

/**
 * A query at position p sees the keys 0..p. The option `causal: true` does the same without looking
 * at single keys; this function is for block masks and for {@link allOf} and {@link anyOf}.
 *
 * @example
 * const blockMask = await createBlockMask(device, causalMask(), { seqQ: 4096, seqKv: 4096 });
 */
export const causalMask = (): MaskFunction =>
  mask("causalMask", "  return i32(at.kv_idx) <= at.position;");

/**
 * A query at position p sees the keys p - left .. p + right; -1 means no bound. It is the option
 * `window` as a function. Source: Longformer (arXiv 2004.05150), section 3.1.
 *
 * @example
 * const local = slidingWindow(255, 0); // the last 256 keys, its own included
 */
export function slidingWindow(left: number, right: number): MaskFunction {
  const captures = {
    window_left: whole("slidingWindow: left", left, -1),
    window_right: whole("slidingWindow: right", right, -1),
  };
  const text = `  let ahead = i32(at.kv_idx) - at.position;
  return (window_left < 0 || ahead >= -window_left) && (window_right < 0 || ahead <= window_right);`;
  return mask("slidingWindow", text, captures);
}

/**
 * A query sees the keys of its own chunk of `size` positions: floor(j / size) = floor(p / size). It
 * is the option `attentionChunk` as a function. Source: the chunked attention of Llama 4.
 *
 * @example
 * const chunks = allOf(causalMask(), chunkMask(8192));
 */
export function chunkMask(size: number): MaskFunction {
  const text =
    "  return at.position >= 0 && i32(at.kv_idx) / chunk_size == at.position / chunk_size;";
  return mask("chunkMask", text, { chunk_size: whole("chunkMask: size", size, 1) });
}

/**
 * Causal, but every query sees the first `prefix` keys. Source: Exploring the Limits of Transfer
 * Learning (arXiv 1910.10683), section 3.2.1.
 *
 * @param prefix Keys of the prefix, for all batch entries, or [B] i32 (or u32) on the GPU with one
 *   number each.
 *
 * @example
 * // 196 patches, then text
 * const { output } = await attention(q, k, v, { maskFunction: prefixLm(196) });
 */
export function prefixLm(prefix: number | Tensor): MaskFunction {
  const after = "|| i32(at.kv_idx) <= at.position;";
  if (typeof prefix === "number") {
    const captures = { prefix_length: whole("prefixLm: prefix", prefix, 0) };
    return mask("prefixLm", `  return i32(at.kv_idx) < prefix_length ${after}`, captures);
  }
  checkArray("prefixLm: prefix", prefix, INTEGERS, ["[B]"]);
  const text = `  return i32(at.kv_idx) < i32(prefix_lengths[at.batch]) ${after}`;
  return mask("prefixLm", text, { prefix_lengths: prefix });
}

/**
 * A query sees the keys of its own document: those with the same id. For texts that are packed into
 * one row.
 *
 * A block mask of ids [B, N] needs `batch: B`.
 *
 * @param ids Documents of the keys, i32 or u32, [N], or [B, N] for each batch entry. A query has
 *   the document of the key at its position; a query that stands before the first key or after the
 *   last one sees none.
 * @param queryIds Documents of the queries, [M] or [B, M], if they are not those of the keys, as in
 *   cross attention.
 *
 * @example
 * const ids = tensor(device, [6], { dtype: "i32", data: [0, 0, 0, 1, 1, 2] });
 * const { output } = await attention(q, k, v, {
 *   maskFunction: allOf(causalMask(), documentMask(ids)),
 * });
 */
export function documentMask(ids: Tensor, queryIds?: Tensor): MaskFunction {
  checkArray("documentMask: ids", ids, INTEGERS, ["[N]", "[B, N]"]);
  const element = (name: string, { shape }: Tensor, count: string, index: string) =>
    `${name}[${shape.length === 2 ? `at.batch * ${count} + ` : ""}${index}]`;
  const key = element("document_ids", ids, "document_keys", "at.kv_idx");
  const captures = { document_ids: ids, document_keys: { u32: ids.shape[ids.shape.length - 1] } };
  if (!queryIds) {
    const own = element("document_ids", ids, "document_keys", "u32(at.position)");
    const text = `  if (at.position < 0 || max(u32(at.position), at.kv_idx) >= document_keys) {
    return false;
  }
  return ${key} == ${own};`;
    return mask("documentMask", text, captures);
  }
  checkArray("documentMask: queryIds", queryIds, [ids.dtype], ["[M]", "[B, M]"]);
  const query = element("document_query_ids", queryIds, "document_queries", "at.q_idx");
  const text = `  return at.kv_idx < document_keys && at.q_idx < document_queries && ${key} == ${query};`;
  const queries = { u32: queryIds.shape[queryIds.shape.length - 1] };
  return mask("documentMask", text, {
    ...captures,
    document_query_ids: queryIds,
    document_queries: queries,
  });
}

/**
 * A query at position p sees every `dilation`-th key up to `reach` keys away, on both sides: |p -
 * j| <= reach and p - j a multiple of `dilation`. Source: Longformer (arXiv 2004.05150), figure 2c.
 *
 * @example
 * const sparse = allOf(causalMask(), dilatedWindow(512, 4)); // 128 keys before its own
 */
export function dilatedWindow(reach: number, dilation: number): MaskFunction {
  const captures = {
    dilated_reach: whole("dilatedWindow: reach", reach, 0),
    dilated_step: whole("dilatedWindow: dilation", dilation, 1),
  };
  const text = `  let distance = abs(i32(at.kv_idx) - at.position);
  return distance <= dilated_reach && distance % dilated_step == 0;`;
  return mask("dilatedWindow", text, captures);
}

/**
 * A sliding window, and some tokens that see all tokens and that all tokens see: the first
 * `globals` keys, and the queries at the first `globals` positions. Source: Longformer (arXiv
 * 2004.05150), figure 2d.
 *
 * @example
 * const longformer = globalWindow(1, 256, 256); // the class token and a window
 */
export function globalWindow(globals: number, left: number, right: number): MaskFunction {
  const captures = {
    global_tokens: whole("globalWindow: globals", globals, 0),
    global_left: whole("globalWindow: left", left, -1),
    global_right: whole("globalWindow: right", right, -1),
  };
  const text = `  let ahead = i32(at.kv_idx) - at.position;
  let is_global = i32(at.kv_idx) < global_tokens
    || (at.position >= 0 && at.position < global_tokens);
  return is_global || ((global_left < 0 || ahead >= -global_left) && (global_right < 0 || ahead <= global_right));`;
  return mask("globalWindow", text, captures);
}

/**
 * Tokens are the cells of a grid, row by row, and a query sees the `kernel` x `kernel` cells around
 * its own. At a border the square moves inwards, so that every query sees as many. An even kernel
 * reaches one cell further back. Positions outside the grid see nothing, and nothing sees them.
 *
 * Source: Neighborhood Attention Transformer (arXiv 2204.07143).
 *
 * @param width Cells of a row; at least `kernel`.
 * @param height Rows; at least `kernel`.
 *
 * @example
 * const blockMask = await createBlockMask(device, neighborhood2d(56, 56, 7), {
 *   seqQ: 56 * 56,
 *   seqKv: 56 * 56,
 * });
 */
export function neighborhood2d(width: number, height: number, kernel: number): MaskFunction {
  const captures = {
    grid_width: whole("neighborhood2d: width", width, 1),
    grid_height: whole("neighborhood2d: height", height, 1),
    grid_kernel: whole("neighborhood2d: kernel", kernel, 1),
  };
  check(
    kernel <= width && kernel <= height,
    "argument",
    () =>
      `neighborhood2d: a kernel of ${kernel} x ${kernel} does not fit a grid of ${width} x ${height}.`,
  );
  const text = `  let size = vec2i(grid_width, grid_height);
  let cell = vec2i(at.position % grid_width, at.position / grid_width);
  let key = vec2i(i32(at.kv_idx) % grid_width, i32(at.kv_idx) / grid_width);
  let begin = clamp(cell - grid_kernel / 2, vec2i(), size - grid_kernel);
  let is_cell = at.position >= 0 && cell.y < grid_height;
  return is_cell && all(key >= begin) && all(key < begin + grid_kernel);`;
  return mask("neighborhood2d", text, captures);
}
