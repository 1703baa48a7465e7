// Rows of tables by their numbers.

import type { OptionNames } from "../../given.ts";
import { planEmbedding } from "../../operations/tables/embedding.ts";
import { planEmbeddingBackward } from "../../operations/tables/embedding_backward.ts";
import { graphOf, takeSettings } from "../arguments.ts";
import type { Value } from "../value.ts";

/** Options of {@link embedding}. */
export interface EmbeddingSettings {
  /** Factor of the rows. Default 1. */
  readonly scale?: number;
  /** A row that gets no gradient, as the one that pads sequences. Default none. */
  readonly paddingId?: number;
}

const SETTINGS: OptionNames<EmbeddingSettings> = { scale: "number", paddingId: "number" };

/**
 * The rows of a table that ids tell.
 *
 * @param ids [...] i32 or u32; one that the table has no row for gives zeros
 * @param weight [V, E]; frozen ones may be f16, bf16, int8 or int4
 * @returns [..., E]
 */
export function embedding(ids: Value, weight: Value, settings: EmbeddingSettings = {}): Value {
  const graph = graphOf("embedding", { ids, weight });
  const { scale = 1, paddingId } = takeSettings("embedding", settings, SETTINGS);
  const output = graph.computed("embedding", [...ids.shape, weight.shape[1]], [weight]);
  const { quantised } = weight;
  graph.add({
    label: "embedding",
    inputs: [ids, weight],
    outputs: [output],
    integers: weight,
    plan: (device, at) =>
      planEmbedding(device, {
        weight: at(weight),
        ...(quantised && { quantised }),
        ids: at(ids),
        scale,
        output: at(output),
      }),
    gradient({ of, into }) {
      const dOutput = of(output);
      if (!dOutput) return;
      const dWeight = into(weight);
      graph.add({
        label: "embedding backward",
        inputs: [ids, weight, dOutput],
        outputs: [dWeight],
        plan: (device, at) =>
          planEmbeddingBackward(device, {
            weight: at(weight),
            ids: at(ids),
            scale,
            dOutput: at(dOutput),
            dWeight: at(dWeight),
            ...(paddingId !== undefined && { paddingId }),
          }),
      });
    },
  });
  return output;
}
