// What a family says of a model: its inputs, its computation, and the names of its weights.

import type { Graph } from "../training/graph.ts";
import type { Batch } from "../training/program.ts";
import type { Value } from "../training/value.ts";

/**
 * The weight of a name and shape. `plus` is added to its elements when they are loaded, as families
 * ask whose norms multiply by 1 + w.
 */
export type Weight = (name: string, shape: readonly number[], plus?: number) => Value;

/** What a run of a model is asked for beside its results. */
export interface Asked {
  /** Whether the rows after each layer are results, too. */
  readonly hidden?: boolean;
  /** Layers whose probabilities of attention are results, too. */
  readonly attention?: readonly number[];
}

/** Sizes of a run: entries, and rows of each. */
export interface RunSizes {
  readonly batch: number;
  readonly rows: number;
  /** Whether some keys are hidden by a mask. */
  readonly masked: boolean;
}

/** What a model is given: ids of tokens for texts, pixels for pictures. */
export interface ModelInputs {
  /** Ids of the tokens of each entry, padded to one length. */
  readonly ids?: readonly (readonly number[])[];
  /** 1 for each token that counts, 0 for padding. Default 1. */
  readonly mask?: readonly (readonly number[])[];
  /** Which of two texts each token belongs to, for encoders that take pairs. Default 0. */
  readonly types?: readonly (readonly number[])[];
  /** [B, C, H, W], as they enter the model. */
  readonly pixels?: { readonly shape: readonly number[]; readonly data: ArrayLike<number> };
}

/** Inputs as programs take them. */
export interface Prepared {
  readonly sizes: RunSizes;
  readonly batch: Batch;
}

/** Values by the names of results. */
export type Results = Readonly<Record<string, Value>>;

/** A model as its config describes it. */
export interface Definition {
  readonly family: string;
  /** How many layers it has, whose rows and probabilities can be asked for. */
  readonly layers: number;
  /** The most rows of an entry. */
  readonly mostRows: number;
  /** The name of a weight by its name in files; undefined for what is not needed. */
  nameOf(inFile: string): string | undefined;
  /** Throws FoveaError("argument") for inputs that the model does not take. */
  prepare(inputs: ModelInputs): Prepared;
  define(graph: Graph, weight: Weight, sizes: RunSizes, asked: Asked): Results;
}
