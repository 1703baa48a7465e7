// The tokens with the largest logits, for beam search: the plan.

import { check } from "../../errors.ts";
import type { OptionNames } from "../../given.ts";
import { resolveSpec, type Tensor } from "../../gpu/tensor.ts";
import { MOST_TOP_TOKENS } from "../../kernels/models/sampling.ts";
import { type Caller, operation, type Stage } from "../../plan/operation.ts";
import type { Plan } from "../../plan/plan.ts";
import { checkedSpec, expectApart, expectShape, type ResolvedSpec } from "../../plan/specs.ts";
import type { TensorSpec } from "../../types.ts";
import { columnsAt, logitsSpec, passNumbers, passStage, rowsAt, sharesOf } from "./logits.ts";
import { resolveSettings, settingNumbers } from "./options.ts";

/** What a plan is made for. Shapes and strides are fixed by the plan; memory is given at encode. */
export interface TopTokensProblem {
  /** f32 [B, V], V below 2^19, at any strides. A tensor, or what it will look like. */
  readonly logits: TensorSpec;
  /** How many tokens are wanted, from 1 up to 64 and up to V. */
  readonly k: number;
  /** i32 [B, k]. Default: dense. */
  readonly ids?: TensorSpec;
  /** f32 [B, k]. Default: dense. */
  readonly logprobs?: TensorSpec;
  /** Name of the plan's GPU objects in errors and captures. Default `"top tokens"`. */
  readonly label?: string;
}

/** The names of all members of a problem. */
const TOP_TOKENS_PROBLEM: OptionNames<TopTokensProblem> = {
  logits: "any",
  k: "number",
  ids: "any",
  logprobs: "any",
  label: "string",
};

/**
 * Memory for one run of a plan: tensors that look as the plan was told. The tensors that it was
 * made with are the default.
 */
export interface TopTokensBindings {
  readonly logits?: Tensor;
  readonly ids?: Tensor;
  readonly logprobs?: Tensor;
}

/** A compiled search for the tokens with the largest logits. */
export type TopTokensPlan = Plan<TopTokensBindings>;

/**
 * Compiles a search for the k tokens with the largest logits of each entry, the largest first, of
 * equal ones the lower id first, as `ids`, with the logarithms of their probabilities by the
 * softmax of all logits as `logprobs`. Those of a logit of -Infinity are -Infinity, and those of an
 * entry with a NaN, which stands before all numbers, or without a token are NaN. A run is two
 * dispatches.
 *
 * Rejects with FoveaError, as `planAttention` does.
 *
 * @example
 * const plan = await planTopTokens(device, { logits: { shape: [4, 32000] }, k: 8 });
 * plan.encode(pass, { logits, ids, logprobs });
 */
export function planTopTokens(
  device: GPUDevice,
  problem: TopTokensProblem,
): Promise<TopTokensPlan> {
  return TOP_TOKENS.plan(device, problem);
}

interface ResolvedTopTokens {
  readonly logits: ResolvedSpec;
  readonly ids: ResolvedSpec;
  readonly logprobs: ResolvedSpec;
}

interface TopTokensResults {
  readonly ids: Tensor<"i32">;
  readonly logprobs: Tensor<"f32">;
}

const TOP_TOKENS = operation<
  TopTokensProblem,
  TopTokensBindings,
  ResolvedTopTokens,
  TopTokensResults
>({
  name: "top tokens",
  problem: TOP_TOKENS_PROBLEM,
  resolve,
  tensors({ add, own }, { logits, ids, logprobs }, problem, { device }) {
    add("ids", ids, problem.ids, true);
    add("logprobs", logprobs, problem.logprobs, true);
    add("logits", logits, problem.logits);
    const [entries] = logits.shape;
    const { chunks, width4 } = sharesOf(device, logits);
    own("workspace", [entries, width4, 4], { dtype: "u32" }, true);
    own("blocks", [entries, chunks, 4], { dtype: "u32" }, true);
  },
  kernel,
  results: ({ ids, logprobs }) => ({ ids, logprobs }),
});

function resolve(problem: TopTokensProblem, { label }: Caller): ResolvedTopTokens {
  const logits = logitsSpec(label, problem.logits);
  const [entries, width] = logits.shape;
  const { k } = problem;
  const most = Math.min(MOST_TOP_TOKENS, width);
  check(
    Number.isInteger(k) && k >= 1 && k <= most,
    "argument",
    () => `${label}: k must be a whole number from 1 up to ${most}, got ${k}.`,
  );
  const written = (name: "ids" | "logprobs", dtype: "i32" | "f32") => {
    const given = problem[name];
    const shape = [entries, k];
    const spec = given
      ? checkedSpec(label, name, given, [dtype])
      : resolveSpec(name, { shape, dtype });
    expectShape(label, name, spec, shape);
    expectApart(label, name, spec);
    return spec;
  };
  return { logits, ids: written("ids", "i32"), logprobs: written("logprobs", "f32") };
}

function kernel({ logits, ids, logprobs }: ResolvedTopTokens, caller: Caller): Stage[] {
  const { device } = caller;
  const [entries] = logits.shape;
  const shares = sharesOf(device, logits);
  const { access } = rowsAt(device, "logits", logits);
  const { lanes } = shares;
  const values = {
    ...passNumbers(caller, logits, shares),
    ...columnsAt(device, "tokens", ids),
    ...columnsAt(device, "logprobs", logprobs),
    ...settingNumbers(resolveSettings(caller.label, {}), logits.shape[1]),
    top_k: ids.shape[1],
  };
  const first = {
    kernel: "sampling_chunks",
    logits: access,
    left: true,
    lanes,
  } as const;
  return [
    passStage(first, values, entries * shares.chunks, {}),
    passStage({ kernel: "top_tokens", logits: access, lanes }, values, entries, { tokens: "ids" }),
  ];
}
