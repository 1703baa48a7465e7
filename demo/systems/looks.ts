// What layers of attention looked at, as pictures.

import type { Value } from "../../src/training/index.ts";
import type { Picture } from "./system.ts";

/** Collects the probabilities of each layer of a model while it is recorded, as outputs. */
export function watching() {
  const outputs: Record<string, Value> = {};
  const watch = (weights: Value) => {
    outputs[`layer${Object.keys(outputs).length}`] = weights;
  };
  return { outputs, watch };
}

/**
 * A map for each head of a layer.
 *
 * @param weights [heads, length, length]
 * @param labels What stands at the rows and columns that are shown
 * @param first The first row and column that are shown
 */
export function headMaps(
  weights: Float32Array,
  {
    heads,
    length,
    labels,
    first = 0,
  }: {
    readonly heads: number;
    readonly length: number;
    readonly labels: readonly string[];
    readonly first?: number;
  },
): Picture[] {
  return Array.from({ length: heads }, (_, head) => ({
    kind: "map",
    title: `Last layer, head ${head + 1}`,
    rows: labels,
    columns: labels,
    rowLabel: "looks",
    columnLabel: "at",
    weights: labels.map((_, row) => {
      const begin = (head * length + first + row) * length + first;
      return Array.from(weights.subarray(begin, begin + labels.length));
    }),
  }));
}
