// The one-liner: plan, allocate, encode, submit.

import { type OptionNames, readOptions, type Taken } from "../given.ts";
import type { FloatTensor, Tensor } from "../gpu/tensor.ts";
import {
  checkTensors,
  type MakeResult,
  RUN_OPTIONS,
  type RunOptions,
  runOnce,
} from "../plan/run.ts";
import { inTurn, isCache } from "./cached.ts";
import type { KvSourceOwner } from "./kv_source.ts";
import { preparePlan } from "./plan_attention.ts";
import { ATTENTION_PROBLEM, type AttentionProblem } from "./problem.ts";
import type { ResolvedProblem } from "./resolved.ts";

/** Options of {@link attention}: those of a problem, with tensors in place of specs. */
export interface AttentionOptions
  extends Omit<AttentionProblem, "q" | "k" | "v" | "output" | "lse" | "rowMax">,
    RunOptions {
  /** Where the output goes. Default: a new tensor, which is the caller's to destroy. */
  readonly output?: Tensor;
  /** `true` for a new tensor with the log-sum-exp, or the tensor that it goes to. Default: none. */
  readonly lse?: boolean | Tensor;
  /**
   * `true` for a new tensor with the largest score of each row, or the tensor that it goes to.
   * Default: none.
   */
  readonly rowMax?: boolean | Tensor;
}

/** The names of the options. */
export const ATTENTION_OPTIONS: OptionNames<AttentionOptions> = withoutTensors(ATTENTION_PROBLEM);

function withoutTensors({ q, k, v, cache, ...options }: typeof ATTENTION_PROBLEM) {
  return { ...options, ...RUN_OPTIONS };
}

export interface AttentionResult {
  /** [B, H, M, Dv], in the layout of the call. */
  readonly output: FloatTensor;
  /**
   * [B, H, M], if it was asked for. A natural logarithm; -Infinity for a query that sees no key.
   */
  readonly lse?: Tensor<"f32">;
  /** [B, H, M], if it was asked for; -Infinity for a query that sees no key. */
  readonly rowMax?: Tensor<"f32">;
}

/**
 * softmax(scale * Q K^T + mask) V on the GPU. See {@link planAttention} for the formula, the rules
 * and the shapes.
 *
 * Resolves once the GPU has accepted the work; `output.read()` waits for the result itself. For
 * calls in a frame loop make a plan and encode it: that waits for nothing and allocates nothing.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param q [B, H, M, D], f32, f16 or bf16, as are k and v, each with its own dtype; the output has
 *   the dtype of q by default
 * @param k [B, Hkv, N, D]
 * @param v [B, Hkv, N, Dv]
 *
 * @example
 * const { output } = await attention(q, k, v, { causal: true });
 * const values = await output.read();
 */
export async function attention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options?: AttentionOptions,
): Promise<AttentionResult>;
/**
 * Attention to the keys and values in a cache.
 *
 * @example
 * const { output } = await attention(q, cache, { causal: true });
 */
export async function attention(
  q: Tensor,
  cache: KvSourceOwner,
  options?: AttentionOptions,
): Promise<AttentionResult>;
export async function attention(
  q: Tensor,
  keys: Tensor | KvSourceOwner,
  values?: Tensor | AttentionOptions,
  more?: AttentionOptions,
): Promise<AttentionResult> {
  const isFromCache = isCache(keys);
  const tensors = isFromCache ? { q } : { q, k: keys, v: values as Tensor };
  checkTensors("attention", tensors);
  const reading = readOptions(
    "attention",
    (isFromCache ? values : more) as AttentionOptions,
    ATTENTION_OPTIONS,
  );
  const { device } = q;
  const run = async (
    given: { q: Tensor; k: Tensor; v: Tensor } | { q: Tensor; cache: KvSourceOwner },
  ) => {
    const options = await reading;
    const { plan, allocated, resolved } = await preparePlan(device, { ...options, ...given });
    const results = (make: MakeResult) => resultsOf(options, resolved, make);
    return runOnce(
      device,
      resolved.label,
      { plan, allocated },
      options,
      results,
    ) as Promise<AttentionResult>;
  };
  return isFromCache
    ? inTurn(keys, reading, (cache) => run({ q, cache }))
    : run({ q, k: keys, v: values as Tensor });
}

/**
 * The results of a call: the tensors that the caller gave for them, and new ones for results that
 * are only asked for.
 */
export function resultsOf(
  options: Taken<AttentionOptions>,
  resolved: ResolvedProblem,
  make: MakeResult,
): Partial<Record<"output" | "lse" | "rowMax", Tensor>> {
  const output = options.output ?? make("output", resolved.outputShape, resolved.output.dtype);
  const perRow = (name: "lse" | "rowMax") => {
    const asked = options[name] === true ? make(name, resolved.lseShape) : options[name];
    return asked ? { [name]: asked } : {};
  };
  return { output, ...perRow("lse"), ...perRow("rowMax") };
}
