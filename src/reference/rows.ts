// The place of a row of the results, and the run of keys that lengths, causality, window and chunk
// leave to it.

import type { ReferenceOptions, ReferencePosition } from "./options.ts";

/** One query of one head. All members but `qRow` and `keyRow` count within the batch entry. */
export interface Row {
  /** Its number in [B, H, M], packed in [1, H, totalQ]. */
  readonly number: number;
  readonly entry: number;
  readonly head: number;
  readonly query: number;
  readonly position: number;
  /** Index of q, k and v along their batch axis: 0 if entries are packed. */
  readonly batch: number;
  /** The query's row in q. */
  readonly qRow: number;
  /** The row of the entry's first key in k and v. */
  readonly keyRow: number;
  /** Used keys of the entry. */
  readonly keys: number;
  /** The first key that the row may see; 0 if there are sink tokens. */
  readonly begin: number;
  /**
   * The first key that window and chunk leave. Keys between the sink tokens and this one are
   * hidden.
   */
  readonly windowBegin: number;
  /** One past the last key that the row may see; not before `begin`. */
  readonly end: number;
}

/** The rows of a problem. */
export interface Rows {
  /** The rows that are asked for, in the order of the results. */
  readonly numbers: ArrayLike<number>;
  /** Keys of the longest entry, used or not. */
  readonly maxKeys: number;
  /** Gives the row of a number; undefined if no entry owns it or the entry doesn't use it. */
  find(number: number): Row | undefined;
}

interface Entry {
  readonly batch: number;
  readonly qRow: number;
  readonly queries: number;
  readonly keyRow: number;
  readonly keys: number;
  /** Position of the entry's query 0. */
  readonly offset: number;
}

/** @param sizes B, H, M of q and N of k; packed M and N are the totals. */
export function rowsOf([B, H, M, N]: readonly number[], options: ReferenceOptions): Rows {
  const { cuSeqlensQ, cuSeqlensKv } = options;
  const count = cuSeqlensQ ? Math.max(cuSeqlensQ.length - 1, 0) : B;
  const entries = Array.from({ length: count }, (_, b) => entryOf(b, M, N, options));
  const owners = cuSeqlensQ && ownersOf(cuSeqlensQ, M);
  const lengths =
    cuSeqlensKv && Array.from({ length: count }, (_, b) => cuSeqlensKv[b + 1] - cuSeqlensKv[b]);

  function find(number: number): Row | undefined {
    const qRow = number % M;
    const head = Math.floor(number / M) % H;
    const index = owners ? owners[qRow] : Math.floor(number / (M * H));
    const entry = entries[index];
    const query = qRow - entry?.qRow;
    if (!entry || query >= entry.queries) return undefined;
    const position = query + entry.offset;
    const { batch, keyRow, keys } = entry;
    const seen = keysSeen(position, keys, options);
    return { number, entry: index, head, query, position, batch, qRow, keyRow, keys, ...seen };
  }
  const numbers = options.rows ?? Array.from({ length: B * H * M }, (_, number) => number);
  return { numbers, maxKeys: lengths?.reduce((a, b) => Math.max(a, b), 0) ?? N, find };
}

/** The place of a score, as user functions get it. */
export const positionOf = (row: Row, key: number): ReferencePosition => ({
  batch: row.entry,
  head: row.head,
  qIdx: row.query,
  kvIdx: key,
  position: row.position,
});

function entryOf(b: number, M: number, N: number, options: ReferenceOptions): Entry {
  const { causal, queryOffset, qLengths, kvLengths, cuSeqlensQ, cuSeqlensKv } = options;
  const [qRow, qEnd] = cuSeqlensQ ? [cuSeqlensQ[b], cuSeqlensQ[b + 1]] : [0, M];
  const [keyRow, keyEnd] = cuSeqlensKv ? [cuSeqlensKv[b], cuSeqlensKv[b + 1]] : [0, N];
  const queries = clamp(qLengths?.[b] ?? Number.POSITIVE_INFINITY, 0, qEnd - qRow);
  const keys = clamp(kvLengths?.[b] ?? Number.POSITIVE_INFINITY, 0, keyEnd - keyRow);
  const aligned = causal === "top-left" ? 0 : keys - queries;
  const offset = typeof queryOffset === "number" ? queryOffset : (queryOffset?.[b] ?? aligned);
  return { batch: cuSeqlensQ ? 0 : b, qRow, queries, keyRow, keys, offset };
}

/** The entry of each packed query, -1 for queries of no entry. */
function ownersOf(cuSeqlens: ArrayLike<number>, total: number): Int32Array {
  const owners = new Int32Array(total).fill(-1);
  for (let b = 0; b + 1 < cuSeqlens.length; b++) owners.fill(b, cuSeqlens[b], cuSeqlens[b + 1]);
  return owners;
}

function keysSeen(position: number, keys: number, options: ReferenceOptions) {
  const { causal = false, window, attentionChunk, sinkTokens } = options;
  const [left, right] = window ?? [-1, -1];
  let begin = 0;
  let end = keys;
  if (causal) end = Math.min(end, position + 1);
  if (left >= 0) begin = Math.max(begin, position - left);
  if (right >= 0) end = Math.min(end, position + right + 1);
  if (attentionChunk) {
    const chunk = Math.floor(position / attentionChunk) * attentionChunk;
    begin = Math.max(begin, chunk);
    end = Math.min(end, chunk + attentionChunk);
  }
  const first = sinkTokens ? 0 : begin;
  return { begin: first, windowBegin: begin, end: Math.max(first, end) };
}

const clamp = (x: number, low: number, high: number) => Math.min(Math.max(x, low), high);
