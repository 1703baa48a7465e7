// The forward kernels, shaders/forward.wesl, forward_rows.wesl and forward_half.wesl: tile table,
// specialisation and grid. The last two are loaded when the table chooses them.

import forward from "../../shaders/forward.wesl?raw";
import { link, type ModuleMap } from "../shader/link.ts";
import { configModule, MODULES } from "../shader/modules.ts";
import type { KernelSource } from "../types.ts";
import { constantsOf, type ForwardTile, KV_TILE } from "./forward_tiles.ts";
import { KernelCache } from "./kernel_cache.ts";
import { loadSlotModules } from "./load_slots.ts";
import { type SlotChoice, slotBindings, slotConstants } from "./slots.ts";

export interface ForwardSpecialisation extends SlotChoice {
  readonly headDim: number;
  readonly vDim: number;
  readonly tile: ForwardTile;
}

/** The modules of a specialisation, of which {@link forwardRoot} is the root. */
export async function forwardModules(spec: ForwardSpecialisation): Promise<ModuleMap> {
  const { headDim, vDim, tile, ...slots } = spec;
  const { dChunk, vCols, vAtOnce } = constantsOf(tile, headDim, vDim);
  const config = configModule({
    HEAD_DIM: headDim,
    V_DIM: vDim,
    KV_TILE: tile.keys ?? KV_TILE,
    LANES_Y: tile.lanes,
    ROWS: tile.rows,
    V_COLS: vCols,
    V_AT_ONCE: vAtOnce,
    D_CHUNK: dChunk,
    ...slotConstants(slots),
  });
  const totals = slots.longRows ? (await import("./totals.ts")).TOTALS_MODULES : {};
  const [slotted, own] = await Promise.all([loadSlotModules(slots), loadForm(spec)]);
  return { ...MODULES, ...config, ...slotted, ...own, ...totals };
}

/** The modules of a kernel's form. */
async function loadForm({ tile, similarity }: ForwardSpecialisation): Promise<ModuleMap> {
  if (tile.form === "tiles") return { "package::forward": forward };
  if (tile.form === "half") return (await import("./forward_half.ts")).HALF_MODULES;
  const { rowModules } = await import("./forward_rows.ts");
  return rowModules(tile.form === "quads", similarity);
}

/** The root module of a tile's kernel. */
export const forwardRoot = ({ form }: ForwardTile) =>
  `package::forward${{ tiles: "", half: "_half", rows: "_rows", quads: "_rows" }[form]}`;

const kernels = new KernelCache<ForwardSpecialisation, Promise<KernelSource>>();

/** The linked kernel of a specialisation. */
export function forwardKernel(spec: ForwardSpecialisation): Promise<KernelSource> {
  return kernels.get(spec, async () => {
    const text = link(forwardRoot(spec.tile), await forwardModules(spec));
    return { label: `forward ${spec.tile.name}`, ...text, bindings: slotBindings(spec) };
  });
}

/** Tiles of one head, shares of v, and query rows of a tile. */
export function forwardGrid(tile: ForwardTile, headDim: number, vDim: number, seqQ: number) {
  const qTile = tile.lanes * tile.rows;
  return {
    qTiles: Math.ceil(seqQ / qTile),
    vSplits: constantsOf(tile, headDim, vDim).vSplits,
    qTile,
  };
}
