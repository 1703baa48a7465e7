// The problem of multi-head attention: the options of a layer, and the tensors of a problem with
// their checks.

import type { AttentionBindings } from "../attention/bindings.ts";
import { check, show } from "../errors.ts";
import type { OptionNames } from "../given.ts";
import { resolveSpec, Tensor } from "../gpu/tensor.ts";
import { checkedSpec, expectApart, expectShape, FLOATS, type ResolvedSpec } from "../plan/specs.ts";
import type { ScoreOptions } from "../scores/options.ts";
import { SCORE_OPTIONS } from "../scores/resolve.ts";
import type { Dtype, FloatDtype, TensorSpec } from "../types.ts";
import { type BooleanMasks, type ResolvedMask, resolveMasks } from "./boolean_masks.ts";
import type { MultiHeadSizes } from "./multi_head_sizes.ts";

/** The options of a layer, beside its weights. */
export interface MultiHeadOptions {
  /** Query heads H. */
  readonly heads: number;
  /** Key and value heads Hkv. Default: as many as the weights of the keys have. */
  readonly kvHeads?: number;
  /** Every query also sees a key and a value of zeros (PyTorch's add_zero_attn). Default false. */
  readonly zeroAttention?: boolean;
  /** Name of the GPU objects in errors and captures. Default `"multiHeadAttention"`. */
  readonly label?: string;
}

/**
 * The problem that a plan of a layer is made for. Shapes and strides are fixed by the plan; memory
 * is given at encode. It has all options of attention; masks come in both conventions.
 */
export interface MultiHeadProblem extends Omit<ScoreOptions, "mask">, BooleanMasks {
  /**
   * [B, M, query width], f32, f16 or bf16, as are key, value and output, each with its own dtype.
   */
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
   * Ask for the probabilities before dropout: those of each head [B, H, M, N'] f32, or their mean
   * over the heads, [B, M, N']. N' is N, and one more for each of biasK and zero attention, in that
   * order.
   */
  readonly weights?: "perHead" | "mean";
  /** What the weights will look like. Default: dense. */
  readonly weightsOutput?: TensorSpec;
  /**
   * The dtype of the projected q, k and v, and of the output of the heads, in memory between the
   * kernels. Default `"f32"`.
   */
  readonly storage?: FloatDtype;
  /**
   * Floating-point operations after which a dispatch is cut in two, as for attention. Default 2^36.
   */
  readonly maxDispatchFlops?: number;
  /**
   * Take this row of attention's tile table instead of the one that fits the device. For
   * benchmarks.
   */
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

/**
 * Memory for one run of a plan: tensors that look as the plan was told. The tensors that it was
 * made with are the default.
 */
export interface MultiHeadBindings
  extends BooleanMasks<Tensor>,
    Omit<
      AttentionBindings,
      "q" | "k" | "v" | "output" | "lse" | "rowMax" | "indices" | "weights" | "mask" | "cache"
    > {
  readonly query?: Tensor;
  /** Bound only if the plan was made with a key. */
  readonly key?: Tensor;
  readonly value?: Tensor;
  readonly output?: Tensor;
  /** Needed if the plan was asked for it. */
  readonly lse?: Tensor;
  readonly weightsOutput?: Tensor;
}

/** A checked problem. */
export interface ResolvedMultiHead {
  /** Size of the batch axis; below it numbers of queries and keys of the tensors. */
  readonly batch: number;
  readonly rowsQ: number;
  readonly rowsKv: number;
  readonly query: ResolvedSpec;
  /** Undefined if the query is the key. */
  readonly key: ResolvedSpec | undefined;
  /** Undefined if the key is the value. */
  readonly value: ResolvedSpec | undefined;
  readonly output: ResolvedSpec;
  readonly lse: ResolvedSpec | undefined;
  readonly weights: ResolvedSpec | undefined;
  readonly mean: boolean;
  readonly storage: Dtype;
  readonly masks: readonly ResolvedMask[];
  /** The options of attention. */
  readonly options: ScoreOptions;
  /** Options of how attention runs, which change no result. */
  readonly run: Pick<MultiHeadProblem, "maxDispatchFlops" | "variant">;
}

/**
 * Checks the tensors of a problem and fills in their defaults; the options of attention are checked
 * by attention.
 *
 * @param extraKeys How many keys the layer adds to those of the problem.
 */
export function resolveMultiHead(
  label: string,
  problem: MultiHeadProblem,
  sizes: MultiHeadSizes,
  extraKeys: { readonly learned: boolean; readonly zero: boolean },
): ResolvedMultiHead {
  const {
    query,
    key,
    value,
    output,
    lse,
    weights,
    weightsOutput,
    storage = "f32",
    ...rest
  } = problem;
  const { maxDispatchFlops, variant, ...described } = rest;
  const { mask, ignoreMask, keyMask, ignoreKeyMask, ...options } = described;
  const q = rows(label, "query", query, sizes.queryWidth);
  const k = key && rows(label, "key", key, sizes.keyWidth);
  const v = value && rows(label, "value", value, sizes.valueWidth);
  const [batch, rowsQ] = q.shape;
  const [, rowsKv] = (k ?? q).shape;
  const width = (k ?? q).shape[2];
  const came = k
    ? `key is [${k.shape.join(", ")}]`
    : `query is [${q.shape.join(", ")}], and there is no key`;
  check(
    width === sizes.keyWidth,
    "argument",
    () => `${label}: keys must be ${sizes.keyWidth} wide: ${came}.`,
  );
  check(
    v !== undefined || width === sizes.valueWidth,
    "argument",
    () => `${label}: values must be ${sizes.valueWidth} wide, and there is no value: ${came}.`,
  );
  for (const [name, spec] of Object.entries({ key: k, value: v })) {
    if (spec)
      expectShape(
        label,
        name,
        spec,
        [batch, rowsKv, spec.shape[2]],
        "as the query's batch and the keys say",
      );
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
    check(
      !packed || !there,
      "argument",
      () => `${label}: ${what} can't be combined with packed sequences.`,
    );
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
    output: result(
      label,
      "output",
      output,
      [batch, rowsQ, sizes.outputWidth],
      q.dtype,
      FLOATS,
    ) as ResolvedSpec,
    lse: lse
      ? result(label, "lse", lse === true ? undefined : lse, [batch, sizes.heads, rowsQ])
      : undefined,
    weights:
      weights && result(label, "weightsOutput", weightsOutput, [batch, ...heads, rowsQ, keys]),
    masks: resolveMasks(label, given, [batch, sizes.heads, rowsQ, rowsKv]),
    options,
    run: {
      ...(maxDispatchFlops !== undefined && { maxDispatchFlops }),
      ...(variant !== undefined && { variant }),
    },
  };
}

function rows(label: string, name: string, given: TensorSpec, width: number): ResolvedSpec {
  const spec = checkedSpec(label, name, given, FLOATS);
  check(
    spec.shape.length === 3 && spec.shape[2] === width,
    "argument",
    () =>
      `${label}: ${name} must be [B, ${name === "query" ? "M" : "N"}, ${width}], got [${spec.shape.join(", ")}].`,
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
  const spec = given
    ? checkedSpec(label, name, given, dtypes)
    : resolveSpec(label, { shape, dtype });
  expectShape(label, name, spec, shape);
  expectApart(label, name, spec);
  return spec;
}
