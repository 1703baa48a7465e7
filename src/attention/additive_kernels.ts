// The kernels of additive attention: the forward kernel and, if many queries look at a key and rows
// are in registers, a pass before it that computes the exponentials of the keys once for all.
// Loaded by the first plan that has such scores.

import { check } from "../errors.ts";
import { Tensor } from "../gpu/tensor.ts";
import {
  additiveKeysFloats,
  additiveKeysFlops,
  additiveKeysKernel,
  additiveKeysWorkgroups,
  STORED_KEYS_BINDING,
} from "../kernels/additive_keys.ts";
import { isDecodeVariant } from "../kernels/decode.ts";
import { forwardGrid } from "../kernels/forward.ts";
import {
  ADDITIVE_TERM_FLOPS,
  chooseForwardTile,
  type ForwardTile,
  type TileLimits,
} from "../kernels/forward_tiles.ts";
import { forwardKernels, type Kernels, keysOf } from "./forward_kernels.ts";
import type { ResolvedProblem } from "./resolved.ts";
import type { Stage } from "./uniform.ts";

/**
 * The most queries that leave rows of other tiles idle, which costs much with such scores; and the
 * tile for so few.
 */
const FEW_QUERIES = { most: 8, variant: "8x32" } as const;

/**
 * The fewest exponentials that the pass before must save for a plan to have it. SwiftShader takes a
 * quarter of a millisecond for so many; the pass takes a tenth of a millisecond to start, and a
 * tenth of a second to compile.
 */
const LEAST_SAVED = 2 ** 18;

/**
 * Storage buffers of additive attention with stored keys: q, k, v, tables, output and workspace.
 */
const BUFFERS = 6;

/** The kernels of a problem. Throws FoveaError for a variant that can't run here. */
export function additiveKernels(
  device: GPUDevice,
  problem: ResolvedProblem,
  limits: TileLimits,
): Kernels {
  const { headDim, vDim, seqQ, variant, label, blockMask } = problem;
  check(
    !isDecodeVariant(variant),
    "argument",
    () =>
      `${label}: variant ${variant} has no additive scores; take another variant, or leave it out.`,
  );
  // A tile of f16 is refused because of the scores, whatever the dtypes are.
  const asked = {
    headDim,
    vDim,
    seqQ,
    additive: true,
    f16Rows: true,
    blockKeys: blockMask?.options.blockSize[1],
  };
  const chosen = chooseForwardTile({ ...asked, variant }, limits);
  const few = variant === undefined && chosen.form === "tiles" && seqQ <= FEW_QUERIES.most;
  const tile = few ? chooseForwardTile({ ...asked, variant: FEW_QUERIES.variant }, limits) : chosen;
  const kernels = forwardKernels(problem, tile, ADDITIVE_TERM_FLOPS);
  return tile.form === "tiles" ? kernels : withStoredKeys(device, problem, kernels, tile);
}

/**
 * The kernels of a tile with the pass of exponentials before them. The pass is left out if it saves
 * too little, if the device can't bind its result, and if keys are in a cache, which may have far
 * more rows than keys.
 */
function withStoredKeys(
  device: GPUDevice,
  problem: ResolvedProblem,
  kernels: Kernels,
  tile: ForwardTile,
): Kernels {
  const { batch, heads, headDim, vDim, seqQ, k, cache } = problem;
  const { qTiles, vSplits, qTile } = forwardGrid(tile, headDim, vDim, seqQ);
  const rows = k.shape[0] * k.shape[1] * k.shape[2];
  const floats = additiveKeysFloats(rows, headDim);
  const looks = batch * heads * qTiles * vSplits * keysOf(problem, qTile);
  // Writing an exponential and reading it again costs one computation each.
  const saves = (looks - 2 * rows) * headDim >= LEAST_SAVED;
  const { maxStorageBufferBindingSize, maxBufferSize, maxStorageBuffersPerShaderStage } =
    device.limits;
  const fits =
    4 * floats <= Math.min(maxStorageBufferBindingSize, maxBufferSize) &&
    BUFFERS + extraBuffers(problem) <= maxStorageBuffersPerShaderStage;
  if (cache || !saves || !fits) return kernels;
  const share = Math.ceil(additiveKeysWorkgroups(rows) / batch);
  const before = {
    qTile: 1,
    qTiles: share,
    vSplits: 1,
    heads: 1,
    flops: additiveKeysFlops(headDim),
  };
  const stagesOf: Kernels["stagesOf"] = async (slots) => {
    const { similarity } = slots;
    const stored = similarity?.kind === "additive" && {
      similarity: { ...similarity, storedKeys: true as const },
    };
    const attention = await kernels.stagesOf({ ...slots, ...stored });
    return [
      { source: additiveKeysKernel(headDim, slots), names: {}, grid: before },
      ...attention.map(withBinding),
    ];
  };
  return { ...kernels, stagesOf, workspace: [floats] };
}

const withBinding = ({ source, ...stage }: Stage): Stage => ({
  ...stage,
  source: { ...source, bindings: [...source.bindings, STORED_KEYS_BINDING] },
});

/**
 * Storage buffers that options bring, beside those that all problems of additive attention bind.
 */
function extraBuffers(problem: ResolvedProblem): number {
  const { lse, rowMax, options } = problem;
  const captures = options.flatMap(({ calls }) => Object.values(calls?.captures ?? {}));
  const tensors = [lse, rowMax, ...options.map(({ operand }) => operand)].filter(Boolean);
  return tensors.length + captures.filter((value) => value instanceof Tensor).length;
}
