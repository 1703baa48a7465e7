// What a family says of a model: its inputs, its computation, and the names of its weights.

import type { Graph } from "../training/graph.ts";
import { type AttentionSettings, attention } from "../training/operations/attention.ts";
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
  /**
   * Whether encoders of texts give `mean_pooled`, the mean of the rows that count, and
   * `sentence_embedding`, the same with length 1, [B, width] each. Default false.
   */
  readonly sentence?: boolean;
  /** Layers whose probabilities of attention are results, too: those of the decoder, if there is one. */
  readonly attention?: readonly number[];
  /** Layers of a decoder whose probabilities over the rows of its encoder are results, too. */
  readonly crossAttention?: readonly number[];
  /** Layers of the encoder beside a decoder whose probabilities are results, too. */
  readonly encoderAttention?: readonly number[];
}

/** Sizes of a run: entries, and rows of each. */
export interface RunSizes {
  readonly batch: number;
  readonly rows: number;
  /** Whether some keys are hidden by a mask. */
  readonly masked: boolean;
  /** Rows of the decoder beside an encoder; 0 if only the encoder runs. Default 1. */
  readonly decoderRows?: number;
  /** The same as `masked` for the decoder's own rows. Default false. */
  readonly decoderMasked?: boolean;
  /** Tokens of an entry with those of earlier runs, on which some rotary embeddings depend. */
  readonly tokens?: number;
}

/**
 * The attention of a layer's rows: over these rows alone, or over a cache that has those of earlier
 * runs, too.
 */
export type Attend = (
  layer: number,
  q: Value,
  k: Value,
  v: Value,
  settings: AttentionSettings,
) => Value;

/** Attention over the rows of a run alone. */
export const attendRows: Attend = (_, q, k, v, settings) => attention(q, k, v, settings);

/** Keys and values, [B, H, N, D] each. */
export interface SeenRows {
  readonly k: Value;
  readonly v: Value;
}

/** What a decoder sees beside an encoder that has run before, in another program. */
export interface SeenSource {
  /** Keys and values of the encoder's rows, for a layer of the decoder. */
  rows(layer: number): SeenRows;
  /** [B, 1, 1, N] u8: which of these rows count. Undefined for all. */
  readonly mask: Value | undefined;
}

/** What a cache keeps of each layer. */
export interface CachedRows {
  readonly kvHeads: number;
  readonly headDim: number;
  /**
   * Tokens from which on all rows are others, also those that are cached, because the rotary
   * embedding changes. Undefined if it does not.
   */
  readonly changesPast?: number | undefined;
  /** The most tokens that rows can be cached of. Default: as many as the model takes. */
  readonly most?: number | undefined;
}

/** What a model is given: ids of tokens for texts, pixels for pictures, features or samples for sound. */
export interface ModelInputs {
  /** Ids of the tokens of each entry, padded to one length. */
  readonly ids?: readonly (readonly number[])[];
  /** 1 for each token that counts, 0 for padding. Default 1. */
  readonly mask?: readonly (readonly number[])[];
  /** Which of two texts each token belongs to, for encoders that take pairs. Default 0. */
  readonly types?: readonly (readonly number[])[];
  /** [B, C, H, W], as they enter the model. */
  readonly pixels?: { readonly shape: readonly number[]; readonly data: ArrayLike<number> };
  /** [B, bands, frames]: the logarithms of mel bands of each entry, as `logMel` gives them. */
  readonly features?: { readonly shape: readonly number[]; readonly data: ArrayLike<number> };
  /** In place of features: the samples of each entry at 16 kHz, from -1 to 1. */
  readonly audio?: readonly ArrayLike<number>[];
  /**
   * Ids of the decoder's tokens, for models that have an encoder and a decoder, padded to one
   * length. Default: only the encoder runs.
   */
  readonly decoderIds?: readonly (readonly number[])[];
  /** 1 for each token of the decoder that counts, 0 for padding. Default 1. */
  readonly decoderMask?: readonly (readonly number[])[];
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
  /** Layers of the encoder beside a decoder. Default: there is none. */
  readonly encoderLayers?: number;
  /** Whether embeddings of sentences can be asked for. Default false. */
  readonly hasSentences?: boolean;
  /** The most rows of an entry. */
  readonly mostRows: number;
  /** The ids of texts are below this. Undefined for models of no texts. */
  readonly vocab?: number | undefined;
  /** Ids that end a text. */
  readonly ends?: readonly number[];
  /** The id that texts begin with that have no prompt: those of a decoder beside an encoder. */
  readonly begins?: number;
  /** What is cached of rows, for models that go on from them. */
  readonly cached?: CachedRows;
  /** The name of a weight by its name in files; undefined for what is not needed. */
  nameOf(inFile: string): string | undefined;
  /** Throws FoveaError("argument") for inputs that the model does not take. */
  prepare(inputs: ModelInputs): Prepared;
  /** @param source With it there is only the decoder: `rows` of it, named `decoder_ids` and so on */
  define(
    graph: Graph,
    weight: Weight,
    sizes: RunSizes,
    asked: Asked,
    attend?: Attend,
    source?: SeenSource,
  ): Results;
  /**
   * Records what the layers of a decoder see of the encoder; for models that have both, which then
   * go on from what a cache has of the decoder.
   */
  source?(graph: Graph, weight: Weight, sizes: RunSizes): readonly SeenRows[];
}
