// What multi-head attention is made of: the layer's sizes from its weights, and the tensors of a problem, checked.

import type { AttentionBindings } from "../attention/bindings.ts";
import { SCORE_OPTIONS } from "../attention/features.ts";
import type { ScoreOptions } from "../attention/options.ts";
import { check, show } from "../errors.ts";
import type { OptionNames } from "../given.ts";
import { resolveSpec, Tensor } from "../gpu/tensor.ts";
import { checkedSpec, expectApart, expectShape, FLOATS, type ResolvedSpec } from "../plan/specs.ts";
import type { Dtype, TensorSpec } from "../types.ts";
import { type BooleanMasks, type ResolvedMask, resolveMasks } from "./boolean_masks.ts";
import type { LinearWeights, MultiHeadWeights } from "./multi_head_weights.ts";

/** What a layer is made of beside its weights. */
export interface MultiHeadOptions {
  /** Query heads H. */
  readonly heads: number;
  /** Key and value heads Hkv. Default as many as the weights of the keys have. */
  readonly kvHeads?: number;
  /** Every query also sees a key and a value of zeros (PyTorch's add_zero_attn). Default false. */
  readonly zeroAttention?: boolean;
  /** Name of the GPU objects in errors and captures. Default `"multiHeadAttention"`. */
  readonly label?: string;
}

/**
 * The problem that a plan of a layer is made for. Shapes and strides are fixed by the plan; memory is given at encode.
 * All options of attention are there; masks come in both conventions.
 */
export interface MultiHeadProblem extends Omit<ScoreOptions, "mask">, BooleanMasks {
  /** [B, M, query width], f32, f16 or bf16, as also key, value and output, each its own. */
  readonly query: TensorSpec;
  /** [B, N, key width]. Default: the query, for self-attention. */
  readonly key?: TensorSpec;
  /** [B, N, value width]. Default: the key. */
  readonly value?: TensorSpec;
  /** [B, M, output width]. Default: dense, of the dtype of the query. */
  readonly output?: TensorSpec;
  /** Ask for the log-sum-exp of the scores, [B, H, M] f32. */
  readonly lse?: boolean | TensorSpec;
  /**
   * Ask for the probabilities before dropout: of each head [B, H, M, N'] f32, or their mean over the heads, [B, M, N'].
   * N' is N, and one more each for biasK and zero attention, in that order.
   */
  readonly weights?: "perHead" | "mean";
  /** What the weights will look like. Default: dense. */
  readonly weightsOutput?: TensorSpec;
  /** What the projected q, k and v, and the output of the heads, are stored as between the kernels. Default `"f32"`. */
  readonly storage?: "f32" | "f16" | "bf16";
  /** Floating-point operations after which a dispatch is cut in two, as for attention. Default 2^36. */
  readonly maxDispatchFlops?: number;
  /** Take this row of attention's tile table instead of the one that fits the device. For benchmarks. */
  readonly variant?: string;
}

/** The names of the options of a layer. */
export const MULTI_HEAD_OPTIONS: OptionNames<MultiHeadOptions> = {
  heads: "number",
  kvHeads: "number",
  zeroAttention: "boolean",
  label: "string",
};

/** The names of all members of a problem. */
export const MULTI_HEAD_PROBLEM: OptionNames<MultiHeadProblem> = {
  ...SCORE_OPTIONS,
  query: "any",
  key: "any",
  value: "any",
  ignoreMask: "any",
  keyMask: "any",
  ignoreKeyMask: "any",
  output: "any",
  lse: "any",
  weights: "string",
  weightsOutput: "any",
  storage: "string",
  maxDispatchFlops: "number",
  variant: "string",
};

/** Memory for one run of a plan: tensors that look as the plan was told. Those it was made with are the default. */
export interface MultiHeadBindings
  extends BooleanMasks<Tensor>,
    Omit<AttentionBindings, "q" | "k" | "v" | "output" | "lse" | "rowMax" | "indices" | "weights" | "mask" | "cache"> {
  readonly query?: Tensor;
  /** If the plan was made with a key. */
  readonly key?: Tensor;
  readonly value?: Tensor;
  readonly output?: Tensor;
  /** If the plan was asked for it. */
  readonly lse?: Tensor;
  readonly weightsOutput?: Tensor;
}

/** Sizes of a layer. */
export interface MultiHeadSizes {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly vDim: number;
  readonly queryWidth: number;
  readonly keyWidth: number;
  readonly valueWidth: number;
  readonly outputWidth: number;
}

/** The tensors of a layer, by the names that errors give them. */
export function weightTensors(weights: MultiHeadWeights): [name: string, tensor: Tensor][] {
  const layers = (["query", "key", "value", "output"] as const).flatMap((name) => {
    const layer = weights[name];
    return Object.entries(layer ?? {}).map(([part, tensor]) => [`weights.${name}.${part}`, tensor] as [string, Tensor]);
  });
  const extra = (["biasK", "biasV"] as const).flatMap((name) => {
    const tensor = weights[name];
    return tensor ? [[`weights.${name}`, tensor] as [string, Tensor]] : [];
  });
  return [...layers, ...extra];
}

/** The sizes that weights have. Throws FoveaError that names what does not go together. */
export function resolveSizes(label: string, weights: MultiHeadWeights, options: MultiHeadOptions): MultiHeadSizes {
  const { heads } = options ?? {};
  check(
    Number.isInteger(heads) && heads >= 1,
    "argument",
    () => `${label}: heads must be a whole number from 1 up, got ${show(heads)}.`,
  );
  for (const name of ["query", "key", "value"] as const) {
    check(
      typeof weights?.[name] === "object",
      "argument",
      () => `${label}: weights.${name} must be { weight, bias? }, got ${show(weights?.[name])}.`,
    );
  }
  for (const [name, tensor] of weightTensors(weights)) {
    check(tensor instanceof Tensor, "argument", () => `${label}: ${name} must be a Tensor; make one with tensor().`);
  }
  const [queryRows, queryWidth] = linearSizes(label, "query", weights.query);
  const [keyRows, keyWidth] = linearSizes(label, "key", weights.key);
  const [valueRows, valueWidth] = linearSizes(label, "value", weights.value);
  const divides = (name: string, rows: number, parts: number, what: string) =>
    check(
      rows % parts === 0,
      "argument",
      () => `${label}: the ${rows} rows of weights.${name}.weight must be a multiple of the ${parts} ${what}.`,
    );
  divides("query", queryRows, heads, "heads");
  const headDim = queryRows / heads;
  divides("key", keyRows, headDim, "elements of a head, as weights.query.weight has them");
  const kvHeads = keyRows / headDim;
  check(
    heads % kvHeads === 0 && (options.kvHeads ?? kvHeads) === kvHeads,
    "argument",
    () =>
      `${label}: weights.key.weight has ${kvHeads} heads of ${headDim}; expected ${options.kvHeads ?? `a number that divides ${heads}`}.`,
  );
  divides("value", valueRows, kvHeads, "key heads");
  const vDim = valueRows / kvHeads;
  const { output, biasK, biasV } = weights;
  const [outputWidth, outputInner] = output ? linearSizes(label, "output", output) : [heads * vDim, heads * vDim];
  check(
    outputInner === heads * vDim,
    "argument",
    () =>
      `${label}: weights.output.weight must be [any, ${heads * vDim}] for ${heads} heads of ${vDim}, got [${output?.weight.shape.join(", ")}].`,
  );
  check(!biasK === !biasV, "argument", () => `${label}: weights.biasK and weights.biasV go together; one is missing.`);
  if (biasK) expectShape(label, "weights.biasK", checkedSpec(label, "weights.biasK", biasK, FLOATS), [keyRows]);
  if (biasV) expectShape(label, "weights.biasV", checkedSpec(label, "weights.biasV", biasV, FLOATS), [valueRows]);
  return { heads, kvHeads, headDim, vDim, queryWidth, keyWidth, valueWidth, outputWidth };
}

function linearSizes(label: string, name: string, { weight, bias }: LinearWeights): readonly number[] {
  const { shape } = checkedSpec(label, `weights.${name}.weight`, weight, FLOATS);
  check(
    shape.length === 2 && shape[0] >= 1,
    "argument",
    () => `${label}: weights.${name}.weight must be [out, in], got [${shape.join(", ")}].`,
  );
  const spec = bias && checkedSpec(label, `weights.${name}.bias`, bias, FLOATS);
  if (spec)
    expectShape(label, `weights.${name}.bias`, spec, [shape[0]], `for weights.${name}.weight [${shape.join(", ")}]`);
  return shape;
}

/** A checked problem. */
export interface ResolvedMultiHead {
  /** Batch axis, queries and keys of the tensors. */
  readonly batch: number;
  readonly rowsQ: number;
  readonly rowsKv: number;
  readonly query: ResolvedSpec;
  /** Undefined where it is the query. */
  readonly key: ResolvedSpec | undefined;
  /** Undefined where it is the key. */
  readonly value: ResolvedSpec | undefined;
  readonly output: ResolvedSpec;
  readonly lse: ResolvedSpec | undefined;
  readonly weights: ResolvedSpec | undefined;
  readonly mean: boolean;
  readonly storage: Dtype;
  readonly masks: readonly ResolvedMask[];
  /** Everything that attention itself is told. */
  readonly options: ScoreOptions;
  /** What is only about how it runs. */
  readonly run: Pick<MultiHeadProblem, "maxDispatchFlops" | "variant">;
}

/**
 * Checks the tensors of a problem and fills in their defaults; the options of attention are checked by attention.
 *
 * @param extraKeys Keys beside those of the problem.
 */
export function resolveMultiHead(
  label: string,
  problem: MultiHeadProblem,
  sizes: MultiHeadSizes,
  extraKeys: { readonly learned: boolean; readonly zero: boolean },
): ResolvedMultiHead {
  const { query, key, value, output, lse, weights, weightsOutput, storage = "f32", ...rest } = problem;
  const { maxDispatchFlops, variant, ...described } = rest;
  const { mask, ignoreMask, keyMask, ignoreKeyMask, ...options } = described;
  const q = rows(label, "query", query, sizes.queryWidth);
  const k = key && rows(label, "key", key, sizes.keyWidth);
  const v = value && rows(label, "value", value, sizes.valueWidth);
  const [batch, rowsQ] = q.shape;
  const [, rowsKv] = (k ?? q).shape;
  const width = (k ?? q).shape[2];
  const came = k ? `key is [${k.shape.join(", ")}]` : `query is [${q.shape.join(", ")}], and there is no key`;
  check(width === sizes.keyWidth, "argument", () => `${label}: keys must be ${sizes.keyWidth} wide: ${came}.`);
  check(
    v !== undefined || width === sizes.valueWidth,
    "argument",
    () => `${label}: values must be ${sizes.valueWidth} wide, and there is no value: ${came}.`,
  );
  for (const [name, spec] of Object.entries({ key: k, value: v })) {
    if (spec) expectShape(label, name, spec, [batch, rowsKv, spec.shape[2]], "as the query's batch and the keys say");
  }
  check(
    FLOATS.includes(storage),
    "argument",
    () => `${label}: storage must be "f32", "f16" or "bf16", got ${show(storage)}.`,
  );
  check(
    weights === undefined || weights === "perHead" || weights === "mean",
    "argument",
    () => `${label}: weights must be "perHead" or "mean", got ${show(weights)}.`,
  );
  const packed = options.cuSeqlensQ !== undefined || options.cuSeqlensKv !== undefined;
  const given = {
    ...(mask && { mask }),
    ...(ignoreMask && { ignoreMask }),
    ...(keyMask && { keyMask }),
    ...(ignoreKeyMask && { ignoreKeyMask }),
  };
  const alone = (what: string, there: unknown) =>
    check(!packed || !there, "argument", () => `${label}: ${what} can't be combined with packed sequences.`);
  alone("biasK", extraKeys.learned);
  alone("zeroAttention with sinks on the GPU", extraKeys.zero && options.sinks instanceof Tensor);
  alone("weights", weights);
  for (const name of Object.keys(given)) alone(name, true);
  const keys = rowsKv + Number(extraKeys.learned) + Number(extraKeys.zero);
  const heads = weights === "perHead" ? [sizes.heads] : [];
  return {
    batch,
    rowsQ,
    rowsKv,
    query: q,
    key: k,
    value: v,
    storage,
    mean: weights === "mean",
    output: result(label, "output", output, [batch, rowsQ, sizes.outputWidth], q.dtype, FLOATS) as ResolvedSpec,
    lse: lse ? result(label, "lse", lse === true ? undefined : lse, [batch, sizes.heads, rowsQ]) : undefined,
    weights: weights && result(label, "weightsOutput", weightsOutput, [batch, ...heads, rowsQ, keys]),
    masks: resolveMasks(label, given, [batch, sizes.heads, rowsQ, rowsKv]),
    options,
    run: { ...(maxDispatchFlops !== undefined && { maxDispatchFlops }), ...(variant !== undefined && { variant }) },
  };
}

function rows(label: string, name: string, given: TensorSpec, width: number): ResolvedSpec {
  const spec = checkedSpec(label, name, given, FLOATS);
  check(
    spec.shape.length === 3 && spec.shape[2] === width,
    "argument",
    () => `${label}: ${name} must be [B, ${name === "query" ? "M" : "N"}, ${width}], got [${spec.shape.join(", ")}].`,
  );
  return spec;
}

function result(
  label: string,
  name: string,
  given: TensorSpec | undefined,
  shape: readonly number[],
  dtype: Dtype = "f32",
  dtypes: readonly Dtype[] = ["f32"],
): ResolvedSpec {
  const spec = given ? checkedSpec(label, name, given, dtypes) : resolveSpec(label, { shape, dtype });
  expectShape(label, name, spec, shape);
  expectApart(label, name, spec);
  return spec;
}
