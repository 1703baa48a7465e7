// Which weights of a model become integers when they are loaded, and how.

import { check, show } from "../errors.ts";
import type { OptionNames } from "../given.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { quantiseInto } from "../operations/products/quantise.ts";
import {
  groupSizeFor,
  INTEGER_BITS,
  type IntegerDtype,
  type WeightQuantisation,
  wordsOf,
} from "../operations/products/weight_integers.ts";
import { takeOptions } from "../options.ts";
import type { Graph } from "../training/graph.ts";

/** How weights are stored on the GPU. */
export interface WeightOptions {
  /**
   * What weights of projections and embeddings become: integers with scales, a tensor at a time.
   * Norms, biases, and weights whose rows are no multiple of 8 long stay as they are.
   */
  readonly dtype: IntegerDtype;
  /**
   * The most channels of a row that share a scale, from 8 up; a row has the largest multiple of 8
   * that divides its length. Default 128 for int8, 32 for int4.
   */
  readonly groupSize?: number;
}

const WEIGHT_OPTIONS: OptionNames<WeightOptions> = { dtype: "string", groupSize: "number" };

/** Checks the options. Throws FoveaError("argument"). */
export function checkedWeightOptions(given: WeightOptions): WeightOptions {
  const { dtype, groupSize } = takeOptions("load: weights", given, WEIGHT_OPTIONS);
  check(
    dtype !== undefined && Object.hasOwn(INTEGER_BITS, dtype),
    "argument",
    () => `load: weights.dtype must be "int8" or "int4", got ${show(dtype)}.`,
  );
  check(
    groupSize === undefined || (Number.isSafeInteger(groupSize) && groupSize >= 8),
    "argument",
    () => `load: weights.groupSize must be a whole number from 8 up, got ${show(groupSize)}.`,
  );
  return { dtype, ...(groupSize !== undefined && { groupSize }) };
}

/** How the integers of a weight lie. */
export interface WeightPlace {
  readonly quantised: WeightQuantisation;
  /** [N, K] of the projection. */
  readonly shape: readonly [rows: number, inner: number];
  /** Whether the file has it as [K, N]. */
  readonly turned: boolean;
}

/**
 * The weights of a graph that may be integers, by their names: those that only `linear` and
 * `embedding` read, as rows.
 */
export function integerPlaces(
  graph: Graph,
  { dtype, groupSize: most }: WeightOptions,
): ReadonlyMap<string, WeightPlace> {
  const places = new Map<string, WeightPlace>();
  for (const [name, { value }] of graph.parameters) {
    const uses = graph.nodes.flatMap(({ inputs, integers }) =>
      inputs
        .filter(({ memory }) => memory === value.memory)
        .map((used) => ({ used, isWeight: used === integers })),
    );
    const isTurned = ({ used }: (typeof uses)[number]) => used.strides[1] !== 1;
    const turned = uses.length > 0 && isTurned(uses[0]);
    const isMatrix = value.shape.length === 2;
    const isRead = uses.every(
      (use) => use.isWeight && use.used.isWhole && isTurned(use) === turned,
    );
    if (!isMatrix || !isRead || uses.length === 0) continue;
    const [first, second] = value.shape;
    const shape = turned ? ([second, first] as const) : ([first, second] as const);
    const groupSize = groupSizeFor(dtype, shape[1], most);
    if (groupSize) places.set(name, { quantised: { dtype, groupSize }, shape, turned });
  }
  return places;
}

/** The shape of a weight's words. */
export const shapeOfWords = ({ quantised, shape: [rows, inner] }: WeightPlace) => [
  rows,
  wordsOf(inner, { bits: INTEGER_BITS[quantised.dtype], group: quantised.groupSize }),
];

/** Makes the integers of a weight that lies on the GPU as the file has it. */
export const storeIntegers = (from: Tensor, into: Tensor, { quantised, turned }: WeightPlace) =>
  quantiseInto(turned ? from.permute(1, 0) : from, into, quantised);
