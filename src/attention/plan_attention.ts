// The plan of attention itself: the choice of its kernels and its variants.

import { check } from "../errors.ts";
import { readOptions } from "../given.ts";
import { checkDevice } from "../gpu/buffers.ts";
import { MATRIX_FEATURE, tileLimits } from "../gpu/device.ts";
import {
  chooseDecodeTile,
  chooseKvSplits,
  combineGrid,
  decodeGrid,
  decodeKernel,
  isDecodeVariant,
  MOST_QUERIES,
  recordFloats,
  WIDE,
} from "../kernels/decode.ts";
import {
  chooseForwardTile,
  type ForwardTile,
  isMatrixVariant,
  type TileLimits,
} from "../kernels/forward_tiles.ts";
import { accessOf } from "../plan/access.ts";
import { bindingBase } from "../plan/specs.ts";
import { assemblePlan } from "./assemble.ts";
import type { AttentionPlan } from "./bindings.ts";
import { forwardKernels, type Kernels } from "./forward_kernels.ts";
import {
  ATTENTION_PROBLEM,
  type AttentionProblem,
  type Cached,
  type TakenProblem,
} from "./problem.ts";
import { isLargeScale } from "./resolve.ts";
import type { ResolvedProblem } from "./resolved.ts";

/**
 * Compiles softmax(scale * Q K^T + mask) V for a problem: a checked, reusable recipe without any
 * memory of size M x N. Compilation is asynchronous and happens once for a device and a set of
 * constants (head dims, tile, slots); lengths, strides and causality are not among these constants.
 *
 * ```
 * s[b,h,i,j] = scale * Q[b,h,i,:] . K[b,g,j,:]       g = floor(h * Hkv / H)
 * O[b,h,i,:] = sum_j p[b,h,i,j] V[b,g,j,:]     p = softmax of s over the keys j that query i sees
 * LSE[b,h,i] = ln sum_j exp(s[b,h,i,j])
 * ```
 *
 * Source: Attention Is All You Need (arXiv 1706.03762), computed as in FlashAttention-2 (arXiv
 * 2307.08691).
 *
 * Scores, softmax and sums are f32. If q, k, v and output are f16 and the device has subgroup
 * matrices for them, probabilities are rounded to f16 before they weight values. A query that sees
 * no key gets output 0 and LSE -Infinity. A key that a query does not see never reaches its output,
 * whatever it holds. The same inputs on the same device give the same bits.
 *
 * Rejects with FoveaError: `"argument"` and `"limit"` before the GPU sees anything; `"shader"`,
 * `"device-lost"`, `"out-of-memory"`.
 *
 * @example
 * const plan = await planAttention(device, { q, k, v, causal: true });
 * plan.encode(encoder, { output });
 * device.queue.submit([encoder.finish()]);
 */
export async function planAttention(
  device: GPUDevice,
  problem: AttentionProblem | Cached<AttentionProblem>,
): Promise<AttentionPlan> {
  const taken = await readOptions("attention", problem, ATTENTION_PROBLEM);
  const { plan, allocated } = await preparePlan(device, taken);
  await allocated;
  return plan;
}

/**
 * Gives a plan, and a promise that rejects if its buffers could not be allocated, for callers with
 * more to wait for.
 */
export async function preparePlan(device: GPUDevice, problem: TakenProblem) {
  checkDevice(device);
  return assemblePlan(device, problem, async (resolved) =>
    chooseKernels(device, await withTuned(device, resolved)),
  );
}

/**
 * The problem with the kernel that tuning chose. Throws FoveaError for a result of another problem.
 */
async function withTuned(device: GPUDevice, problem: ResolvedProblem): Promise<ResolvedProblem> {
  if (problem.tuned === undefined) return problem;
  const { tunedChoice } = await import("./tuned.ts");
  return { ...problem, ...tunedChoice(device, problem) };
}

/** Chooses the kernels. Throws FoveaError for a variant that can't run here. */
export async function chooseKernels(
  device: GPUDevice,
  resolved: ResolvedProblem,
): Promise<Kernels> {
  const plain = isMatrixVariant(resolved.variant) ? undefined : await kernelsOf(device, resolved);
  if (plain && (!device.features.has(MATRIX_FEATURE) || resolved.variant)) return plain;
  const { matrixKernels } = await import("./matrices.ts");
  return matrixKernels(device, resolved, plain);
}

/** Picks decode or forward kernels from the tile tables. */
async function kernelsOf(device: GPUDevice, resolved: ResolvedProblem): Promise<Kernels> {
  const limits = tileLimits(device);
  if (resolved.similarity?.kind === "additive") {
    const { additiveKernels } = await import("./additive_kernels.ts");
    return additiveKernels(device, resolved, limits);
  }
  if (isDecodeVariant(resolved.variant)) return decodeKernels(resolved, limits);
  const blockKeys = resolved.blockMask?.options.blockSize[1];
  const half = { f16Rows: hasF16Rows(device, resolved), plainScores: isPlain(resolved) };
  const tile = chooseForwardTile({ ...resolved, ...half, blockKeys }, limits);
  return isDecoded(resolved, tile)
    ? decodeKernels(resolved, limits)
    : forwardKernels(resolved, tile, 2);
}

function hasF16Rows(device: GPUDevice, { q, k, v, cache }: ResolvedProblem): boolean {
  const read = [q, cache?.k ?? k, cache?.v ?? v];
  return (
    !cache?.quantised &&
    read.every((spec) => accessOf(device, { spec, base: bindingBase(device, spec) }) === "f16")
  );
}

/** Whether a problem has no more than a scale, causality, windows, lengths and sinks. */
function isPlain(problem: ResolvedProblem): boolean {
  const { options, lse, rowMax } = problem;
  return (
    options.every(({ keeps }) => keeps === "all") && !isLargeScale(problem) && !(lse ?? rowMax)
  );
}

/**
 * Whether the decode kernels take a problem: it has few queries, or keys that the caller splits,
 * and no block mask.
 */
function isDecoded(
  { seqQ, headDim, variant, kvSplits, blockMask }: ResolvedProblem,
  { form }: ForwardTile,
) {
  if (variant !== undefined || blockMask) return false;
  const quads = form === "quads" && kvSplits === undefined;
  return seqQ <= MOST_QUERIES[quads ? (headDim > WIDE ? "wideQuads" : "quads") : "tiles"];
}

/**
 * The kernels of decoding: workgroups that share the keys of a row leave partial results, and a
 * second kernel combines these.
 */
function decodeKernels(problem: ResolvedProblem, limits: TileLimits): Kernels {
  const { headDim, vDim, seqQ, batch, heads, kvHeads, window, sinkTokens, label, blockMask } =
    problem;
  check(
    !blockMask,
    "argument",
    () =>
      `${label}: variant ${problem.variant} takes no block mask; use its mask function, or another variant.`,
  );
  const packedRows = (heads / kvHeads) * seqQ;
  const tile = chooseDecodeTile(headDim, packedRows, limits, problem.variant);
  const { qTiles, vSplits, qTile } = decodeGrid(tile, vDim, packedRows);
  const inWindow = window[0] < 0 ? problem.mostKeys : window[0] + seqQ + sinkTokens;
  const keys = Math.min(problem.mostKeys, inWindow);
  const kvSplits =
    problem.kvSplits ?? chooseKvSplits(keys, batch * kvHeads * qTiles * vSplits, limits.software);
  const flops = (2 * qTile * problem.mostKeys * (headDim + vDim / vSplits)) / kvSplits;
  const grid = { qTiles, qTile, kvSplits, vSplits: vSplits * kvSplits, heads: kvHeads, flops };
  const end = { ...combineGrid(vDim, seqQ), kvSplits, flops: 1 };
  const chosen = { variant: tile.name, kvSplits };
  if (kvSplits === 1 && tile.form === "quads") {
    const whole = { headDim, vDim, tile, whole: true };
    return {
      ...chosen,
      stagesOf: async (slots) => [
        { source: await decodeKernel("decode", { ...whole, ...slots }), grid },
      ],
    };
  }
  return {
    ...chosen,
    stagesOf: async (slots) => [
      { source: await decodeKernel("decode", { headDim, vDim, tile, ...slots }), grid },
      { source: await decodeKernel("combine", { headDim, vDim, tile, ...slots }), grid: end },
    ],
    workspace: [batch * heads * seqQ * kvSplits * recordFloats(vDim)],
  };
}
