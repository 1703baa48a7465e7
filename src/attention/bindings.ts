// The bindings of one run of attention, and the operand of the plan that each is bound for.

import { check } from "../errors.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { type Operands, OWN } from "../plan/operand.ts";
import { boundByName, Plan, type PlanHooks } from "../plan/plan.ts";
import type { KvSource, KvSourceOwner } from "./kv_source.ts";

/**
 * Memory for one run of a plan. Each tensor must look as the plan was told: same shape, strides and
 * dtype, and the same distance from a multiple of the device's binding alignment (256 bytes). A
 * tensor that the plan was made with is the default.
 */
export interface AttentionBindings {
  readonly q?: Tensor;
  readonly k?: Tensor;
  readonly v?: Tensor;
  readonly output?: Tensor;
  /** A cache in place of the one that the plan was made with, with the same options. */
  readonly cache?: KvSourceOwner;
  /** Needed if the plan was asked for it, as are the two below. */
  readonly lse?: Tensor;
  readonly rowMax?: Tensor;
  /** The indices of the best keys, in plans of `topKKeys`. */
  readonly indices?: Tensor;
  readonly weights?: Tensor;
  /** Bound only if the plan was made with a tensor for it, as are the members that follow. */
  readonly mask?: Tensor;
  readonly bias?: Tensor;
  readonly qLengths?: Tensor;
  readonly kvLengths?: Tensor;
  readonly queryOffset?: Tensor;
  readonly cuSeqlensQ?: Tensor;
  readonly cuSeqlensKv?: Tensor;
  readonly alibiSlopes?: Tensor;
  readonly sinks?: Tensor;
  /** The temperature of the similarity. */
  readonly temperature?: Tensor;
  readonly logTemperature?: Tensor;
  readonly qWeights?: Tensor;
  readonly kWeights?: Tensor;
  readonly vector?: Tensor;
  readonly innerBias?: Tensor;
  readonly gain?: Tensor;
  /** The step of dropout. */
  readonly dropoutStep?: Tensor;
  /** The table of the relative bias. */
  readonly relativeBias?: Tensor;
  /** Tensors in place of those that the functions captured, by name. */
  readonly captures?: Readonly<Record<string, Tensor>>;
}

/**
 * A compiled attention problem. Make one with {@link planAttention}; encode it as often as you
 * like.
 */
export type AttentionPlan = Plan<AttentionBindings>;
export const AttentionPlan = Plan;

/** For each operand, the tensor of a cache that is bound for it. */
const CACHE_TENSORS = { k: "k", v: "v", kvState: "state" } as const;
const CAPTURED = "captures.";

/** The hooks of attention. `made` is the cache that the plan was made with. */
export const attentionHooks = (
  label: string,
  operands: Operands,
  made: KvSource | undefined,
): PlanHooks<AttentionBindings> => ({
  bindable: bindableOf(operands),
  others: ["captures"],
  check: (bindings) => checkCaptures(label, operands, bindings),
  boundBy(bindings, name) {
    const { cache, captures } = bindings;
    if (name.startsWith(CAPTURED)) return captures?.[name.slice(CAPTURED.length)];
    if (cache && name in CACHE_TENSORS)
      return cache.source[CACHE_TENSORS[name as keyof typeof CACHE_TENSORS]];
    return boundByName(bindings, name);
  },
  before({ cache }) {
    const source = cache?.source ?? made;
    source?.checkIdle?.(label);
    return source?.update;
  },
});

/** All operands but those that the plan owns; a cache as a whole stands for its tensors. */
function bindableOf(operands: Operands): ReadonlySet<string> {
  const hasCache = operands.has("kvState");
  const hidden: readonly string[] = hasCache ? [...OWN, "k", "v"] : OWN;
  const names = [...operands.keys()].filter(
    (name) => !hidden.includes(name) && !name.startsWith(CAPTURED),
  );
  return new Set([...names, ...(hasCache ? ["cache"] : [])]);
}

/** Throws FoveaError if a run gives a tensor for a name that no function captured as a tensor. */
function checkCaptures(
  label: string,
  operands: Operands,
  { captures = {} }: AttentionBindings,
): void {
  const all = [...operands.keys()].filter((key) => key.startsWith(CAPTURED));
  const names = all.map((key) => key.slice(CAPTURED.length));
  for (const name of Object.keys(captures)) {
    check(
      names.includes(name),
      "argument",
      () =>
        `${label}: no function captured a tensor ${name}; those captured are: ${names.join(", ") || "none"}.`,
    );
  }
}
