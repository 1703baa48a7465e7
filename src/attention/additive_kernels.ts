// The kernels of additive attention: the forward kernel, and before it, where many queries look at
// a key and rows are in registers, a pass that takes the exponentials of the keys once for all.
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
 * Queries that are too few for the rows of other tiles in workgroup memory, scores being costly,
 * and the tile for them.
 */
const FEW_QUERIES = { most: 8, variant: "8x32" } as const;

/**
 * Exponentials that a pass before has to save for a plan to have one: SwiftShader takes a quarter
 * of a millisecond for them, and the pass a tenth to start, and a tenth of a second to compile.
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
  // What keeps a tile of f16 from it is the scores, whatever the dtypes.
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
 * The kernels of a tile with that pass before them; without it where it saves too little, where the
 * device can't bind what it leaves, and where keys are in a cache, which may have far more rows
 * than keys.
 */
function withStoredKeys(
  device: GPUDevice,
  problem: ResolvedProblem,
  kernels: Kernels,
  tile: ForwardTile,
): Kernels {
  const { batch, heads, headDim, vDim, seqQ, k, source } = problem;
  const { qTiles, vSplits, qTile } = forwardGrid(tile, headDim, vDim, seqQ);
  const rows = k.shape[0] * k.shape[1] * k.shape[2];
  const floats = additiveKeysFloats(rows, headDim);
  const looks = batch * heads * qTiles * vSplits * keysOf(problem, qTile);
  // a look is what it costs to write and read them
  const saves = (looks - 2 * rows) * headDim >= LEAST_SAVED;
  const { maxStorageBufferBindingSize, maxBufferSize, maxStorageBuffersPerShaderStage } =
    device.limits;
  const fits =
    4 * floats <= Math.min(maxStorageBufferBindingSize, maxBufferSize) &&
    BUFFERS + extraBuffers(problem) <= maxStorageBuffersPerShaderStage;
  if (source || !saves || !fits) return kernels;
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
