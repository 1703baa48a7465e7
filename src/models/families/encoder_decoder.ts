// What models of two stacks have in common: an encoder, and a decoder whose queries see the rows of
// the encoder, too.

import type { Graph } from "../../training/graph.ts";
import { type AttentionSettings, attention } from "../../training/operations/attention.ts";
import type { Value } from "../../training/value.ts";
import type { RunSizes } from "../definition.ts";
import { rowsOf, textInputs } from "./rows.ts";

/** Keys and values, [B, H, N, D] each. */
export interface SeenRows {
  readonly k: Value;
  readonly v: Value;
}

/** The rows that queries of a decoder see, of each kind: all of them, or what a cache has of them. */
export interface Seen {
  /** The decoder's own rows that a layer's queries see, from those that the run has itself. */
  own(layer: number, rows: SeenRows): SeenRows;
  /** The encoder's rows that they see. `project` computes them from the encoder's results. */
  cross(layer: number, project: () => SeenRows): SeenRows;
}

/** Whole texts: queries see the rows of this run. */
export const WHOLE: Seen = { own: (_, rows) => rows, cross: (_, project) => project() };

/** Rows [B, M, H D] of attention by queries [B, H, M, D]. */
export const attended = (q: Value, { k, v }: SeenRows, settings: AttentionSettings): Value =>
  rowsOf(attention(q, k, v, settings));

/** The inputs of the decoder; undefined if only the encoder runs. */
export function decoderInputs(
  graph: Graph,
  { batch, decoderRows: rows = 1, decoderMasked: masked = false }: RunSizes,
) {
  return rows === 0 ? undefined : textInputs(graph, { batch, rows, masked }, "decoder_");
}
