// The decode kernels, shaders/decode.wesl and decode_quads.wesl, and the kernel that combines their
// parts, shaders/combine.wesl: tiles, specialisation and grid.

import combine from "../../shaders/combine.wesl?raw";
import decode from "../../shaders/decode.wesl?raw";
import decodeTiles from "../../shaders/lib/decode_tiles.wesl?raw";
import packedRows from "../../shaders/lib/packed_rows.wesl?raw";
import partials from "../../shaders/lib/partials.wesl?raw";
import { check } from "../errors.ts";
import { link, type ModuleMap } from "../shader/link.ts";
import { configModule, MODULES } from "../shader/modules.ts";
import type { Binding, KernelSource } from "../types.ts";
import type { TileLimits } from "./forward_tiles.ts";
import { KernelCache } from "./kernel_cache.ts";
import { loadSlotModules } from "./load_slots.ts";
import { type SlotChoice, slotBindings, slotConstants } from "./slots.ts";

/**
 * The most queries of a head that are decoded; with more of them the forward kernel is faster. If
 * the forward kernel has quads, on software adapters, it is faster from fewer queries on. With D =
 * 64 or 128, both take the same time for 8 queries, and the forward kernel takes three fifths of it
 * for 16. For wider heads, both take the same time for 4 queries, and the forward kernel takes half
 * of it for 8.
 */
export const MOST_QUERIES = { tiles: 16, quads: 8, wideQuads: 3 } as const;
/** The largest head dim that doesn't count as wide. */
export const WIDE = 128;

/** How a workgroup covers keys: a row of the table of shapes. */
export interface DecodeShape {
  readonly name: string;
  /** The kernel: decode.wesl, or decode_quads.wesl. */
  readonly form: "tiles" | "quads";
  readonly maxHeadDim: number;
  readonly lanes: number;
  /** Lanes that share a key. */
  readonly parts: number;
  /**
   * Vec4s that a lane holds: in quads so many of q and as many of the output, in tiles so many of
   * the output.
   */
  readonly held: number;
  /** Devices for which the row is taken unless it is asked for by name. */
  readonly devices: "gpus" | "software" | "none";
}

/** A shape, and its packed rows: queries of the heads that share a key head. */
export interface DecodeTile extends DecodeShape {
  readonly rows: number;
}

const TILES = { form: "tiles", maxHeadDim: Number.POSITIVE_INFINITY, held: 32 } as const;
const QUADS = { form: "quads", maxHeadDim: 256, parts: 4 } as const;

/** The table of shapes. The first row that fits the device and the head dim is taken. */
export const DECODE_SHAPES: readonly DecodeShape[] = [
  // In SwiftShader every read costs the same, barriers cost by the lane, and every variable that a
  // loop changes costs, too: a lane of a quad holds such variables for a quarter of a row.
  // Milliseconds of all dispatches at N = 1024, with this row and with decode-16: H = 8, D = 64:
  // 1.68 and 2.33; 4 rows 5.5 and 8.4; 8 rows 1.3 and 2.1; D = 128: 4.0 and 4.8; H = 4, D = 256:
  // 7.2 and 9.1.
  { ...QUADS, name: "decode-4-quad", lanes: 4, held: 32, devices: "software" },
  { ...TILES, name: "decode-16", lanes: 16, parts: 1, devices: "software" },
  // Four lanes a key: a load is of 64 bytes side by side.
  { ...TILES, name: "decode-64", lanes: 64, parts: 4, devices: "gpus" },
  // This is decode-64 without barriers. It is taken by name only, until it was timed on a GPU.
  // RDNA2, one row: 41 % multiply-adds in the key loop (decode-64 has 31 %), 80 VGPRs (48), 1,156
  // B; with 4 rows 49 % (46 %) and 256 VGPRs (128).
  { ...QUADS, name: "decode-64-quad", lanes: 64, held: 16, devices: "none" },
];

/** Rows of a tile. More would not leave registers for four keys and a vec4 column each. */
const MOST_ROWS = 16;
/**
 * The most columns of output, in vec4s, that a lane of a quad has. Each number of them is a text to
 * compile.
 */
const QUAD_COLUMNS = 16;
/** Lanes of combine.wesl that share the columns of a row. */
const COMBINE_LANES = 64;

/**
 * Whether a variant of the tile tables is one of the decode kernels: `decode`, or a shape by name.
 */
export const isDecodeVariant = (name: string | undefined): boolean =>
  name === "decode" || DECODE_SHAPES.some((shape) => shape.name === name);

/**
 * The tile for so many packed rows: all of them, up to the most that fit. Throws FoveaError if a
 * shape that was asked for by name can't run.
 */
export function chooseDecodeTile(
  headDim: number,
  rows: number,
  limits: TileLimits,
  name?: string,
): DecodeTile {
  const named = DECODE_SHAPES.find((shape) => shape.name === name);
  if (named) checkShape(named, headDim, limits);
  const device = limits.software ? "software" : "gpus";
  const shape =
    named ?? DECODE_SHAPES.find((one) => one.devices === device && canRun(one, headDim, limits));
  return withRows(shape as DecodeShape, headDim, rows, limits);
}

const canRun = (
  { form, maxHeadDim }: DecodeShape,
  headDim: number,
  { subgroups = false }: TileLimits,
): boolean => headDim <= maxHeadDim && (form !== "quads" || subgroups);

function checkShape(
  { name, form, maxHeadDim }: DecodeShape,
  headDim: number,
  { subgroups = false }: TileLimits,
): void {
  check(
    form !== "quads" || subgroups,
    "limit",
    () =>
      `variant ${name} needs the feature subgroups, which the device does not have; take another.`,
  );
  check(
    headDim <= maxHeadDim,
    "limit",
    () =>
      `variant ${name} takes head dims up to ${maxHeadDim}, and this is ${headDim}; take another.`,
  );
}

function withRows(
  shape: DecodeShape,
  headDim: number,
  rows: number,
  { workgroupBytes }: TileLimits,
): DecodeTile {
  const most =
    shape.form === "quads" ? Math.min(MOST_ROWS, shape.held / quadColumns(headDim)) : MOST_ROWS;
  let taken = 1;
  while (2 * taken <= most && taken < rows) {
    if (decodeWorkgroupBytes({ ...shape, rows: 2 * taken }, headDim) > workgroupBytes) break;
    taken *= 2;
  }
  return { ...shape, rows: taken };
}

/** Columns, in vec4s, of a quarter of a row, which is the share of a lane of a quad. */
const quadColumns = (width: number) => Math.ceil(Math.ceil(width / 4) / 4);

/**
 * Bytes of workgroup memory, as shaders/lib/decode_tiles.wesl and shaders/variants/quads_many.wesl
 * declare it.
 */
export function decodeWorkgroupBytes(
  { form, lanes, parts, rows }: DecodeTile,
  headDim: number,
): number {
  if (form === "quads") return lanes > 4 ? 4 + 2 * lanes + 16 * lanes : 0;
  const q = rows * Math.ceil(Math.ceil(headDim / 4) / parts) * parts;
  const planes = (parts === 1 ? 0 : parts) + 1;
  return 16 * (q + Math.max((planes * rows * lanes) / parts, rows * lanes)) + 4 * rows;
}

/** Shares of v, and the columns in vec4s that a lane has of one. */
function columnsOf({ form, lanes, rows, held }: DecodeTile, vDim: number) {
  const v4 = Math.ceil(vDim / 4);
  const columns = Math.min(v4, form === "quads" ? 4 : lanes);
  const most = Math.max(
    1,
    Math.floor(form === "quads" ? Math.min(QUAD_COLUMNS, held / rows) : held / rows),
  );
  const vSplits = Math.ceil(v4 / (columns * most));
  return { vSplits, vCols: Math.ceil(v4 / columns / vSplits) };
}

export interface DecodeSpecialisation extends SlotChoice {
  readonly headDim: number;
  readonly vDim: number;
  readonly tile: DecodeTile;
  /**
   * Whether every workgroup has all keys of its rows and writes the output itself, which only quads
   * do. Default false.
   */
  readonly whole?: boolean;
}

/** The modules of a specialisation, of which `package::decode` and `package::combine` are roots. */
export async function decodeModules(spec: DecodeSpecialisation): Promise<ModuleMap> {
  const { headDim, vDim, tile, whole = false, ...slots } = spec;
  const config = configModule({
    HEAD_DIM: headDim,
    V_DIM: vDim,
    ROWS: tile.rows,
    V_COLS: columnsOf(tile, vDim).vCols,
    DECODE_LANES: tile.lanes,
    PARTS: tile.parts,
    ...slotConstants(slots),
  });
  const own = { "package::combine": combine, ...LIBRARY };
  const totals = import("./totals.ts");
  const [slotted, form] = await Promise.all([loadSlotModules(slots), loadForm(tile, whole)]);
  return { ...MODULES, ...own, ...form, ...config, ...slotted, ...(await totals).TOTALS_MODULES };
}

const LIBRARY: ModuleMap = {
  "package::lib::packed_rows": packedRows,
  "package::lib::partials": partials,
};

/** The modules of a kernel's form. */
async function loadForm({ form, lanes }: DecodeTile, whole: boolean): Promise<ModuleMap> {
  if (form === "quads") return (await import("./decode_quads.ts")).quadModules(lanes, whole);
  return { "package::decode": decode, "package::lib::decode_tiles": decodeTiles };
}

/** The root module of a shape's kernel. */
export const decodeRoot = ({ form }: DecodeShape) =>
  `package::decode${form === "quads" ? "_quads" : ""}`;

/** The results of rows, which combine.wesl writes. */
const WRITTEN: readonly string[] = ["o", "lse", "row_max"];
/** The bindings of combine.wesl beside the workspace. */
const COMBINED: readonly string[] = ["params", "tables", "kv_state", ...WRITTEN];

export function decodeBindings(
  root: "decode" | "combine",
  slots: SlotChoice,
  whole = false,
): Binding[] {
  if (whole) return slotBindings(slots);
  const own = slotBindings(slots).filter(({ name }) =>
    root === "decode" ? !WRITTEN.includes(name) : COMBINED.includes(name),
  );
  const type = root === "decode" ? "storage" : "read-only-storage";
  return [...own, { binding: 8, name: "workspace", type } as const].sort(
    (a, b) => a.binding - b.binding,
  );
}

const kernels = new KernelCache<
  DecodeSpecialisation & { readonly root: string },
  Promise<KernelSource>
>();

export function decodeKernel(
  root: "decode" | "combine",
  spec: DecodeSpecialisation,
): Promise<KernelSource> {
  const { name, rows } = spec.tile;
  return kernels.get({ root, ...spec }, async () => {
    const text = link(
      root === "decode" ? decodeRoot(spec.tile) : "package::combine",
      await decodeModules(spec),
    );
    return {
      label: `${root === "decode" ? name : root} ${rows}`,
      ...text,
      bindings: decodeBindings(root, spec, spec.whole),
    };
  });
}

/** Fewer keys than this aren't worth a workgroup. */
const KEYS_EACH = { gpu: 128, software: 256 };
/** Workgroups that keep a device busy. */
const ENOUGH = { gpu: 512, software: 8 };

/** Workgroups that share the keys of a row, from the shape and the device alone. */
export function chooseKvSplits(keys: number, workgroups: number, software: boolean): number {
  const kind = software ? "software" : "gpu";
  const wanted = Math.ceil(ENOUGH[kind] / Math.max(1, workgroups));
  return Math.max(1, Math.min(wanted, Math.ceil(keys / KEYS_EACH[kind])));
}

/** Tiles of packed rows, shares of v, and rows of a tile. */
export function decodeGrid(tile: DecodeTile, vDim: number, packedRows: number) {
  return {
    qTiles: Math.ceil(packedRows / tile.rows),
    vSplits: columnsOf(tile, vDim).vSplits,
    qTile: tile.rows,
  };
}

/** The grid of combine.wesl: workgroups of a head. */
export function combineGrid(vDim: number, seqQ: number) {
  return { qTiles: Math.ceil((seqQ * Math.ceil(vDim / 4)) / COMBINE_LANES), vSplits: 1, qTile: 1 };
}

/** Floats in the workspace for each row and kv split. */
export const recordFloats = (vDim: number): number => 4 * (Math.ceil(vDim / 4) + 1);
