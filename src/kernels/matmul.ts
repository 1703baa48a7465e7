// The matrix product, shaders/matmul.wesl and matmul_rows.wesl: tile table, specialisation and
// grid.

import half from "../../shaders/lib/half.wesl?raw";
import matmulParams from "../../shaders/lib/matmul_params.wesl?raw";
import matmulTile from "../../shaders/lib/matmul_tile.wesl?raw";
import quad from "../../shaders/lib/quad.wesl?raw";
import matmul from "../../shaders/matmul.wesl?raw";
import matmulRows from "../../shaders/matmul_rows.wesl?raw";
import matmulConfig from "../../shaders/slots/matmul_config.wesl?raw";
import { check } from "../errors.ts";
import { link, type ModuleMap } from "../shader/link.ts";
import { constantsModule } from "../shader/modules.ts";
import type { Binding, KernelSource } from "../types.ts";
import type { Access } from "./access.ts";
import type { TileLimits } from "./forward_tiles.ts";
import { KernelCache } from "./kernel_cache.ts";
import { bf16Constants, namedSlot, namedWords } from "./named_slots.ts";
import type { IntegerBits } from "./quantised_rows.ts";
import { outputModule } from "./slot_modules.ts";
import { UniformStruct } from "./uniform.ts";

/** Lanes of a workgroup. */
export const LANES = { tiles: { x: 8, y: 8 }, quads: { x: 1, y: 4 } } as const;
const ANY = Number.POSITIVE_INFINITY;

/** A row of the tile table. */
export interface MatmulTile {
  /** Rows x columns of a tile. */
  readonly name: string;
  /**
   * The kernel: matmul.wesl (`tiles`), or matmul_rows.wesl (`quads`), whose four lanes share what
   * they read of the weight.
   */
  readonly form: "tiles" | "quads";
  /** Rows of a lane; 8 lanes stand above each other, or 4. */
  readonly rows: number;
  /** Vec4 columns of a lane; 8 lanes stand side by side, or 1. */
  readonly vCols: number;
  /** Vec4s of the inner dimension in workgroup memory, or registers, at a time. */
  readonly dChunk: number;
  /** The most elements of y, and the most rows, for which the tile is taken. */
  readonly maxElements: number;
  readonly maxRows: number;
  /**
   * Devices for which the tile is taken unless it is asked for by name; quads need the feature
   * subgroups, too.
   */
  readonly devices: "all" | "gpus" | "software";
}

/**
 * The first row that has room for the size of y, and suits the device, is taken. The evidence is
 * the instruction report for RDNA2: the share of multiply-adds among the vector instructions for a
 * chunk (but for the last one, if k ends within it), registers, bytes of workgroup memory, and
 * multiply-adds for each word read from there. No row spills.
 */
export const MATMUL_TILES: readonly MatmulTile[] = [
  // For software adapters: no barriers, no workgroup memory.
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
  // A few rows, as in decoding: bound by reading W once, and spread over many workgroups. 51 %, 64
  // VGPRs, 6,144 B, 0.8.
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
  // Below 64 tiles of the next row. 81 %, 56 VGPRs, 5,120 B, 2.0. SwiftShader compiles it in less
  // than 1 s.
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
  // 89 % (98 % in the innermost loop), f16 86 %, W of columns 84 %; 136 VGPRs, 10,240 B, 4.0.
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

/**
 * Chooses a tile, or finds the one that was asked for by name. Throws FoveaError if there is none
 * of that name.
 */
export const chooseMatmulTile = (
  rows: number,
  columns: number,
  limits: MatmulLimits,
  name?: string,
): MatmulTile => chooseTile(MATMUL_TILES, { rows, columns }, limits, name);

type MatmulLimits = Omit<TileLimits, "workgroupBytes">;

/** The same for another table. */
export function chooseTile(
  tiles: readonly MatmulTile[],
  { rows, columns }: { readonly rows: number; readonly columns: number },
  { software, subgroups = false }: MatmulLimits,
  name?: string,
): MatmulTile {
  if (name !== undefined) {
    const named = tiles.find((tile) => tile.name === name);
    const names = tiles.map((tile) => tile.name).join(", ");
    check(
      named !== undefined,
      "argument",
      () => `no variant ${name} of the matmul kernel; there are ${names}.`,
    );
    check(
      named.form !== "quads" || subgroups,
      "limit",
      () =>
        `variant ${name} needs the feature subgroups, which the device does not have; take another.`,
    );
    return named;
  }
  const taken = { all: true, gpus: !software, software: software && subgroups };
  const able = tiles.filter(({ devices }) => taken[devices]);
  const fits = ({ maxElements, maxRows }: MatmulTile) =>
    rows <= maxRows && rows * columns <= maxElements;
  return able.find(fits) ?? able[able.length - 1];
}

/** Integers that stand for the elements of a weight, and how many of a row share a scale. */
export interface WeightIntegers {
  readonly bits: IntegerBits;
  readonly group: number;
}

/**
 * What the text of a product depends on of its tensors. Sizes and strides are not part of it, but
 * for an odd number of columns.
 */
export interface MatmulOperands {
  readonly x: Access;
  readonly weight: Access;
  /** How the weight's elements are integers, if they are. Default: they are floats. */
  readonly quantised?: WeightIntegers | undefined;
  /** Undefined if nothing is added. */
  readonly bias: Access | undefined;
  readonly y: Access;
  /**
   * Columns of y if they aren't a multiple of 4, so that its rows end within a vec4; otherwise
   * undefined.
   */
  readonly oddColumns: number | undefined;
}

/** What the text of a product depends on. */
export interface MatmulSpecialisation extends MatmulOperands {
  readonly tile: MatmulTile;
  /** Whether rows of the weight, not the elements of a row, lie side by side in memory. */
  readonly columnsAdjacent: boolean;
}

/** The root module of a tile's kernel. */
export const matmulRoot = ({ form }: MatmulTile) =>
  `package::matmul${form === "tiles" ? "" : "_rows"}`;

/** The modules of a specialisation. */
export function matmulModules(spec: MatmulSpecialisation): ModuleMap {
  const { tile, columnsAdjacent } = spec;
  return {
    "package::lib::quad": quad,
    [matmulRoot(tile)]: tile.form === "tiles" ? matmul : matmulRows,
    ...operandModules(spec, {
      LANES_Y: LANES[tile.form].y,
      ROWS: tile.rows,
      V_COLS: tile.vCols,
      D_CHUNK: tile.dChunk,
      COLUMNS_ADJACENT: columnsAdjacent,
    }),
  };
}

/** The modules of a product's tensors, and its constants. */
export function operandModules(
  { x, weight, quantised, bias, y, oddColumns }: MatmulOperands,
  constants: Readonly<Record<string, number | boolean>>,
): ModuleMap {
  return {
    "package::lib::half": half,
    "package::lib::matmul_tile": matmulTile,
    "package::lib::params": matmulParams,
    ...namedSlot("matmul_source", "source", 1, x),
    ...(quantised
      ? namedWords("matmul_weight", "weight", { binding: 2, bits: quantised.bits, width: "inner" })
      : namedSlot("matmul_weight", "weight", 2, weight)),
    ...namedSlot("matmul_bias", "bias", 3, bias),
    "package::slots::output": outputModule(y),
    ...constantsModule("config", matmulConfig, {
      ...constants,
      BIAS_DIM: oddColumns ?? 4,
      V_DIM: oddColumns ?? 4,
      ...(quantised && { WEIGHT_GROUP: quantised.group }),
      ...bf16Constants({ source: x, weight, bias, o: y }),
    }),
  };
}

export const matmulBindings = ({ bias }: Pick<MatmulOperands, "bias">): Binding[] => [
  { binding: 0, name: "params", type: "uniform" },
  { binding: 1, name: "source", type: "read-only-storage" },
  { binding: 2, name: "weight", type: "read-only-storage" },
  ...(bias ? [{ binding: 3, name: "bias", type: "read-only-storage" } as const] : []),
  { binding: 6, name: "o", type: "storage" },
];

/** The uniform. */
export const MATMUL_PARAMS = new UniformStruct(matmulParams, "MatmulParams");

const kernels = new KernelCache<MatmulSpecialisation>();

export function matmulKernel(spec: MatmulSpecialisation): KernelSource {
  return kernels.get(spec, () => {
    const text = link(matmulRoot(spec.tile), matmulModules(spec));
    return { label: `matmul ${spec.tile.name}`, ...text, bindings: matmulBindings(spec) };
  });
}

/** Rows and columns of a tile. */
export const matmulTileSize = ({ form, rows, vCols }: MatmulTile) => ({
  rows: LANES[form].y * rows,
  columns: LANES[form].x * 4 * vCols,
});

/** Bytes of workgroup memory, as shaders/matmul.wesl declares it. */
export function matmulWorkgroupBytes(tile: MatmulTile): number {
  const { rows, columns } = matmulTileSize(tile);
  if (tile.form === "quads") return 0;
  return 16 * (rows + columns) * (tile.dChunk + 1);
}
