// The tiles of the forward kernel, with the evidence for each, and which of them a problem gets.

import { check } from "../errors.ts";

const LANES_X = 8;
export const KV_TILE = 32;

/** A row of the tile table. */
export interface ForwardTile {
  /** Query rows x keys of a tile, and another word if that doesn't tell the variant from others. */
  readonly name: string;
  readonly maxHeadDim: number;
  /** The widest share of v that one workgroup takes; wider values are split over several. */
  readonly maxVDim: number;
  /**
   * The kernel: forward.wesl (`tiles`); forward_rows.wesl, in which each lane reads all keys
   * (`rows`) or the lanes of a quad share them (`quads`); or forward_half.wesl, which multiplies in
   * f16 (`half`).
   */
  readonly form: "tiles" | "rows" | "quads" | "half";
  /** Query rows of a lane, and lanes that stand above each other. */
  readonly rows: number;
  readonly lanes: number;
  /** Devices for which the row is taken unless it is asked for by name. */
  readonly devices: "all" | "gpus" | "software" | "none";
  /**
   * Vec4 columns of a lane whose v is in workgroup memory at a time, if the lane has an even number
   * of them. Default 1.
   */
  readonly vAtOnce?: 2;
  /** Keys of a tile. Default 32. */
  readonly keys?: 64;
  /** The fewest queries for which the row is taken; default any number. */
  readonly minQueries?: number;
}

const TILES = { form: "tiles", lanes: 8, devices: "all" } as const;
const QUADS = { form: "quads", lanes: 4, devices: "software" } as const;
const HALF = { form: "half", rows: 4, lanes: 16, devices: "gpus" } as const;
const ANY = Number.POSITIVE_INFINITY;

/**
 * The first row that fits the problem and the device is taken. The evidence is the instruction
 * report for RDNA2 (`npm run isa`): the share of multiply-adds among the vector instructions of a
 * turn of the key loop, registers, and bytes of workgroup memory. No row spills. SwiftShader's
 * times are those of bench/results/swiftshader.json, suite forward.
 */
export const FORWARD_TILES: readonly ForwardTile[] = [
  // These rows are for software adapters: they have no barriers, hardly any workgroup memory, and
  // few reads. SwiftShader's processor time at N = 512, D = 64, H = 8: 108, 134, 185 ms with 8, 4,
  // 2 rows a lane, 572 in tiles of 64x32; and 2.7, 1.5, 1.1 and 3.4 s to compile, which do not pay
  // for short prompts. N = 256, D = 128: 67 and 89 ms with 4 and 2 rows (271; 2.7, 1.7 and 3.9 s).
  // N = 128, D = 256: 51 ms with 2 (32x32: 172).
  { ...QUADS, name: "32x4-quad", maxHeadDim: 64, maxVDim: 64, rows: 8, minQueries: 512 },
  { ...QUADS, name: "16x4-quad", maxHeadDim: 128, maxVDim: 128, rows: 4 },
  { ...QUADS, name: "8x4-quad", maxHeadDim: 256, maxVDim: 256, rows: 2 },
  // Products in f16, if they are allowed. D = 64: 1.30 multiply-adds an instruction, 152 VGPRs,
  // 28,684 B. D = 128: 1.32, 176 VGPRs, 32,268 B. shaders/README.md has its errors and what else
  // was tried in f16.
  { ...HALF, name: "64x64-f16", maxHeadDim: 64, maxVDim: 64, keys: 64 },
  { ...HALF, name: "64x32-f16", maxHeadDim: 128, maxVDim: 128 },
  // It has 3.6 multiply-adds for each word to or from workgroup memory, and the 64x32 tiles have
  // 2.4, or 3.0 with twice as much of v there. It has half as many barriers a key. D = 64: 90 %,
  // 216 VGPRs, 19,460 B, as many waves as before. SwiftShader: 77 % of the time of 64x32 (3.3 s to
  // compile), 4.2 s. D = 128 would split v over workgroups that multiply q and k twice.
  { ...TILES, name: "64x64", maxHeadDim: ANY, maxVDim: 64, rows: 8, keys: 64, vAtOnce: 2 },
  // D = 128: 90 %, 232 VGPRs, 18,948 B, 3.1 multiply-adds a word.
  { ...TILES, name: "64x32-wide", maxHeadDim: ANY, maxVDim: 128, rows: 8, vAtOnce: 2 },
  // For devices with 16 KiB. D = 64: 86 %, 168 VGPRs, 14,852 B; D = 128: 90 %, 232 VGPRs.
  { ...TILES, name: "64x32", maxHeadDim: ANY, maxVDim: 128, rows: 8 },
  // Four rows a lane leave registers for 8 vec4 columns of v. D = 256: 90 %, 192 VGPRs, 9,732 B,
  // but only 1.8 multiply-adds for each word read from workgroup memory; 64 rows have 2.4.
  { ...TILES, name: "32x32", maxHeadDim: ANY, maxVDim: 256, rows: 4 },
  // One row a lane is for runs that are shorter than the compilation, as in tests: SwiftShader
  // takes a quarter of the time of 64 rows to compile it, and two fifths of that of 32, but 2.4
  // times as long to run it (D = 64, processor time).
  { ...TILES, name: "8x32", maxHeadDim: ANY, maxVDim: 128, rows: 1, devices: "none" },
  // Scalar loads instead of workgroup memory, for GPUs that have them. It is taken by name only,
  // until it was timed on one. D = 64: 95 % between rescales, 152 VGPRs, 1,024 B; D = 96: 96 %, 216
  // VGPRs. D = 128 spills.
  { form: "rows", name: "64x4", maxHeadDim: 96, maxVDim: 96, rows: 1, lanes: 64, devices: "none" },
];

/**
 * Variants of the kernel of subgroup matrices, forward_matrix.ts, which is loaded when it may be
 * chosen.
 */
export const MATRIX_VARIANTS = ["matrix-f16", "matrix-f32"] as const;
export type MatrixVariant = (typeof MATRIX_VARIANTS)[number];
export const isMatrixVariant = (variant: string | undefined): variant is MatrixVariant =>
  MATRIX_VARIANTS.includes(variant as MatrixVariant);

/** The cost of a term of an additive score, in operations; one of them is a division. */
export const ADDITIVE_TERM_FLOPS = 16;

/** Bytes of workgroup memory that tiles have for additive attention alone. */
export const ADDITIVE_BYTES = 4;

/** What the choice of a tile depends on of a device. */
export interface TileLimits {
  readonly workgroupBytes: number;
  readonly software: boolean;
  /** Default false. */
  readonly subgroups?: boolean;
}

/** What the choice of a tile depends on of a problem. */
export interface TileProblem {
  readonly headDim: number;
  readonly vDim: number;
  readonly seqQ: number;
  /** Whether scores are those of additive attention. */
  readonly additive?: boolean;
  /** Whether products in f16 are allowed. Default false. */
  readonly allowF16Products?: boolean;
  /** Whether q, k and v are rows that the device reads as f16. Default false. */
  readonly f16Rows?: boolean;
  /** Whether the problem has no options of scores that the `half` form lacks. Default false. */
  readonly plainScores?: boolean;
  /** Keys of a block of the block mask, which is a whole number of tiles. */
  readonly blockKeys?: number | undefined;
  /** A tile that was asked for by name. */
  readonly variant?: string | undefined;
}

/**
 * Chooses a tile, or finds the one that was asked for by name. Throws FoveaError if that one can't
 * run.
 */
export function chooseForwardTile(problem: TileProblem, limits: TileLimits): ForwardTile {
  const { headDim, vDim, seqQ, additive = false, blockKeys = 0, variant } = problem;
  const half = problem.allowF16Products && problem.f16Rows && problem.plainScores;
  const fits = (tile: ForwardTile, widest: number) =>
    headDim <= tile.maxHeadDim &&
    vDim <= widest &&
    forwardWorkgroupBytes(tile, headDim, vDim) +
      (additive && tile.form === "tiles" ? ADDITIVE_BYTES : 0) <=
      limits.workgroupBytes;
  if (variant !== undefined) {
    const named = namedTile(variant, problem, limits);
    check(
      fits(named, ANY),
      "limit",
      () =>
        `variant ${variant} can't run here: ${
          headDim > named.maxHeadDim
            ? `it takes head dims up to ${named.maxHeadDim}, and this is ${headDim}`
            : `for this problem it takes ${forwardWorkgroupBytes(named, headDim, vDim)} bytes of workgroup memory; the device has ${limits.workgroupBytes}`
        }.`,
    );
    return named;
  }
  const taken = { all: true, gpus: !limits.software, software: limits.software, none: false };
  const able = FORWARD_TILES.filter(
    ({ devices, form, keys = KV_TILE, minQueries = 0 }) =>
      taken[devices] &&
      seqQ >= minQueries &&
      blockKeys % keys === 0 &&
      // Twice as many keys would double a long text, for the same share of products.
      !(additive && keys !== KV_TILE) &&
      (form !== "quads" || limits.subgroups) &&
      (form !== "half" || half),
  );
  return able.find((tile) => fits(tile, tile.maxVDim)) ?? able[able.length - 1];
}

/** The tile of a name, if device and scores allow it. */
function namedTile(
  name: string,
  problem: TileProblem,
  { subgroups = false }: TileLimits,
): ForwardTile {
  const { f16Rows = false, plainScores = false, blockKeys = 0 } = problem;
  const named = FORWARD_TILES.find((tile) => tile.name === name);
  const names = [...FORWARD_TILES.map((tile) => tile.name), ...MATRIX_VARIANTS].join(", ");
  check(
    named !== undefined,
    "argument",
    () => `no variant ${name} of the forward kernel; there are ${names}.`,
  );
  check(
    named.form !== "quads" || subgroups,
    "limit",
    () =>
      `variant ${name} needs the feature subgroups, which the device does not have; take another.`,
  );
  check(
    blockKeys % (named.keys ?? KV_TILE) === 0,
    "limit",
    () =>
      `variant ${name} takes block masks of a multiple of ${named.keys} keys, and this has ${blockKeys}; take another.`,
  );
  check(
    named.form !== "half" || f16Rows,
    "limit",
    () =>
      `variant ${name} takes q, k and v of f16, with strides that are multiples of 4, and the feature shader-f16; take another.`,
  );
  check(
    named.form !== "half" || plainScores,
    "limit",
    () =>
      `variant ${name} has scale, causality, windows, lengths and sinks, but no other scores or masks, dropout, lse or rowMax; take another.`,
  );
  return named;
}

/**
 * Vec4 columns of q and k in workgroup memory at a time: chunks are as equal as possible, so 10
 * columns are two chunks of 5, not of 8 and 2.
 */
export function chunkOf(headDim: number): number {
  const d4 = Math.ceil(headDim / 4);
  return Math.ceil(d4 / Math.ceil(d4 / LANES_X));
}

/** The constants of a tile for a problem's head dims. */
export function constantsOf(tile: ForwardTile, headDim: number, vDim: number) {
  const v4 = Math.ceil(vDim / 4);
  const vSplits = Math.ceil(vDim / tile.maxVDim);
  const vCols = Math.ceil(
    v4 / (tile.form === "tiles" || tile.form === "half" ? LANES_X : 1) / vSplits,
  );
  return {
    dChunk: chunkOf(headDim),
    vSplits,
    vCols,
    vAtOnce: vCols % 2 === 0 ? (tile.vAtOnce ?? 1) : 1,
  };
}

/** Bytes of workgroup memory, as the shaders declare it. */
export function forwardWorkgroupBytes(tile: ForwardTile, headDim: number, vDim: number): number {
  const { vCols, vAtOnce } = constantsOf(tile, headDim, vDim);
  const { keys = KV_TILE } = tile;
  const qTile = tile.lanes * tile.rows;
  if (tile.form === "half") {
    const kCols = Math.ceil(headDim / 16) * 4;
    const vec4s =
      qTile * (kCols + 2) + keys * (Math.max(kCols, vCols * LANES_X) + 2) + (qTile * keys) / 4;
    return vec4s * 8 + qTile * LANES_X * 4 + 12;
  }
  if (tile.form !== "tiles") return qTile * 16;
  const vec4s = qTile * LANES_X + Math.max(keys * (LANES_X + 1), KV_TILE * (LANES_X * vAtOnce + 1));
  return vec4s * 16 + qTile * LANES_X * 4 + 4;
}
