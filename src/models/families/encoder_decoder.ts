// What models of two stacks have in common: an encoder, and a decoder whose queries see the rows of
// the encoder, too.

import type { Graph } from "../../training/graph.ts";
import type { AttentionSettings } from "../../training/operations/attention.ts";
import type { Value } from "../../training/value.ts";
import { type Attend, attendRows, type RunSizes, type SeenRows } from "../definition.ts";
import { rowsOf, textInputs } from "./rows.ts";

/** Rows [B, M, H D] of attention by queries [B, H, M, D]; over a cache, those of the decoder. */
export const attended = (
  q: Value,
  { k, v }: SeenRows,
  settings: AttentionSettings,
  layer = 0,
  attend: Attend = attendRows,
): Value => rowsOf(attend(layer, q, k, v, settings));

/** The inputs of the decoder; undefined if only the encoder runs. */
export function decoderInputs(
  graph: Graph,
  { batch, decoderRows: rows = 1, decoderMasked: masked = false }: RunSizes,
) {
  return rows === 0 ? undefined : textInputs(graph, { batch, rows, masked }, "decoder_");
}
