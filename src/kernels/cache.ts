// The kernels of key-value caches, shaders/cache_append.wesl and cache_advance.wesl:
// specialisation, bindings and grids.

import cacheAdvance from "../../shaders/cache_advance.wesl?raw";
import cacheAppend from "../../shaders/cache_append.wesl?raw";
import appendParams from "../../shaders/lib/append_params.wesl?raw";
import quantise from "../../shaders/lib/quantise.wesl?raw";
import rowTile from "../../shaders/lib/row_tile.wesl?raw";
import append from "../../shaders/slots/append.wesl?raw";
import cachedKey from "../../shaders/slots/cached_key.wesl?raw";
import cachedKeyHalf from "../../shaders/variants/cached_key_half.wesl?raw";
import cachedKeyQuantised from "../../shaders/variants/cached_key_quantised.wesl?raw";
import outputNone from "../../shaders/variants/output_none.wesl?raw";
import positionsCached from "../../shaders/variants/positions_cached.wesl?raw";
import queryNone from "../../shaders/variants/query_none.wesl?raw";
import { link, type ModuleMap, type ModuleSource, type Renames } from "../shader/link.ts";
import { configModule, constantsModule, MODULES } from "../shader/modules.ts";
import type { Binding, FloatDtype, KernelSource } from "../types.ts";
import type { Access } from "./access.ts";
import { type KvLayout, kvPlaceConstants, kvPlaceModules } from "./kv_access.ts";
import { positionBindings, positionModules } from "./rotary.ts";
import { type RotaryChoice, rotaryBindings, rotaryModules } from "./rotary_angles.ts";
import { inPlaceModule, outputModule, slotModules } from "./slot_modules.ts";
import { slotConstants } from "./slots.ts";
import { UniformStruct } from "./uniform.ts";

const WG_SIZE = 64;

/** Stands in the params if there are no counts: every entry gets all rows. */
export const ALL_ROWS = 0xffffffff;

/** What the text of an append depends on. Its lengths and strides are in the uniform. */
export interface AppendChoice {
  readonly headDim: number;
  readonly vDim: number;
  readonly k: Access;
  readonly v: Access;
  /**
   * How rows of q are read that are normalised or rotated like those of k, and how the results are
   * written to `o`, which may be the memory of q.
   */
  readonly q?: { readonly access: Access; readonly output: Access; readonly inPlace: boolean };
  readonly qNorm: boolean;
  readonly kNorm: boolean;
  readonly rotary: RotaryChoice | undefined;
  /** Whether positions are in memory; otherwise the cache says at which position a token stands. */
  readonly positions: boolean;
  readonly layout: KvLayout;
  /** The dtype of the cache's rows, if they aren't integers. */
  readonly dtype: FloatDtype;
}

/** Lanes that share a row, and rows of a workgroup. */
export function appendTile({ headDim, vDim }: Pick<AppendChoice, "headDim" | "vDim">) {
  const columns = Math.ceil(Math.max(headDim, vDim) / 4);
  const lanes = Math.min(WG_SIZE, 2 ** Math.ceil(Math.log2(columns)));
  return { lanes, rows: WG_SIZE / lanes };
}

const variant = (name: string, text: string): ModuleSource => ({
  name: `variants/${name}.wesl`,
  text,
});

/** A module that stores rows of k in a cache as one for v. */
const AS_CACHED_VALUE: Renames = {
  names: {
    cache_k: "cache_v",
    store_cached_k: "store_cached_v",
    "@binding(16)": "@binding(17)",
    "CACHE_K_VECS?": "CACHE_V_VECS",
    "CACHE_K_ROW?": "CACHE_V_ROW",
    "CACHE_K_GROUPS?": "CACHE_V_GROUPS",
    "CACHE_K_PER_WORD?": "CACHE_V_PER_WORD",
    "CACHE_K_MASK?": "CACHE_V_MASK",
    "CACHE_K_RECIPROCAL?": "CACHE_V_RECIPROCAL",
    "HEAD_DIM?": "V_DIM",
    "K_GROUP?": "V_GROUP",
    "D?": "Dv",
  },
};

/** A module of the output for rows that are as wide as those of q, not of v. */
const AS_WIDE_AS_QUERIES: Renames = { names: { "V_DIM?": "HEAD_DIM" } };

/** The slot `output` of rows that are as wide as those of q, not of v. */
const outputOfQueries = (access: Access): ModuleSource => ({
  ...outputModule(access),
  rename: AS_WIDE_AS_QUERIES,
});

/** The modules of a specialisation, of which `package::cache_append` is the root. */
export function appendModules(choice: AppendChoice): ModuleMap {
  const { headDim, vDim, k, v, q, qNorm, kNorm, rotary, positions, layout, dtype } = choice;
  const { quantised } = layout;
  const slots = { k, v, q: q?.access ?? "dense", o: q?.output ?? "dense" };
  const storing = quantised
    ? variant("cached_key_quantised", cachedKeyQuantised)
    : dtype === "f32"
      ? { name: "slots/cached_key.wesl", text: cachedKey }
      : variant("cached_key_half", cachedKeyHalf);
  return {
    ...MODULES,
    "package::cache_append": cacheAppend,
    "package::lib::params": appendParams,
    "package::lib::quantise": quantise,
    "package::lib::row_tile": rowTile,
    ...configModule({
      HEAD_DIM: headDim,
      V_DIM: vDim,
      ...kvPlaceConstants(layout),
      ...(quantised && { K_GROUP: quantised.groupK, V_GROUP: quantised.groupV }),
      ...slotConstants(slots),
    }),
    ...constantsModule("append", append, {
      ROW_LANES: appendTile(choice).lanes,
      SHARED_ROWS: kNorm || qNorm || rotary !== undefined || quantised !== undefined,
      RING: layout.place === "ring",
      Q_NORM: qNorm,
      K_NORM: kNorm,
      CACHE_BF16: dtype === "bf16",
      ...(quantised && { CACHE_BITS: quantised.bits }),
    }),
    ...slotModules(slots),
    ...(!q && {
      "package::slots::query": variant("query_none", queryNone),
      "package::slots::output": variant("output_none", outputNone),
    }),
    ...(q && { "package::slots::output": outputOfQueries(q.output) }),
    ...(q?.inPlace && inPlaceModule(q.output)),
    ...rotaryModules(rotary),
    ...(positions
      ? positionModules(true)
      : { "package::slots::positions": variant("positions_cached", positionsCached) }),
    ...kvPlaceModules(layout.place),
    "package::slots::cached_key": storing,
    "package::slots::cached_value": {
      name: `${storing.name} as cached_value`,
      text: storing.text,
      rename: AS_CACHED_VALUE,
    },
  };
}

/** The bindings of a specialisation. */
export function appendBindings({ q, rotary, positions }: AppendChoice): Binding[] {
  const bind = (binding: number, name: string, type: Binding["type"]): Binding => ({
    binding,
    name,
    type,
  });
  return [
    bind(0, "params", "uniform"),
    ...(q && !q.inPlace ? [bind(1, "q", "read-only-storage")] : []),
    bind(2, "k", "read-only-storage"),
    bind(3, "v", "read-only-storage"),
    ...(q ? [bind(6, "o", "storage")] : []),
    bind(12, "kv_state", "read-only-storage"),
    ...rotaryBindings(rotary),
    ...positionBindings(positions),
    bind(16, "cache_k", "storage"),
    bind(17, "cache_v", "storage"),
    bind(18, "append", "uniform"),
  ];
}

export function appendKernel(choice: AppendChoice): KernelSource {
  const { layout, dtype } = choice;
  const label = `cache_append ${layout.quantised ? `int${layout.quantised.bits}` : dtype} ${layout.place}`;
  return {
    label,
    ...link("package::cache_append", appendModules(choice)),
    bindings: appendBindings(choice),
  };
}

/**
 * The uniform that says where the tensors of an append lie. A kernel reads some of its members; the
 * others are 0.
 */
export const APPEND_PARAMS = new UniformStruct(appendParams, "AppendParams");

/** The uniform Append of rows of `headDim` elements. */
export const appendStruct = (headDim: number) =>
  new UniformStruct(cacheAppend, "Append", { HEAD_VECS: Math.ceil(headDim / 4) });

/**
 * The weights of a row, padded with 1 to the length that the uniform has; all are 1 if none are
 * given.
 */
export const rowWeights = (headDim: number, given: ArrayLike<number> | undefined): number[] =>
  Array.from({ length: 4 * Math.ceil(headDim / 4) }, (_, d) => given?.[d] ?? 1);

/** What cache_advance does, as numbered in its params. */
export const ADVANCE = { addRows: 0, addCounts: 1, limit: 2 } as const;

/** The uniform of cache_advance. */
export const ADVANCE_PARAMS = new UniformStruct(cacheAdvance, "Advance");

export const ADVANCE_MODULES: ModuleMap = { "package::cache_advance": cacheAdvance };

let linked: KernelSource | undefined;

export function advanceKernel(): KernelSource {
  linked ??= {
    label: "cache_advance",
    ...link("package::cache_advance", ADVANCE_MODULES),
    bindings: [
      { binding: 0, name: "params", type: "uniform" },
      { binding: 12, name: "kv_state", type: "storage" },
    ],
  };
  return linked;
}
