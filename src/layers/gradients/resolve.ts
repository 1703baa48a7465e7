// Checks of a problem of a multi-head layer's gradients, before the GPU sees any of it.

import { resolveCaptures } from "../../attention/gradients/captures.ts";
import { loadGradient } from "../../attention/gradients/score_function.ts";
import { resolveScoreGradients } from "../../attention/gradients/score_problem.ts";
import { resolveSimilarityGradients } from "../../attention/gradients/similarity_problem.ts";
import type { TakenScoreProblem } from "../../attention/problem.ts";
import { check, show } from "../../errors.ts";
import { isRecord, type Taken } from "../../given.ts";
import { resolveSpec, Tensor } from "../../gpu/tensor.ts";
import { expectAsked } from "../../operations/gradient_names.ts";
import { gradientsOf } from "../../plan/gradients.ts";
import {
  checkedSpec,
  expectApart,
  expectShape,
  FLOATS,
  type ResolvedSpec,
} from "../../plan/specs.ts";
import type { Dtype, TensorSpec } from "../../types.ts";
import type { Layer } from "../multi_head_parts.ts";
import { type ResolvedMultiHead, resolveMultiHead } from "../multi_head_problem.ts";
import { weightTensors } from "../multi_head_sizes.ts";
import type { MultiHeadBackwardProblem, MultiHeadGradient } from "./problem.ts";

/** A gradient that the plan writes. */
export interface WrittenGradient {
  /** Its name in bindings, a path: `parameters.query.weight`. */
  readonly name: string;
  readonly spec: ResolvedSpec;
  /** A tensor, or what stands for one. */
  readonly given: unknown;
}

/** A checked problem. */
export interface ResolvedMultiHeadBackward {
  /** The forward run, which is computed again. */
  readonly forward: ResolvedMultiHead;
  readonly dOutput: ResolvedSpec;
  readonly dLse: ResolvedSpec | undefined;
  readonly dWeights: ResolvedSpec | undefined;
  /** dQuery, dKey, dValue and those of parameters, by their names. */
  readonly ofLayer: ReadonlyMap<string, WrittenGradient>;
  /** The gradients of what options hold, by their names. */
  readonly ofOptions: ReadonlyMap<string, WrittenGradient>;
  readonly variant: string | undefined;
}

/** Checks a problem and fills in its defaults. Rejects with FoveaError that names what is wrong. */
export async function resolveMultiHeadBackward(
  { label, sizes, weights, zeroAttention }: Layer,
  problem: Taken<MultiHeadBackwardProblem>,
): Promise<ResolvedMultiHeadBackward> {
  const { dOutput, dLse, dWeights, variant, gradients, ...described } = problem;
  const { dQuery, dKey, dValue, parameters, dCaptures, ...rest } = described;
  const { dBias, dAlibiSlopes, dRelativeBias, dSinks, dTemperature, dLogTemperature, ...others } =
    rest;
  const { dQWeights, dKWeights, dVector, dInnerBias, dInnerScale, dGain, ...given } = others;
  const learned = weights.biasK !== undefined;
  const forward = resolveMultiHead(label, given, sizes, { learned, zero: zeroAttention });
  const { batch, rowsQ, rowsKv, query, key, value, output, options } = forward;
  const { heads } = sizes;

  const known = { dQuery: query, dKey: key, dValue: value, parameters: weights };
  const asked = gradientsOf<MultiHeadGradient>(label, gradients, known);
  expectAsked(label, asked, { dQuery, dKey, dValue, parameters });
  const inputs = Object.entries({ dQuery, dKey, dValue }).flatMap(([name, into]) => {
    const like = known[name as keyof typeof known] as ResolvedSpec | undefined;
    return like && asked.has(name as MultiHeadGradient) ? [written(label, name, into, like)] : [];
  });
  const ofParameters = asked.has("parameters")
    ? parameterGradients(label, weights, parameters)
    : [];

  const keys = rowsKv + Number(learned) + Number(zeroAttention);
  const packed = options.cuSeqlensQ !== undefined;
  check(
    !packed || dWeights === undefined,
    "argument",
    () => `${label}: dWeights can't be combined with packed sequences.`,
  );
  return {
    forward,
    dOutput: incoming(label, "dOutput", dOutput, output.shape, output.dtype),
    dLse: dLse
      ? incoming(label, "dLse", dLse === true ? undefined : dLse, [batch, heads, rowsQ])
      : undefined,
    dWeights: dWeights && ofProbabilities(label, dWeights, [batch, heads, rowsQ, keys]),
    ofLayer: byName([...inputs, ...ofParameters]),
    ofOptions: byName(await optionGradients(label, problem, { forward, sizes })),
    variant,
  };
}

const byName = (all: readonly WrittenGradient[]) => new Map(all.map((one) => [one.name, one]));

/** A gradient that comes in. It may be broadcast by strides of 0. */
function incoming(
  label: string,
  name: string,
  given: TensorSpec | undefined,
  shape: readonly number[],
  dtype: Dtype = "f32",
): ResolvedSpec {
  if (given === undefined) return resolveSpec(label, { shape, dtype });
  const spec = checkedSpec(label, name, given, name === "dOutput" ? FLOATS : ["f32"]);
  expectShape(label, name, spec, shape);
  return spec;
}

function ofProbabilities(
  label: string,
  given: TensorSpec,
  [batch, ...perHead]: readonly number[],
): ResolvedSpec {
  const spec = checkedSpec(label, "dWeights", given);
  const isMean = spec.shape.length === 3;
  expectShape(
    label,
    "dWeights",
    spec,
    [batch, ...perHead.slice(isMean ? 1 : 0)],
    isMean ? "for the mean over the heads" : "for those of each head",
  );
  return spec;
}

/** A gradient that goes out, by default dense and of the dtype of what it is the gradient of. */
function written(
  label: string,
  name: string,
  given: TensorSpec | undefined,
  { shape, dtype }: Pick<ResolvedSpec, "shape" | "dtype">,
): WrittenGradient {
  const spec =
    given === undefined
      ? resolveSpec(label, { shape, dtype })
      : checkedSpec(label, name, given, FLOATS);
  expectShape(label, name, spec, shape);
  expectApart(label, name, spec);
  return { name, spec, given };
}

const LINEARS: readonly string[] = ["query", "key", "value", "output"];

/** The gradients of all weights of a layer. */
function parameterGradients(
  label: string,
  weights: Layer["weights"],
  given: unknown = {},
): WrittenGradient[] {
  const known = new Map(
    weightTensors(weights).map(([name, tensor]) => [name.replace("weights.", ""), tensor]),
  );
  const listed = new Map(
    membersOf(label, "parameters", given).flatMap(([name, value]) =>
      LINEARS.includes(name)
        ? membersOf(label, `parameters.${name}`, value).map(
            ([part, one]) => [`${name}.${part}`, one] as const,
          )
        : [[name, value] as const],
    ),
  );
  for (const name of listed.keys()) {
    check(
      known.has(name),
      "argument",
      () =>
        `${label}: parameters.${name} is the gradient of a weight that the layer doesn't have. It has ${[...known.keys()].join(", ")}.`,
    );
  }
  return [...known].map(([name, weight]) =>
    written(label, `parameters.${name}`, listed.get(name) as TensorSpec | undefined, weight),
  );
}

function membersOf(label: string, name: string, given: unknown): [string, unknown][] {
  check(
    isRecord(given) && !(given instanceof Tensor),
    "argument",
    () => `${label}: ${name} must be { name: tensor }, got ${show(given)}.`,
  );
  return Object.entries(given).filter(([, value]) => value !== undefined);
}

/** The gradients of what the options hold, which attention checks once more. */
async function optionGradients(
  label: string,
  problem: Taken<MultiHeadBackwardProblem>,
  { forward, sizes }: { readonly forward: ResolvedMultiHead; readonly sizes: Layer["sizes"] },
): Promise<WrittenGradient[]> {
  const { heads, headDim } = sizes;
  const { similarity, scoreFunction, cuSeqlensQ } = forward.options;
  const entries = cuSeqlensQ instanceof Tensor ? cuSeqlensQ.shape[0] : cuSeqlensQ?.length;
  const batch = entries === undefined ? forward.batch : entries - 1;
  const scores = problem as object as Taken<MultiHeadBackwardProblem> & TakenScoreProblem;
  const ofScores = resolveScoreGradients({ label, heads, batch }, scores);
  const ofSimilarity = resolveSimilarityGradients(label, problem, similarity, { heads, headDim });
  const gradient = await loadGradient({ label, ...(scoreFunction && { scoreFunction }) });
  const captured = resolveCaptures(label, problem, gradient, { similarity: undefined });
  return [
    ...ofScores.map(({ name, spec }) => ({ name, spec, given: problem[name] })),
    ...Object.entries(ofSimilarity).map(([name, spec]) => ({
      name,
      spec,
      given: problem[name as keyof typeof ofSimilarity],
    })),
    ...captured.map(({ name, spec, given }) => ({ name: `dCaptures.${name}`, spec, given })),
  ];
}
