// The decode kernel, shaders/decode.wesl, and its end, shaders/combine.wesl: tiles, specialisation and grid.

import combine from "../../shaders/combine.wesl?raw";
import decode from "../../shaders/decode.wesl?raw";
import decodeTiles from "../../shaders/lib/decode_tiles.wesl?raw";
import partials from "../../shaders/lib/partials.wesl?raw";
import { link, type ModuleMap } from "../shader/link.ts";
import { configModule, MODULES } from "../shader/modules.ts";
import type { Binding, KernelSource } from "../types.ts";
import type { TileLimits } from "./forward.ts";
import { KernelCache } from "./kernel_cache.ts";
import { loadSlotModules, type SlotChoice, slotBindings, slotConstants } from "./slots.ts";

/**
 * The most queries of a head that are decoded; with more of them the forward kernel is worth it. Its quads, on software
 * adapters, are from 4 queries on: with 16 and 256 keys they take a third of the time.
 */
export const MOST_QUERIES = { tiles: 16, quads: 3 } as const;

/** How a workgroup covers keys: a row of the table of shapes. */
export interface DecodeShape {
  readonly name: string;
  readonly lanes: number;
  /** Lanes that share a key. */
  readonly parts: number;
  readonly software: boolean;
}

/** A shape, and its packed rows: queries of the heads that share a key head. */
export interface DecodeTile extends DecodeShape {
  readonly rows: number;
}

/** The first one that is for the kind of device is taken. Times are those of bench/results/swiftshader.json, suite decode. */
export const DECODE_SHAPES: readonly DecodeShape[] = [
  // Four lanes a key: a load is of 64 bytes side by side.
  { name: "decode-64", lanes: 64, parts: 4, software: false },
  // SwiftShader charges for barriers by the lane, and not for scattered loads.
  { name: "decode-16", lanes: 16, parts: 1, software: true },
];

/** Rows of a tile. More would not leave registers for four keys and a vec4 column each. */
const MOST_ROWS = 16;
/** Vec4s of output that a lane holds. */
const MOST_OUTPUTS = 32;
/** Lanes that share the columns of a row at the end. */
const COMBINE_LANES = 64;

/** Whether a variant of the tile tables is one of this kernel: `decode`, or a shape by name. */
export const isDecodeVariant = (name: string | undefined): boolean =>
  name === "decode" || DECODE_SHAPES.some((shape) => shape.name === name);

/** The tile for so many packed rows: all of them, up to the most that fit. */
export function chooseDecodeTile(headDim: number, rows: number, limits: TileLimits, name?: string): DecodeTile {
  const named = DECODE_SHAPES.find((shape) => shape.name === name);
  const shape = named ?? (DECODE_SHAPES.find(({ software }) => software === limits.software) as DecodeShape);
  let most = 1;
  while (2 * most <= MOST_ROWS && most < rows) {
    if (decodeWorkgroupBytes({ ...shape, rows: 2 * most }, headDim) > limits.workgroupBytes) break;
    most *= 2;
  }
  return { ...shape, rows: most };
}

/** Bytes of workgroup memory, as shaders/lib/decode_tiles.wesl declares it. */
export function decodeWorkgroupBytes({ lanes, parts, rows }: DecodeTile, headDim: number): number {
  const q = rows * Math.ceil(Math.ceil(headDim / 4) / parts) * parts;
  const planes = (parts === 1 ? 0 : parts) + 1;
  return 16 * (q + Math.max((planes * rows * lanes) / parts, rows * lanes)) + 4 * rows;
}

function columnsOf({ lanes, rows }: DecodeTile, vDim: number) {
  const v4 = Math.ceil(vDim / 4);
  const columns = Math.min(v4, lanes);
  const vSplits = Math.ceil(v4 / (columns * Math.max(1, Math.floor(MOST_OUTPUTS / rows))));
  return { vSplits, vCols: Math.ceil(v4 / columns / vSplits) };
}

export interface DecodeSpecialisation extends SlotChoice {
  readonly headDim: number;
  readonly vDim: number;
  readonly tile: DecodeTile;
}

/** The modules of a specialisation, of which `package::decode` and `package::combine` are roots. */
export async function decodeModules(spec: DecodeSpecialisation): Promise<ModuleMap> {
  const { headDim, vDim, tile, ...slots } = spec;
  const config = configModule({
    HEAD_DIM: headDim,
    V_DIM: vDim,
    ROWS: tile.rows,
    V_COLS: columnsOf(tile, vDim).vCols,
    DECODE_LANES: tile.lanes,
    PARTS: tile.parts,
    ...slotConstants(slots),
  });
  const own = { "package::decode": decode, "package::combine": combine };
  const lib = { "package::lib::decode_tiles": decodeTiles, "package::lib::partials": partials };
  return { ...MODULES, ...own, ...lib, ...config, ...(await loadSlotModules(slots)) };
}

/** What a row leaves outside is written by the end. */
const WRITTEN: readonly string[] = ["o", "lse", "row_max"];
/** What the end reads beside the workspace. */
const COMBINED: readonly string[] = ["params", "tables", "kv_state", ...WRITTEN];

export function decodeBindings(root: "decode" | "combine", slots: SlotChoice): Binding[] {
  const own = slotBindings(slots).filter(({ name }) =>
    root === "decode" ? !WRITTEN.includes(name) : COMBINED.includes(name),
  );
  const type = root === "decode" ? "storage" : "read-only-storage";
  return [...own, { binding: 8, name: "workspace", type } as const].sort((a, b) => a.binding - b.binding);
}

const kernels = new KernelCache<DecodeSpecialisation & { readonly root: string }>();

export function decodeKernel(root: "decode" | "combine", spec: DecodeSpecialisation): Promise<KernelSource> {
  const { name, rows } = spec.tile;
  return kernels.get({ root, ...spec }, async () => {
    const text = link(`package::${root}`, await decodeModules(spec));
    return { label: `${root === "decode" ? name : root} ${rows}`, ...text, bindings: decodeBindings(root, spec) };
  });
}

/** Keys that are worth a workgroup. */
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
  return { qTiles: Math.ceil(packedRows / tile.rows), vSplits: columnsOf(tile, vDim).vSplits, qTile: tile.rows };
}

/** The grid of the end: workgroups of a head. */
export function combineGrid(vDim: number, seqQ: number) {
  return { qTiles: Math.ceil((seqQ * Math.ceil(vDim / 4)) / COMBINE_LANES), vSplits: 1, qTile: 1 };
}

/** Floats of a row and a kv split in the workspace. */
export const recordFloats = (vDim: number): number => 4 * (Math.ceil(vDim / 4) + 1);
