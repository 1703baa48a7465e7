// The matrix product of gradients, shaders/matmul_turned.wesl and matmul_turned_rows.wesl: tile
// table, shares of the sum, specialisation and grid.

import carriedSum from "../../../shaders/lib/carried_sum.wesl?raw";
import finite from "../../../shaders/lib/finite.wesl?raw";
import half from "../../../shaders/lib/half.wesl?raw";
import matmulTile from "../../../shaders/lib/matmul_tile.wesl?raw";
import quad from "../../../shaders/lib/quad.wesl?raw";
import turnedParams from "../../../shaders/lib/turned_params.wesl?raw";
import turnedWalk from "../../../shaders/lib/turned_walk.wesl?raw";
import turned from "../../../shaders/matmul_turned.wesl?raw";
import turnedRows from "../../../shaders/matmul_turned_rows.wesl?raw";
import turnedConfig from "../../../shaders/slots/turned_config.wesl?raw";
import { link, type ModuleMap } from "../../shader/link.ts";
import { constantsModule } from "../../shader/modules.ts";
import type { Binding, KernelSource } from "../../types.ts";
import type { Access } from "../access.ts";
import type { TileLimits } from "../forward_tiles.ts";
import { KernelCache } from "../kernel_cache.ts";
import { chooseTile, LANES, type MatmulTile } from "../matmul.ts";
import { bf16Constants, namedSlot } from "../named_slots.ts";
import { outputModule } from "../slot_modules.ts";
import { UniformStruct } from "../uniform.ts";

const ANY = Number.POSITIVE_INFINITY;

/**
 * The tile table of products with a turned weight. The evidence is the instruction report for
 * RDNA2, as for MATMUL_TILES: shares of multiply-adds for dX and for dW. No row spills.
 */
export const TURNED_TILES: readonly MatmulTile[] = [
  // For software adapters, dW only. Processor time on SwiftShader, over that of the forward kernel
  // for the same multiply-adds in turns: median 1.06 (0.90 to 1.12) at 512 x 512 x 512, 0.96 for
  // 4096 rows and 128 x 128, while the forward kernel with views takes 1.12 and 0.95 and has neither
  // shares nor carried sums. Chunks of four vec4s save a tenth, and take twice as long to compile.
  // For dX views take 1.00, and a kernel like this one took 1.31.
  {
    name: "32x16-quad",
    form: "quads",
    rows: 8,
    vCols: 4,
    dChunk: 2,
    maxElements: ANY,
    maxRows: ANY,
    devices: "software",
  },
  // A few rows of dX, as in the forward table. 60 %, 56 VGPRs, 5,248 B.
  {
    name: "8x32",
    form: "tiles",
    rows: 1,
    vCols: 1,
    dChunk: 8,
    maxElements: ANY,
    maxRows: 8,
    devices: "gpus",
  },
  // Below 64 tiles of the next row. 84 and 88 %, 48 VGPRs, 4,608 B.
  {
    name: "32x32",
    form: "tiles",
    rows: 4,
    vCols: 1,
    dChunk: 4,
    maxElements: 2 ** 18,
    maxRows: ANY,
    devices: "all",
  },
  // 91 and 93 %, 112 VGPRs (168 for long sums), 9,216 B. The forward kernel with a weight that is
  // read across has 84 %.
  {
    name: "64x64",
    form: "tiles",
    rows: 8,
    vCols: 2,
    dChunk: 4,
    maxElements: ANY,
    maxRows: ANY,
    devices: "gpus",
  },
];

/** The product that a tile is chosen for. */
export interface TurnedSize {
  /** Of the output. */
  readonly rows: number;
  readonly columns: number;
  /** Whether the sum runs over rows of the source, as over rows of the weight. */
  readonly sourceTurned: boolean;
}

/**
 * Chooses a tile, or finds the one that was asked for by name. Throws FoveaError if there is none
 * of that name.
 */
export function chooseTurnedTile(
  size: TurnedSize,
  limits: Omit<TileLimits, "workgroupBytes">,
  name?: string,
): MatmulTile {
  const tiles = TURNED_TILES.filter(({ form, rows }) =>
    size.sourceTurned ? rows % 4 === 0 : form === "tiles",
  );
  return chooseTile(tiles, size, limits, name);
}

/**
 * Workgroups that a sum is cut into shares for, and the fewest products of a share: for each of
 * its numbers a share costs a write and a read of memory.
 */
const SHARES = {
  tiles: { workgroups: 512, products: 256 },
  quads: { workgroups: 32, products: 512 },
};

/** The chunks of a long sum, and how many of them each share has. */
export interface TurnedChunks {
  /** Products of a chunk. */
  readonly inner: number;
  /** Chunks of each group of products, and of all. */
  readonly ofGroup: number;
  readonly all: number;
  readonly ofShare: number;
  readonly shares: number;
}

/**
 * Cuts a sum of `groups` times `inner` products into shares if the output has few tiles: each has
 * its own workgroups, and column_sums adds them.
 */
export function turnedChunks(
  tile: MatmulTile,
  { groups, inner, tiles }: Readonly<Record<"groups" | "inner" | "tiles", number>>,
): TurnedChunks {
  const products = 4 * tile.dChunk;
  const ofGroup = Math.ceil(inner / products);
  const all = groups * ofGroup;
  const { workgroups, products: least } = SHARES[tile.form];
  const wanted = Math.min(
    Math.floor(workgroups / Math.max(1, tiles)),
    Math.floor((all * products) / least),
  );
  const ofShare = Math.max(1, Math.ceil(all / Math.max(1, wanted)));
  return { inner: products, ofGroup, all, ofShare, shares: Math.max(1, Math.ceil(all / ofShare)) };
}

/** Products that a sum may have without losing digits that matter: those of a block. */
const BLOCK = 512;

/** What the text of a product depends on. Sizes and strides are not part of it. */
export interface TurnedSpecialisation {
  readonly tile: MatmulTile;
  readonly source: Access;
  readonly weight: Access;
  readonly o: Access;
  readonly sourceTurned: boolean;
  /** Whether the sum runs over several batch entries or heads. */
  readonly grouped: boolean;
  /** Whether the sum is longer than a block, and keeps its digits. */
  readonly carried: boolean;
  /**
   * Columns of the output if they aren't a multiple of 4, so that its rows end within a vec4;
   * otherwise undefined.
   */
  readonly oddColumns: number | undefined;
}

/** Whether a sum over rows is so long that it keeps its digits block by block. */
export const isLong = ({ inner, ofShare }: TurnedChunks): boolean => inner * ofShare > BLOCK;

/** The root module of a tile's kernel. */
export const turnedRoot = ({ form }: MatmulTile) =>
  `package::matmul_turned${form === "tiles" ? "" : "_rows"}`;

/** The modules of a specialisation. */
export function turnedModules(spec: TurnedSpecialisation): ModuleMap {
  const { tile, source, weight, o, oddColumns } = spec;
  return {
    "package::lib::carried_sum": carriedSum,
    "package::lib::finite": finite,
    "package::lib::half": half,
    "package::lib::matmul_tile": matmulTile,
    "package::lib::params": turnedParams,
    "package::lib::quad": quad,
    "package::lib::turned_walk": turnedWalk,
    [turnedRoot(tile)]: tile.form === "tiles" ? turned : turnedRows,
    ...namedSlot("matmul_source", "source", 1, source),
    ...namedSlot("matmul_weight", "weight", 2, weight),
    "package::slots::output": outputModule(o),
    ...constantsModule("config", turnedConfig, {
      LANES_Y: LANES[tile.form].y,
      ROWS: tile.rows,
      V_COLS: tile.vCols,
      D_CHUNK: tile.dChunk,
      SOURCE_TURNED: spec.sourceTurned,
      GROUPED: spec.grouped,
      CARRIED: spec.carried,
      V_DIM: oddColumns ?? 4,
      ...bf16Constants({ source, weight, o }),
    }),
  };
}

export const TURNED_BINDINGS: readonly Binding[] = [
  { binding: 0, name: "params", type: "uniform" },
  { binding: 1, name: "source", type: "read-only-storage" },
  { binding: 2, name: "weight", type: "read-only-storage" },
  { binding: 6, name: "o", type: "storage" },
];

/** The uniform. */
export const TURNED_PARAMS = new UniformStruct(turnedParams, "TurnedParams");

const kernels = new KernelCache<TurnedSpecialisation>();

export function turnedKernel(spec: TurnedSpecialisation): KernelSource {
  return kernels.get(spec, () => {
    const text = link(turnedRoot(spec.tile), turnedModules(spec));
    return { label: `matmul_turned ${spec.tile.name}`, ...text, bindings: TURNED_BINDINGS };
  });
}
