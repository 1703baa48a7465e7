// Attention over a cache: a run takes its keys and values into the cache, and its queries see all
// that is there.

import { planAttention } from "../../attention/plan_attention.ts";
import { planAttentionWeights } from "../../attention/weights.ts";
import type { KvCache } from "../../cache/contiguous.ts";
import type { PagedBatch } from "../../cache/paged/batch.ts";
import { withoutFunction } from "../arguments.ts";
import type { Place, Step, Value } from "../value.ts";
import { type AttentionSettings, settled } from "./attention.ts";

/** A cache that programs append to. It outlives them, and does not grow. */
export type ProgramCache = Pick<KvCache | PagedBatch, "planAppend" | "source">;

/** Options of {@link cachedAttention}. */
export interface CachedAttentionSettings
  extends Omit<AttentionSettings, "mask" | "bias" | "kvLengths" | "dropout"> {
  /**
   * How many rows each entry gets in a run, from the first on, asked when the run is encoded; tell
   * `qLengths` the same. Default all.
   */
  readonly counts?: () => readonly number[] | undefined;
}

/**
 * @internal Appends k and v to a cache and gives the attention of q over all that it has then. A
 *   run changes the cache; it has no gradient.
 *
 * @param q [B, H, M, D] f32
 * @param k [B, Hkv, M, D]
 * @param v [B, Hkv, M, Dv]
 * @param cache Of B entries
 * @returns [B, H, M, Dv], whose elements lie in the order [B, M, H, Dv]
 */
export function cachedAttention(
  q: Value,
  k: Value,
  v: Value,
  cache: ProgramCache,
  given: CachedAttentionSettings = {},
): Value {
  const label = "cachedAttention";
  const [watch, watched] = withoutFunction(label, given, "watch");
  const [counts, rest] = withoutFunction(label, watched, "counts");
  const { graph, inputs: others, options } = settled(label, { q, k, v }, rest);
  const [B, H, M] = q.shape;
  const inputs = [q, k, v, ...others];
  const output = graph.computed(label, [B, M, H, v.shape[3]], inputs).permute(0, 2, 1, 3);
  const weights =
    watch && graph.computed("attention weights", [B, H, M, cache.source.capacity], []);
  const attend = async (device: GPUDevice, at: Place): Promise<Step[]> => {
    const problem = { q: at(q), cache, ...options(at) };
    const plans: Step[] = [await planAttention(device, { ...problem, output: at(output) })];
    if (!weights) return plans;
    try {
      plans.push(await planAttentionWeights(device, { ...problem, output: at(weights) }));
    } catch (error) {
      for (const one of plans) one.destroy();
      throw error;
    }
    return plans;
  };
  graph.add({
    label,
    inputs,
    outputs: weights ? [output, weights] : [output],
    async plan(device, at) {
      const append = await cache.planAppend({ k: at(k), v: at(v) });
      try {
        return joined(append, counts, await attend(device, at));
      } catch (error) {
        append.destroy();
        throw error;
      }
    },
  });
  if (weights) watch?.(weights);
  return output;
}

/**
 * @internal Appends k and v to a cache, and computes nothing: for the last layer of a run after
 *   which only caches matter. What it gives has the shape of the attention, and no numbers.
 *
 * @param q [B, H, M, D], of which only the shape counts
 */
export function cachedRows(
  q: Value,
  k: Value,
  v: Value,
  cache: ProgramCache,
  counts: () => readonly number[] | undefined,
): Value {
  const label = "cachedRows";
  const [B, H, M] = q.shape;
  const { graph } = k;
  const output = graph.computed(label, [B, M, H, v.shape[3]], [k, v]).permute(0, 2, 1, 3);
  graph.add({
    label,
    inputs: [k, v],
    outputs: [output],
    plan: async (_, at) => joined(await cache.planAppend({ k: at(k), v: at(v) }), counts, []),
  });
  return output;
}

/** Dispatches of an append: the rows, and the lengths. */
const APPEND_DISPATCHES = 2;

/** An append and what reads the cache after it, as one step. */
function joined(
  append: Awaited<ReturnType<KvCache["planAppend"]>>,
  counts: CachedAttentionSettings["counts"],
  plans: readonly Step[],
): Step {
  return {
    kernel: plans[0]?.kernel ?? "cache append",
    workspaceBytes: plans.reduce((sum, { workspaceBytes }) => sum + workspaceBytes, 0),
    dispatchCount: plans.reduce((sum, one) => sum + one.dispatchCount, APPEND_DISPATCHES),
    prepare() {
      const recordings = plans.map((one) => one.prepare({}));
      return (pass) => {
        const own = counts?.();
        append.encode(pass, own ? { counts: own } : {});
        for (const record of recordings) record?.(pass);
      };
    },
    destroy() {
      for (const one of [append, ...plans]) one.destroy();
    },
  };
}
