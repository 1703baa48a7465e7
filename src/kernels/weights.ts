// The kernels of scores and probabilities, which attention does not store, shaders/weights.wesl and
// shaders/top_keys.wesl: specialisation and grid.

import blockLists from "../../shaders/lib/block_lists.wesl?raw";
import chosen from "../../shaders/lib/chosen.wesl?raw";
import products from "../../shaders/lib/products.wesl?raw";
import statistics from "../../shaders/lib/statistics.wesl?raw";
import blocks from "../../shaders/slots/blocks.wesl?raw";
import knownLse from "../../shaders/slots/known_lse.wesl?raw";
import probability from "../../shaders/slots/probability.wesl?raw";
import topKeys from "../../shaders/top_keys.wesl?raw";
import blocksListed from "../../shaders/variants/blocks_listed.wesl?raw";
import knownLseStored from "../../shaders/variants/known_lse_stored.wesl?raw";
import rowsChosen from "../../shaders/variants/rows_chosen.wesl?raw";
import valueNone from "../../shaders/variants/value_none.wesl?raw";
import weights from "../../shaders/weights.wesl?raw";
import { link, type ModuleMap } from "../shader/link.ts";
import { configModule, MODULES } from "../shader/modules.ts";
import type { Binding, KernelSource } from "../types.ts";
import { chunkOf } from "./forward_tiles.ts";
import { KernelCache } from "./kernel_cache.ts";
import { slotModules } from "./slot_modules.ts";
import { type SlotChoice, slotBindings, slotConstants } from "./slots.ts";

/** Stages of a score, as numbered in the params. */
export const STAGES = ["raw", "capped", "scores", "probabilities"] as const;

/** Stands in the params in place of a list that is absent: all elements, in order. */
export const ALL = 0xffffffff;

/** The most keys that top_keys finds for a row. */
export const MOST_KEYS = 64;

const LANES_Y = 8;
/**
 * Keys that a workgroup of `weights` takes if it need not take all: enough to be worth a workgroup.
 */
const SHARE = 512;

/**
 * One of the two kernels, with its shader: a bundle has only the kernels that its application uses.
 */
export interface ScoreKernel {
  readonly name: "weights" | "top_keys";
  readonly text: string;
  /** Rows of a lane. */
  readonly rows: number;
}
export const WEIGHTS: ScoreKernel = { name: "weights", text: weights, rows: 4 };
/** Sorted lists of 64 keys leave it with workgroup memory for two rows. */
export const TOP_KEYS: ScoreKernel = { name: "top_keys", text: topKeys, rows: 2 };

export interface ScoreSpecialisation extends SlotChoice {
  readonly headDim: number;
}

/**
 * The modules of a specialisation, of which `package::weights` or `package::top_keys` is the root.
 */
export function scoreModules(
  { name, text, rows }: ScoreKernel,
  spec: ScoreSpecialisation,
): ModuleMap {
  const config = configModule({
    HEAD_DIM: spec.headDim,
    V_DIM: 1,
    LANES_Y,
    ROWS: rows,
    V_COLS: 1,
    D_CHUNK: chunkOf(spec.headDim),
    ...slotConstants(spec),
  });
  const variant = (file: string, own: string) => ({ name: `variants/${file}.wesl`, text: own });
  return {
    ...MODULES,
    [`package::${name}`]: text,
    "package::lib::chosen": chosen,
    "package::lib::products": products,
    "package::lib::statistics": statistics,
    ...config,
    "package::slots::probability": probability,
    ...slotModules(spec),
    "package::slots::rows": variant("rows_chosen", rowsChosen),
    "package::slots::value": variant("value_none", valueNone),
    ...(spec.blocks && { "package::lib::block_lists": blockLists }),
    "package::slots::blocks": spec.blocks ? variant("blocks_listed", blocksListed) : blocks,
    "package::slots::known_lse": spec.lse ? variant("known_lse_stored", knownLseStored) : knownLse,
  };
}

export function scoreBindings({ name }: ScoreKernel, slots: SlotChoice): Binding[] {
  const read = slotBindings({ ...slots, lse: false, rowMax: false }).filter(
    (slot) => slot.name !== "v" && slot.name !== "o",
  );
  const own: Binding[] =
    name === "weights"
      ? [
          { binding: 6, name: "output", type: "storage" },
          ...(slots.lse ? [{ binding: 7, name: "lse", type: "read-only-storage" } as const] : []),
        ]
      : [
          { binding: 6, name: "weights", type: "storage" },
          { binding: 7, name: "indices", type: "storage" },
        ];
  return [...read, ...own].sort((a, b) => a.binding - b.binding);
}

const kernels = new KernelCache<ScoreSpecialisation & { readonly name: string }>();

export function scoreKernel(kernel: ScoreKernel, spec: ScoreSpecialisation): KernelSource {
  const { name } = kernel;
  return kernels.get({ name, ...spec }, () => {
    const text = link(`package::${name}`, scoreModules(kernel, spec));
    return { label: name, ...text, bindings: scoreBindings(kernel, spec) };
  });
}

/**
 * Tiles of the chosen rows, and shares of the keys. All keys are one share if the sums of rows are
 * not known.
 */
export function scoreGrid(kernel: ScoreKernel, rows: number, seqKv: number, split: boolean) {
  const qTile = LANES_Y * kernel.rows;
  return {
    qTile,
    qTiles: Math.ceil(rows / qTile),
    vSplits: split ? Math.max(1, Math.ceil(seqKv / SHARE)) : 1,
  };
}
