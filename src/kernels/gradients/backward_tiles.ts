// The tiles of the kernels of attention's gradients, with the evidence for each, and which of them
// a problem gets.

import { check } from "../../errors.ts";
import { chunkOf, type TileLimits } from "../forward_tiles.ts";

export const LANES_X = 8;
/** Streamed rows whose weights and columns meet at a time. */
const GROUP_ROWS = 32;

/** A row of the tile table. */
export interface BackwardTile {
  /** Own rows x streamed rows. */
  readonly name: string;
  /**
   * The kernels: backward.wesl (`tiles`), in two passes over the scores, or backward_rows.wesl
   * (`quads`), in one, which needs subgroups and d_q as aligned rows of f32.
   */
  readonly form: "tiles" | "quads";
  /** Own rows of a lane, and lanes above each other. */
  readonly rows: number;
  readonly lanes: number;
  /** Streamed rows of a tile. */
  readonly streamed: 4 | 32 | 64;
  readonly maxDim: number;
  /**
   * Vec4 columns of a lane that are in workgroup memory at a time, if it has an even number, for
   * own queries and for own keys.
   */
  readonly vAtOnce: readonly [queries: 1 | 2, keys: 1 | 2];
  /** The fewest scores of a head for which a software adapter takes the row. Default any number. */
  readonly softwareScores?: number;
}

const TILES = { form: "tiles", lanes: 8, vAtOnce: [1, 1] } as const;
const QUADS = { form: "quads", lanes: 4, streamed: 4, vAtOnce: [1, 1] } as const;
const ENOUGH = { softwareScores: 2 ** 17 };

/** The first row that fits the problem and the device is taken. */
export const BACKWARD_TILES: readonly BackwardTile[] = [
  // Compiled in the time of 8x32 (15 and 20 s at D = 64 on two busy cores), and ten times as fast.
  { ...QUADS, name: "16x4-quad", rows: 4, maxDim: 64 },
  { ...QUADS, name: "8x4-quad", rows: 2, maxDim: 128 },
  // Own queries and own keys: D = 64: 85 and 85 % multiply-adds, 152 and 208 VGPRs, 2.3 and 2.5
  // multiply-adds for each word to or from workgroup memory, 13,312 B; D = 128: 87 and 87 %, 184 and
  // 256 VGPRs. Two columns of own queries at a time would be 2.6 a word, and 84 % at D = 64.
  { ...TILES, ...ENOUGH, name: "32x64", rows: 4, streamed: 64, maxDim: 128, vAtOnce: [1, 2] },
  { ...TILES, ...ENOUGH, name: "16x32", rows: 2, streamed: 32, maxDim: 256 },
  // One row a lane, for runs that are shorter than the compilation, as in tests; and for wide rows.
  { ...TILES, name: "8x32", rows: 1, streamed: 32, maxDim: Number.POSITIVE_INFINITY },
];

export interface BackwardTileProblem {
  /** The scores of a head. */
  readonly scores: number;
  readonly headDim: number;
  readonly vDim: number;
  /** Queries and keys of a block of the block mask. */
  readonly block: readonly number[];
  readonly variant: string | undefined;
}

/**
 * Chooses a tile, or finds the one that was asked for by name. Throws FoveaError if that one can't
 * run.
 *
 * @param onePass Whether the gradients of queries can be added up in memory
 */
export function chooseBackwardTile(
  { headDim, vDim, block, variant, scores }: BackwardTileProblem,
  { workgroupBytes, software, subgroups = false }: TileLimits,
  onePass: boolean,
): BackwardTile {
  const widest = Math.max(headDim, vDim);
  const fits = (tile: BackwardTile) =>
    widest <= tile.maxDim &&
    backwardWorkgroupBytes(tile) <= workgroupBytes &&
    block.every((size) => size % tile.streamed === 0);
  const taken = BACKWARD_TILES.find((tile) =>
    variant === undefined
      ? fits(tile) &&
        (software ? scores >= (tile.softwareScores ?? 0) : tile.form === "tiles") &&
        (tile.form === "tiles" || (subgroups && onePass))
      : tile.name === variant,
  );
  check(taken?.form !== "quads" || (subgroups && onePass), "limit", () =>
    subgroups
      ? `variant ${variant} adds up the gradients of q in memory: it needs dQ in f32 with rows of whole, aligned vec4s, no similarity, no extremely large scale, and one more storage buffer than the others; take another variant.`
      : `variant ${variant} needs the feature subgroups, which the device does not have; take another.`,
  );
  check(
    taken !== undefined && fits(taken),
    variant === undefined || taken ? "limit" : "argument",
    () =>
      taken
        ? `variant ${variant} of the gradients can't run here: it takes head dims up to ${taken.maxDim}, ${backwardWorkgroupBytes(taken)} bytes of workgroup memory (the device has ${workgroupBytes}), and block masks of multiples of ${taken.streamed}.`
        : `no variant ${variant} of the gradients; there are ${BACKWARD_TILES.map(({ name }) => name).join(", ")}.`,
  );
  return taken as BackwardTile;
}

/** The tile of kernels that add up over the same scores: one with workgroup memory. */
export const chooseSumTile = (problem: BackwardTileProblem, limits: TileLimits): BackwardTile =>
  chooseBackwardTile(
    isQuads(problem.variant) ? { ...problem, variant: undefined } : problem,
    limits,
    false,
  );

const isQuads = (variant: string | undefined) =>
  BACKWARD_TILES.some(({ name, form }) => name === variant && form === "quads");

/** The constants of a tile for a problem's head dims. */
export function constantsOf({ vAtOnce, form }: BackwardTile, headDim: number, vDim: number) {
  const isEven = (cols: number) => cols % 2 === 0;
  const colsOf = (dim: number) => Math.ceil(Math.ceil(dim / 4) / (form === "quads" ? 1 : LANES_X));
  const xCols = colsOf(headDim);
  const yCols = colsOf(vDim);
  return {
    dChunk: Math.max(chunkOf(headDim), chunkOf(vDim)),
    xCols,
    yCols,
    vAtOnce: {
      queries: isEven(xCols) ? vAtOnce[0] : 1,
      keys: isEven(xCols) && isEven(yCols) ? vAtOnce[1] : 1,
    },
  };
}

/** Bytes of workgroup memory, as the shaders declare it. */
export function backwardWorkgroupBytes(tile: BackwardTile): number {
  const { rows, lanes, streamed, vAtOnce } = tile;
  const ownRows = lanes * rows;
  if (tile.form === "quads") return 32 * ownRows;
  const own = ownRows * LANES_X;
  const columns = GROUP_ROWS * (LANES_X * Math.max(...vAtOnce) + 1);
  return 16 * (own + Math.max(streamed * (LANES_X + 1), columns, own));
}
