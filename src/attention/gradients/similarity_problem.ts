// The gradients of what a similarity holds, as a problem asks for them.

import { check } from "../../errors.ts";
import type { OptionNames } from "../../given.ts";
import { Tensor } from "../../gpu/tensor.ts";
import {
  checkedSpec,
  expectApart,
  expectShape,
  FLOATS,
  type ResolvedSpec,
} from "../../plan/specs.ts";
import type { PerColumn, Similarity } from "../../scores/options.ts";
import type { TensorSpec } from "../../types.ts";

/**
 * Gradients of what the similarity holds: `true` asks for a dense f32 tensor, and a spec or a tensor
 * for one that looks like it (f32, f16 or bf16). Each has the shape of the option, [1] for a
 * number. Default: they are not computed.
 */
export interface SimilarityGradients<Asked> {
  /** [D]: the gradient of `qWeights`, summed over batch entries, heads and queries. */
  readonly dQWeights?: Asked;
  /** [D]: the gradient of `kWeights`, summed over batch entries, key heads and keys. */
  readonly dKWeights?: Asked;
  /** [D], [H, D] or [1]: the gradient of the vector of additive similarity. */
  readonly dVector?: Asked;
  /** [D] or [H, D] */
  readonly dInnerBias?: Asked;
  /** [1], also where the option is left out and counts as 1. */
  readonly dInnerScale?: Asked;
  /** [H], or [1] where the option is left out and counts as 1 for all heads. */
  readonly dGain?: Asked;
}

export type SimilarityGradient = keyof SimilarityGradients<unknown>;

/** The names. */
export const SIMILARITY_GRADIENTS: OptionNames<SimilarityGradients<boolean | TensorSpec>> = {
  dQWeights: "any",
  dKWeights: "any",
  dVector: "any",
  dInnerBias: "any",
  dInnerScale: "any",
  dGain: "any",
};

const NAMES = Object.keys(SIMILARITY_GRADIENTS) as SimilarityGradient[];

/** The checked specs of the gradients that are asked for. */
export type SimilaritySpecs = { readonly [Name in SimilarityGradient]?: ResolvedSpec };

/**
 * Checks which gradients a problem asks for. Throws FoveaError("argument") for one of an option that
 * the problem does not have.
 */
export function resolveSimilarityGradients(
  label: string,
  asked: SimilarityGradients<boolean | TensorSpec>,
  similarity: Similarity | undefined,
  sizes: { readonly heads: number; readonly headDim: number },
): SimilaritySpecs {
  const specs: { [Name in SimilarityGradient]?: ResolvedSpec } = {};
  for (const name of NAMES) {
    const given = asked[name];
    if (!given) continue;
    const shape = shapeOf(name, similarity, sizes);
    check(
      shape !== undefined,
      "argument",
      () =>
        `${label}: ${name} is the gradient of ${OPTION_OF[name]}, which the problem doesn't have.`,
    );
    const spec = checkedSpec(label, name, given === true ? { shape } : given, FLOATS);
    expectShape(label, name, spec, shape);
    expectApart(label, name, spec);
    specs[name] = spec;
  }
  return specs;
}

const OPTION_OF: Readonly<Record<SimilarityGradient, string>> = {
  dQWeights: "similarity.qWeights",
  dKWeights: "similarity.kWeights",
  dVector: "the vector of additive similarity",
  dInnerBias: "similarity.innerBias",
  dInnerScale: "innerScale of additive similarity",
  dGain: "gain of additive similarity with normalize: true",
};

/** The shape of a gradient; undefined if the similarity does not have what it is of. */
function shapeOf(
  name: SimilarityGradient,
  similarity: Similarity | undefined,
  { heads, headDim }: { readonly heads: number; readonly headDim: number },
): readonly number[] | undefined {
  if (typeof similarity !== "object") return undefined;
  const columns = (values: PerColumn | undefined) => {
    if (values === undefined) return undefined;
    if (values instanceof Tensor) return values.shape;
    return values.length === headDim ? [headDim] : [heads, headDim];
  };
  if (similarity.kind !== "additive") {
    if (name === "dQWeights") return columns(similarity.qWeights);
    return name === "dKWeights" ? columns(similarity.kWeights) : undefined;
  }
  const { vector, innerBias, normalize, gain } = similarity;
  if (name === "dVector")
    return vector === undefined || typeof vector === "number" ? [1] : columns(vector);
  if (name === "dInnerBias") return columns(innerBias);
  if (name === "dInnerScale") return [1];
  if (name !== "dGain" || !normalize) return undefined;
  return gain === undefined || typeof gain === "number" ? [1] : [heads];
}
