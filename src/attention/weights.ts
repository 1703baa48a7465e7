// Weights and best keys, computed in a second pass on request: otherwise nothing of size M x N
// exists.

import { type OptionNames, readOptions } from "../given.ts";
import { checkDevice } from "../gpu/buffers.ts";
import { resolveSpec, type Tensor } from "../gpu/tensor.ts";
import { ADDITIVE_TERM_FLOPS } from "../kernels/forward_tiles.ts";
import { type ScoreKernel, scoreGrid, scoreKernel, TOP_KEYS, WEIGHTS } from "../kernels/weights.ts";
import { checkTensors, RUN_OPTIONS, type RunOptions, runOnce } from "../plan/run.ts";
import type { AttentionPlan } from "./bindings.ts";
import { buildPlan } from "./build.ts";
import { inTurn, isCache } from "./cached.ts";
import type { KvSourceOwner } from "./kv_source.ts";
import { type Asked, operandsOf } from "./memory.ts";
import type { Cached, TakenScoreProblem } from "./problem.ts";
import {
  type ResolvedRequest,
  resolveTopKeys,
  resolveWeights,
  type TakenTopKeys,
  type TakenWeights,
  TOP_KEYS_PROBLEM,
  type TopKeysProblem,
  WEIGHTS_PROBLEM,
  type WeightsProblem,
} from "./weights_problem.ts";

/** Options of {@link attentionWeights}: those of a problem, with tensors in place of specs. */
export interface WeightsOptions
  extends Omit<WeightsProblem, "q" | "k" | "lse" | "output">,
    RunOptions {
  /**
   * [B, H, M] f32: the log-sum-exp that attention of the same problem gave. Default: it is computed
   * first.
   */
  readonly lse?: Tensor;
  /** Where the weights go. Default: a new tensor, which is the caller's to destroy. */
  readonly output?: Tensor;
}

/** Options of {@link topKKeys}. */
export interface TopKOptions extends Omit<TopKeysProblem, "q" | "k" | "count">, RunOptions {
  /** Keys to find for each row, 1 to 64. */
  readonly k: number;
}

/** The names of the options. */
const { q: _q, k: _k, cache: _cache, ...WEIGHTS_OPTIONS } = { ...WEIGHTS_PROBLEM, ...RUN_OPTIONS };
const TOP_K_OPTIONS = topKOptions(TOP_KEYS_PROBLEM);

function topKOptions({
  q,
  cache,
  count,
  ...others
}: typeof TOP_KEYS_PROBLEM): OptionNames<TopKOptions> {
  return { ...others, ...RUN_OPTIONS, k: count };
}

export interface TopKResult {
  /**
   * [B, heads, rows, k] i32, best key first; -1 if the row sees fewer keys. In packed sequences
   * keys are counted in each.
   */
  readonly indices: Tensor<"i32">;
  /** [B, heads, rows, k] f32: the probabilities of these keys, 0 for an index of -1. */
  readonly weights: Tensor<"f32">;
}

/**
 * The scores or probabilities of attention, for inspection: all of them, or those of some heads and
 * queries.
 *
 * ```
 * s = scale * q.k ("raw") -> softcap ("capped") -> score function, biases, masks ("scores")
 *   -> softmax -> probability function ("probabilities")
 * ```
 *
 * Scores are computed anew from q and k, because attention itself never stores them. Give the same
 * options as to attention; dropout is ignored.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param q [B, H, M, D] f32, f16 or bf16
 * @param keys [B, Hkv, N, D], or a cache
 * @returns [B, heads, rows, N] f32; [B, rows, N] with `meanOverHeads`. For packed sequences
 *   [entries, heads, maxSeqlenQ, maxSeqlenKv], in which keys that an entry does not have are like
 *   keys that it does not see.
 *
 * @example
 * const { lse } = await attention(q, k, v, { causal: true, lse: true });
 * const weights = await attentionWeights(q, k, { causal: true, lse, heads: [0], rows: [0, 1] });
 */
export async function attentionWeights(
  q: Tensor,
  keys: Tensor | KvSourceOwner,
  asked: WeightsOptions = {},
): Promise<Tensor<"f32">> {
  const reading = readOptions("attentionWeights", asked, WEIGHTS_OPTIONS);
  const { output } = await withKeys(
    "attentionWeights",
    reading,
    q,
    keys,
    async (options, label, problem) => {
      const prepared = await prepareWeights(q.device, { ...options, ...problem });
      return runOnce(q.device, label, prepared, options, (make) => ({
        output: options.output ?? make("output", prepared.resolved.output.shape),
      }));
    },
  );
  return output as Tensor<"f32">;
}

/**
 * Compiles {@link attentionWeights} for a problem. The plan is encoded with `{ q, k, output }` and,
 * if it was made with one, `lse`.
 *
 * @example
 * const plan = await planAttentionWeights(device, { q, k, stage: "scores", rows: [0] });
 * plan.encode(encoder, { output });
 */
export async function planAttentionWeights(
  device: GPUDevice,
  problem: WeightsProblem | Cached<WeightsProblem>,
): Promise<AttentionPlan> {
  const taken = await readOptions("attentionWeights", problem, WEIGHTS_PROBLEM);
  const { plan, allocated } = await prepareWeights(device, taken);
  await allocated;
  return plan;
}

/**
 * The keys that matter most: for each query those with the largest scores after biases and masks,
 * largest first, the smaller index first among equals. It takes one pass over the keys, and no
 * memory but that of the results.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param q [B, H, M, D] f32, f16 or bf16
 * @param keys [B, Hkv, N, D], or a cache
 *
 * @example
 * const { indices, weights } = await topKKeys(q, k, { k: 8, causal: true });
 */
export async function topKKeys(
  q: Tensor,
  keys: Tensor | KvSourceOwner,
  asked: TopKOptions,
): Promise<TopKResult> {
  const reading = readOptions("topKKeys", asked, TOP_K_OPTIONS);
  return withKeys("topKKeys", reading, q, keys, async (options, label, problem) => {
    const { k: count, ...rest } = options;
    const prepared = await prepareTopKeys(q.device, { ...rest, ...problem, count });
    const { shape } = prepared.resolved;
    return runOnce(q.device, label, prepared, options, (make) => ({
      indices: make("indices", shape, "i32"),
      weights: make("weights", shape),
    })) as Promise<TopKResult>;
  });
}

/**
 * Compiles {@link topKKeys} for a problem, in which `count` stands for the option `k`. The plan is
 * encoded with `{ q, k, indices, weights }`, the last two dense.
 */
export async function planTopKKeys(
  device: GPUDevice,
  problem: TopKeysProblem | Cached<TopKeysProblem>,
): Promise<AttentionPlan> {
  const taken = await readOptions("topKKeys", problem, TOP_KEYS_PROBLEM);
  const { plan, allocated } = await prepareTopKeys(device, taken);
  await allocated;
  return plan;
}

async function prepareWeights(device: GPUDevice, problem: TakenWeights) {
  // Lists of heads and rows are tables, whatever the options.
  const resolved = resolveWeights(problem, await import("../scores/extension.ts"));
  const { stage, mean, lse, output, chosenHeads } = resolved;
  const turns = stage === "probabilities" && !lse ? 2 : 1;
  const asked: Asked[] = [
    { name: "output", spec: output, given: problem.output, written: true },
    ...(lse ? [{ name: "lse", spec: lse, given: problem.lse, written: false } as const] : []),
  ];
  const work = turns * (mean ? chosenHeads : 1);
  const request = { ...resolved, asked, split: turns === 1, work };
  return { ...(await prepare(device, WEIGHTS, problem, request)), resolved };
}

async function prepareTopKeys(device: GPUDevice, problem: TakenTopKeys) {
  const resolved = resolveTopKeys(problem, await import("../scores/extension.ts"));
  const result = (name: "indices" | "weights", dtype: "i32" | "f32"): Asked => {
    const spec = resolveSpec(name, { shape: resolved.shape, dtype });
    return { name, spec, given: undefined, written: true };
  };
  const asked = [result("indices", "i32"), result("weights", "f32")];
  const request = { ...resolved, asked, split: false, work: 1 };
  return { ...(await prepare(device, TOP_KEYS, problem, request)), resolved };
}

/** A request, and how its kernel covers it. */
interface Prepared extends ResolvedRequest {
  readonly asked: readonly Asked[];
  /** Whether workgroups share the keys of a row. */
  readonly split: boolean;
  /** How often a workgroup goes over its keys. */
  readonly work: number;
}

function prepare(
  device: GPUDevice,
  kernel: ScoreKernel,
  problem: TakenScoreProblem,
  { scores, params, chosenRows, asked, split, work }: Prepared,
) {
  checkDevice(device);
  const memory = operandsOf(device, problem, scores, { asked });
  const base = memory.operands.get("output")?.base ?? 0;
  const places = { ...memory.places, ...params, o_base: base };
  return buildPlan(device, scores, { ...memory, places }, (slots) => {
    const { headDim, seqKv, mostKeys } = scores;
    const grid = scoreGrid(kernel, chosenRows, seqKv, split);
    const term = slots.similarity?.kind === "additive" ? ADDITIVE_TERM_FLOPS : 2;
    const flops = (term * grid.qTile * mostKeys * headDim * work) / grid.vSplits;
    const source = scoreKernel(kernel, { headDim, ...slots });
    return [{ source, grid: { ...grid, heads: params.grid_heads as number, flops } }];
  });
}

/**
 * Runs a one-liner with its options and the part of its problem that it takes as arguments; for a
 * cache it waits for its turn among the cache's calls. Rejects with FoveaError("argument") if an
 * argument isn't a tensor.
 */
async function withKeys<T, Options extends { readonly label?: string }>(
  name: string,
  reading: Promise<Options>,
  q: Tensor,
  keys: Tensor | KvSourceOwner,
  run: (
    options: Options,
    label: string,
    problem: { q: Tensor; k: Tensor } | { q: Tensor; cache: KvSourceOwner },
  ) => Promise<T>,
): Promise<T> {
  const work = async (cache: KvSourceOwner | undefined) => {
    const options = await reading;
    const { label = name } = options;
    checkTensors(label, cache ? { q } : { q, k: keys as Tensor });
    return run(options, label, cache ? { q, cache } : { q, k: keys as Tensor });
  };
  return isCache(keys) ? inTurn(keys, reading, work) : work(undefined);
}
