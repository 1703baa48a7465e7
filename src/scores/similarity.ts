// How a query and a key are compared: by their dot product, by the cosine of their angle, or by a
// layer of tanh between them.

import { check, show } from "../errors.ts";
import type { OptionNames } from "../given.ts";
import { Tensor } from "../gpu/tensor.ts";
import { checkNames } from "../options.ts";
import type { DescribedProblem, Descriptor, OptionParts, Table } from "./descriptor.ts";
import { checkNumbers, LARGEST, perHead } from "./numbers.ts";
import type { AdditiveSimilarity, NormalizedSimilarity, PerColumn } from "./options.ts";

/** The names of the members of each kind. */
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

/** Offsets of weights that a similarity does not have; its module names them behind constants. */
const NO_WEIGHTS = { q_weights_at: 0, k_weights_at: 0 };
const NO_BIAS = { inner_bias_at: 0, gain_at: 0 };

/** Describes `similarity`. A dot product counts as absent. */
export const SIMILARITY: Descriptor = ({ label, options, tensors }) => {
  const { similarity: asked = "dot" } = options;
  const given = asked === "cosine" ? { kind: "l2" as const } : asked;
  if (given === "dot") return undefined;
  const known =
    typeof given === "object" && given !== null && ["l2", "rms", "additive"].includes(given.kind);
  check(
    known,
    "argument",
    () =>
      `${label}: similarity must be "dot", "cosine", or { kind: "l2", "rms" or "additive", ... }, got ${show(given)}.`,
  );
  return given.kind === "additive"
    ? additive(label, given, tensors)
    : normalized(label, given, tensors);
};

type TensorSizes = DescribedProblem["tensors"];

function normalized(
  label: string,
  given: NormalizedSimilarity,
  { headDim, normRows }: TensorSizes,
): OptionParts {
  const { kind, eps = kind === "l2" ? 1e-12 : 1e-6, qWeights, kWeights } = given;
  checkNames(`${label}: similarity`, given, NORMALIZED);
  check(
    typeof eps === "number" && eps >= 1e-30 && eps <= LARGEST,
    "argument",
    () => `${label}: similarity.eps must be a number of 1e-30 or more, got ${show(eps)}.`,
  );
  const tables: Table[] = [
    { at: "q_norms_at", name: "norms of q", dtype: "f32", values: { reserved: normRows.q } },
    { at: "k_norms_at", name: "norms of k", dtype: "f32", values: { reserved: normRows.k } },
  ];
  const weights = (
    name: "qWeights" | "kWeights",
    at: Table["at"],
    values: PerColumn | undefined,
  ) => {
    if (values === undefined) return;
    checkNumbers(`${label}: similarity.${name}`, values, [[headDim]]);
    tables.push({ at, name, values, dtype: "f32" });
  };
  weights("qWeights", "q_weights_at", qWeights);
  weights("kWeights", "k_weights_at", kWeights);
  const similarity = {
    kind: "normalized",
    rms: kind === "rms",
    qWeights: qWeights !== undefined,
    kWeights: kWeights !== undefined,
  } as const;
  return {
    keeps: "nothing",
    bounds: true,
    slots: { similarity },
    tables,
    params: () => ({ ...NO_WEIGHTS, norm_eps: eps }),
    word: similarity.kind,
  };
}

function additive(
  label: string,
  given: AdditiveSimilarity,
  { heads, headDim }: TensorSizes,
): OptionParts {
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
    () =>
      `${label}: gain is the length of a vector with normalize: true; without it, scale the vector.`,
  );
  const tables: Table[] = [];
  /** Adds a table, and gives the number of elements from one head to the next. */
  const columns = (name: "vector" | "innerBias", at: Table["at"], values: PerColumn) => {
    checkNumbers(`${label}: ${name}`, values, [[headDim], [heads, headDim]]);
    tables.push({ at, name, values, dtype: "f32" });
    const shared = values instanceof Tensor ? values.shape.length === 1 : values.length === headDim;
    return shared ? 0 : headDim;
  };
  const vectors = typeof vector === "number" ? new Array<number>(headDim).fill(vector) : vector;
  const vectorStride = columns("vector", "vector_at", vectors);
  const biasStride = innerBias === undefined ? 0 : columns("innerBias", "inner_bias_at", innerBias);
  if (normalize) {
    const values = perHead(gain ?? 1, heads);
    checkNumbers(`${label}: gain`, values, [[heads]]);
    tables.push({ at: "gain_at", name: "gain", values, dtype: "f32" });
  }
  const similarity = {
    kind: "additive",
    innerBias: innerBias !== undefined,
    unitVector: normalize,
  } as const;
  return {
    keeps: "nothing",
    slots: { similarity },
    tables,
    params: () => ({
      ...NO_BIAS,
      vector_stride_h: vectorStride,
      inner_bias_stride_h: biasStride,
      inner_scale: innerScale,
    }),
    word: similarity.kind,
  };
}
