// What a query and a key are compared by: their dot product, the cosine of their angle, or a layer
// of tanh between them.

import { check, show } from "../errors.ts";
import type { OptionNames } from "../given.ts";
import { Tensor } from "../gpu/tensor.ts";
import { checkNames } from "../options.ts";
import type { PerHead } from "../plan/specs.ts";
import type {
  AdditiveSimilarity,
  NormalizedSimilarity,
  PerColumn,
  TakenScores,
} from "./options.ts";
import type { ResolvedSimilarity, Table } from "./resolved.ts";
import { checkNumbers, LARGEST } from "./tables.ts";

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
  if (given === "dot")
    return { similarity: { ...common, kind: "dot" }, tables: temperature.tables };
  const known =
    typeof given === "object" && given !== null && ["l2", "rms", "additive"].includes(given.kind);
  check(
    known,
    "argument",
    () =>
      `${label}: similarity must be "dot", "cosine", or { kind: "l2", "rms" or "additive", ... }, got ${show(given)}.`,
  );
  const found =
    given.kind === "additive" ? additive(label, given, sizes) : normalized(label, given, sizes);
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
  const kind =
    temperature !== undefined ? "plain" : logTemperature !== undefined ? "log" : undefined;
  const resolved = { temperature: kind, maxTemperature: maxTemperature ?? 100 } as const;
  if (!kind) return { resolved, tables: [] };
  const name = kind === "log" ? "logTemperature" : "temperature";
  const values = perHead(options[name] as number | PerHead, heads);
  checkNumbers(
    `${label}: ${name}`,
    values,
    [[heads]],
    kind === "log" ? LARGEST : LARGEST_TEMPERATURE,
  );
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
    () =>
      `${label}: gain is the length of a vector with normalize: true; without it, scale the vector.`,
  );
  const tables: Table[] = [];
  const columns = (name: "vector" | "innerBias", values: PerColumn) => {
    checkNumbers(`${label}: ${name}`, values, [[headDim], [heads, headDim]]);
    const shared = values instanceof Tensor ? values.shape.length === 1 : values.length === headDim;
    const stride = [
      name === "vector" ? "vector_stride_h" : "inner_bias_stride_h",
      shared ? 0 : headDim,
    ] as const;
    tables.push({
      at: name === "vector" ? "vector_at" : "inner_bias_at",
      name,
      values,
      dtype: "f32",
      stride,
    });
  };
  columns("vector", typeof vector === "number" ? new Array<number>(headDim).fill(vector) : vector);
  if (innerBias !== undefined) columns("innerBias", innerBias);
  if (normalize) {
    const values = perHead(gain ?? 1, heads);
    checkNumbers(`${label}: gain`, values, [[heads]]);
    tables.push({ at: "gain_at", name: "gain", values, dtype: "f32" });
  }
  const choice = {
    kind: "additive",
    innerBias: innerBias !== undefined,
    unitVector: normalize,
  } as const;
  return { kind: choice.kind, choice, innerScale, tables };
}

const perHead = (values: number | PerHead, heads: number): PerHead =>
  typeof values === "number" ? new Array<number>(heads).fill(values) : values;
