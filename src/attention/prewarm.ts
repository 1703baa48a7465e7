// Compiles kernels ahead of the first call.

import { check, FoveaError, show } from "../errors.ts";
import { elementsOfList } from "../given.ts";
import { checkDevice } from "../gpu/buffers.ts";
import { takeOptions } from "../options.ts";
import { preparePlan } from "./plan_attention.ts";
import { ATTENTION_PROBLEM, type AttentionProblem, type Cached } from "./problem.ts";

/**
 * Compiles the kernels that plans of these problems need, off the main thread and each of them
 * once, so that the first call does not wait for a compiler. Descriptions are enough. Kernels are
 * compiled for head dims, dtypes and options, and differ between up to 256 keys and more, whose
 * sums keep their digits in another way; other lengths and batch sizes hardly matter. So a prompt
 * of a thousand tokens warms up for all prompts of more than 256, one of a hundred for shorter
 * ones, and a problem of one query for decoding. Resolves when all are ready, and keeps no memory
 * but the compiled kernels.
 *
 * Rejects with FoveaError that names the problem which can't be planned and says why; the others
 * are compiled all the same.
 *
 * @param problems Problems as {@link planAttention} takes them, with tensors, descriptions or
 *   caches
 *
 * @example
 * const q = { shape: [1, 8, 512, 64] };
 * const token = { shape: [1, 8, 1, 64] };
 * await prewarm(device, [{ q, k: q, v: q, causal: true }, { q: token, k: q, v: q, causal: true }]);
 */
export async function prewarm(
  device: GPUDevice,
  problems: readonly (AttentionProblem | Cached<AttentionProblem>)[],
): Promise<void> {
  checkDevice(device);
  const list = elementsOfList<(typeof problems)[number]>(problems);
  check(
    list !== undefined,
    "argument",
    () => `prewarm: problems must be a list of problems { q, k, v, ... }, got ${show(problems)}.`,
  );
  const outcomes = await Promise.allSettled(list.map((problem) => compileOnly(device, problem)));
  for (const [index, outcome] of outcomes.entries()) {
    if (outcome.status === "fulfilled") continue;
    const { reason } = outcome;
    if (!(reason instanceof FoveaError)) throw reason;
    throw new FoveaError(reason.code, `prewarm: problems[${index}]: ${reason.message}`, {
      cause: reason,
    });
  }
}

async function compileOnly(
  device: GPUDevice,
  problem: AttentionProblem | Cached<AttentionProblem>,
): Promise<void> {
  const { plan, allocated } = await preparePlan(
    device,
    takeOptions("attention", problem, ATTENTION_PROBLEM),
  );
  plan.destroy();
  await allocated.catch((error: unknown) => {
    // If there is no scratch memory for a large problem now, its kernels may compile all the same.
    if (!(error instanceof FoveaError && error.code === "out-of-memory")) throw error;
  });
}
