// What a query and a key are compared by: their dot product, the cosine of their angle, or a layer of tanh between them.

import { check, show } from "../errors.ts";
import type { Numbers, OptionNames } from "../given.ts";
import { Tensor } from "../gpu/tensor.ts";
import type { SimilarityChoice } from "../kernels/slots.ts";
import { checkNames } from "../options.ts";
import type { PerHead, TakenScores } from "./options.ts";
import { checkNumbers, LARGEST, type Table } from "./tables.ts";

/** Numbers for each column of a row, [D], or for each head and column, [H, D]: an array, or an f32 tensor. */
export type PerColumn = Numbers | Tensor;

/**
 * Rows that are normalised before they meet (QK-norm):
 *
 * ```
 * q.k = sum_d qWeights_d q_d kWeights_d k_d / (|q| |k|)
 * |x| = max(sqrt(sum x_d^2), eps)  for "l2",   sqrt(mean x_d^2 + eps)  for "rms"
 * ```
 *
 * Rows may be of any length that f32 has numbers for, up to a head dim of 65,536; a row of zeros has the score 0. NaN and
 * infinities in a row are NaN in its scores.
 *
 * Sources: Query-Key Normalization (arXiv 2010.04245), Swin Transformer V2 (arXiv 2111.09883), RMSNorm (arXiv 1910.07467).
 */
export interface NormalizedSimilarity {
  readonly kind: "l2" | "rms";
  /** A positive number. Default 1e-12 for `"l2"`, 1e-6 for `"rms"`. */
  readonly eps?: number;
  /** Learned factors of the normalised columns, [D]. Default 1. */
  readonly qWeights?: PerColumn;
  readonly kWeights?: PerColumn;
}

/**
 * Additive attention (Bahdanau, arXiv 1409.0473), of rows that are projected already:
 *
 * ```
 * q.k = sum_d vector_d tanh(innerScale * (q_d + k_d) + innerBias_d)
 * ```
 *
 * tanh is computed to 2e-7, absolute.
 *
 * Keras' `AdditiveAttention` is `vector: scale`. Keras' `Attention` with `score_mode="concat"` is
 * `{ vector: concatWeight, innerScale: scale }`, each a number.
 */
export interface AdditiveSimilarity {
  readonly kind: "additive";
  /** [D] for all heads, [H, D], or one number for all columns. Default 1. */
  readonly vector?: number | PerColumn;
  /** [D] or [H, D]. Default none. */
  readonly innerBias?: PerColumn;
  /** Factor of q + k. Default 1. */
  readonly innerScale?: number;
  /**
   * The vector in use is gain * vector / |vector| for each head (arXiv 1602.07868; TensorFlow's `normalize=True`). A vector of
   * zeros stays one. Elements may be as large as 1e38 / D, for they are summed before they are divided.
   */
  readonly normalize?: boolean;
  /** Goes with `normalize`: a number, or one a head [H]. Default 1. */
  readonly gain?: number | PerHead;
}

/** What stands for q.k in the scores. `"cosine"` is `{ kind: "l2" }`. */
export type Similarity = "dot" | "cosine" | NormalizedSimilarity | AdditiveSimilarity;

/** Options that say what stands for q.k in the scores, and their temperature. */
export interface SimilarityOptions {
  /** What a query and a key are compared by. Default `"dot"`, their dot product. */
  readonly similarity?: Similarity;
  /** Learned factor of the scores of each head [H], beside the scale; or a number for all. Default 1. */
  readonly temperature?: number | PerHead;
  /** The same as its natural logarithm, as Swin Transformer V2 learns it: min(exp(logTemperature), maxTemperature). */
  readonly logTemperature?: number | PerHead;
  /** Goes with `logTemperature`; up to 2^64, as is a temperature. Default 100. */
  readonly maxTemperature?: number;
}

/** A checked similarity: the numbers that kernels take from the params, and what their text depends on. */
export type ResolvedSimilarity = {
  readonly eps: number;
  readonly innerScale: number;
  readonly maxTemperature: number;
  readonly temperature: "plain" | "log" | undefined;
} & ({ readonly kind: "dot" } | { readonly kind: SimilarityChoice["kind"]; readonly choice: SimilarityChoice });

interface Sizes {
  readonly heads: number;
  readonly headDim: number;
  /** Rows of all heads and entries. */
  readonly rows: { readonly q: number; readonly k: number };
}

/** The names of what each kind has. */
const NORMALIZED: OptionNames<NormalizedSimilarity> = {
  kind: "string",
  eps: "number",
  qWeights: "any",
  kWeights: "any",
};
const ADDITIVE: OptionNames<AdditiveSimilarity> = {
  kind: "string",
  vector: "any",
  innerBias: "any",
  innerScale: "number",
  normalize: "boolean",
  gain: "any",
};

/** Throws FoveaError("argument") that names the option. */
export function resolveSimilarity(
  label: string,
  options: TakenScores,
  sizes: Sizes,
): { similarity: ResolvedSimilarity; tables: Table[] } {
  const temperature = resolveTemperature(label, options, sizes);
  const common = { eps: 0, innerScale: 1, ...temperature.resolved };
  const { similarity: asked = "dot" } = options;
  const given = asked === "cosine" ? { kind: "l2" as const } : asked;
  if (given === "dot") return { similarity: { ...common, kind: "dot" }, tables: temperature.tables };
  const known = typeof given === "object" && given !== null && ["l2", "rms", "additive"].includes(given.kind);
  check(
    known,
    "argument",
    () =>
      `${label}: similarity must be "dot", "cosine", or { kind: "l2", "rms" or "additive", ... }, got ${show(given)}.`,
  );
  const found = given.kind === "additive" ? additive(label, given, sizes) : normalized(label, given, sizes);
  const { tables, ...similarity } = found;
  return { similarity: { ...common, ...similarity }, tables: [...temperature.tables, ...tables] };
}

/** Beyond it scores of ordinary q and k leave f32. */
const LARGEST_TEMPERATURE = 2 ** 64;

function resolveTemperature(label: string, options: TakenScores, { heads }: Sizes) {
  const { temperature, logTemperature, maxTemperature } = options;
  check(
    temperature === undefined || logTemperature === undefined,
    "argument",
    () => `${label}: temperature and logTemperature say the same; give one of them.`,
  );
  check(
    maxTemperature === undefined ||
      (logTemperature !== undefined && maxTemperature > 0 && maxTemperature <= LARGEST_TEMPERATURE),
    "argument",
    () =>
      `${label}: maxTemperature is a positive number up to ${LARGEST_TEMPERATURE} beside logTemperature, got ${show(maxTemperature)}.`,
  );
  const kind = temperature !== undefined ? "plain" : logTemperature !== undefined ? "log" : undefined;
  const resolved = { temperature: kind, maxTemperature: maxTemperature ?? 100 } as const;
  if (!kind) return { resolved, tables: [] };
  const name = kind === "log" ? "logTemperature" : "temperature";
  const values = perHead(options[name] as number | PerHead, heads);
  checkNumbers(`${label}: ${name}`, values, [[heads]], kind === "log" ? LARGEST : LARGEST_TEMPERATURE);
  const tables: Table[] = [{ at: "temperature_at", name, values, dtype: "f32" }];
  return { resolved, tables };
}

function normalized(label: string, given: NormalizedSimilarity, { headDim, rows }: Sizes) {
  const { kind, eps = kind === "l2" ? 1e-12 : 1e-6, qWeights, kWeights } = given;
  checkNames(`${label}: similarity`, given, NORMALIZED);
  check(
    typeof eps === "number" && eps >= 1e-30 && eps <= LARGEST,
    "argument",
    () => `${label}: similarity.eps must be a number of 1e-30 or more, got ${show(eps)}.`,
  );
  const tables: Table[] = [
    { at: "q_norms_at", name: "norms of q", dtype: "f32", values: { reserved: rows.q } },
    { at: "k_norms_at", name: "norms of k", dtype: "f32", values: { reserved: rows.k } },
  ];
  const weights = (name: "qWeights" | "kWeights", at: Table["at"], values: PerColumn | undefined) => {
    if (values === undefined) return;
    checkNumbers(`${label}: similarity.${name}`, values, [[headDim]]);
    tables.push({ at, name, values, dtype: "f32" });
  };
  weights("qWeights", "q_weights_at", qWeights);
  weights("kWeights", "k_weights_at", kWeights);
  const has = { qWeights: qWeights !== undefined, kWeights: kWeights !== undefined };
  const choice = { kind: "normalized", rms: kind === "rms", ...has } as const;
  return { kind: choice.kind, choice, eps, tables };
}

function additive(label: string, given: AdditiveSimilarity, { heads, headDim }: Sizes) {
  const { vector = 1, innerBias, innerScale = 1, normalize = false, gain } = given;
  checkNames(`${label}: similarity`, given, ADDITIVE);
  check(
    typeof innerScale === "number" && Math.abs(innerScale) <= LARGEST,
    "argument",
    () => `${label}: innerScale must be a finite number of f32, got ${show(innerScale)}.`,
  );
  check(
    gain === undefined || normalize,
    "argument",
    () => `${label}: gain is the length of a vector with normalize: true; without it, scale the vector.`,
  );
  const tables: Table[] = [];
  const columns = (name: "vector" | "innerBias", values: PerColumn) => {
    checkNumbers(`${label}: ${name}`, values, [[headDim], [heads, headDim]]);
    const shared = values instanceof Tensor ? values.shape.length === 1 : values.length === headDim;
    const stride = [name === "vector" ? "vector_stride_h" : "inner_bias_stride_h", shared ? 0 : headDim] as const;
    tables.push({ at: name === "vector" ? "vector_at" : "inner_bias_at", name, values, dtype: "f32", stride });
  };
  columns("vector", typeof vector === "number" ? new Array<number>(headDim).fill(vector) : vector);
  if (innerBias !== undefined) columns("innerBias", innerBias);
  if (normalize) {
    const values = perHead(gain ?? 1, heads);
    checkNumbers(`${label}: gain`, values, [[heads]]);
    tables.push({ at: "gain_at", name: "gain", values, dtype: "f32" });
  }
  const choice = { kind: "additive", innerBias: innerBias !== undefined, unitVector: normalize } as const;
  return { kind: choice.kind, choice, innerScale, tables };
}

const perHead = (values: number | PerHead, heads: number): PerHead =>
  typeof values === "number" ? new Array<number>(heads).fill(values) : values;
