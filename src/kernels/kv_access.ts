// How attention reads a cache: the modules and constants that take the place of those for plain
// tensors. A cache brings them, so that an application without one does not load them.

import kvState from "../../shaders/lib/kv_state.wesl?raw";
import kvPlacePaged from "../../shaders/variants/kv_place_paged.wesl?raw";
import kvPlaceRing from "../../shaders/variants/kv_place_ring.wesl?raw";
import sequenceCached from "../../shaders/variants/sequence_cached.wesl?raw";
import type { ModuleMap } from "../shader/link.ts";
import { AS_KEY, AS_VALUE } from "../shader/renames.ts";
import { type IntegerBits, QUANTISED_ROWS } from "./quantised_rows.ts";

/** Integers that stand for the floats of a row, and how many channels share a scale. */
export interface Quantisation {
  readonly bits: IntegerBits;
  /** Channels of k that share a scale; D is one scale for a token and head. */
  readonly groupK: number;
  /** Channels of v that share a scale. */
  readonly groupV: number;
}

/** What the text of a kernel depends on of a cache. */
export interface KvLayout {
  readonly place: "rows" | "ring" | "paged";
  /** Keys of a page. */
  readonly pageSize?: number;
  /**
   * Rows at the start of a ring that keep their tokens; `ring` is the number of the others, which
   * are used again.
   */
  readonly sinkTokens?: number;
  readonly ring?: number;
  /** How integers stand for floats, if they do. */
  readonly quantised?: Quantisation;
}

/** Modules and constants for the slots of a kernel. */
export interface KvAccess {
  readonly modules: ModuleMap;
  readonly constants: Readonly<Record<string, number>>;
  /** Whether the slots `key` and `value` are among the modules. */
  readonly quantised: boolean;
}

const PLACES: Readonly<Record<KvLayout["place"], ModuleMap>> = {
  rows: {},
  ring: { "package::slots::kv_place": { name: "variants/kv_place_ring.wesl", text: kvPlaceRing } },
  paged: {
    "package::slots::kv_place": { name: "variants/kv_place_paged.wesl", text: kvPlacePaged },
  },
};

/** The modules that say where a key lies: `slots/kv_place`, and the state that it reads. */
export const kvPlaceModules = (place: KvLayout["place"]): ModuleMap => ({
  "package::lib::kv_state": kvState,
  ...PLACES[place],
});

/** The constants of `slots/config` that `kvPlaceModules` read. */
export const kvPlaceConstants = ({ pageSize = 1, sinkTokens = 0, ring = 1 }: KvLayout) => ({
  PAGE_SIZE: Math.max(1, pageSize),
  RING_START: sinkTokens,
  RING_ROWS: Math.max(1, ring),
});

export function kvAccess(layout: KvLayout): KvAccess {
  const { place, quantised } = layout;
  const words = quantised && QUANTISED_ROWS[quantised.bits];
  return {
    modules: {
      ...kvPlaceModules(place),
      "package::slots::sequence": { name: "variants/sequence_cached.wesl", text: sequenceCached },
      ...(words && {
        "package::slots::key": { ...words, name: `${words.name} as key`, rename: AS_KEY },
        "package::slots::value": { ...words, name: `${words.name} as value`, rename: AS_VALUE },
      }),
    },
    constants: {
      ...kvPlaceConstants(layout),
      ...(quantised && { K_GROUP: quantised.groupK, V_GROUP: quantised.groupV }),
    },
    quantised: quantised !== undefined,
  };
}
