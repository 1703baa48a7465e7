// The kernel of absolute position encodings, shaders/position_encoding.wesl: what is compiled, its
// bindings and its grid.

import positionEncoding from "../../shaders/position_encoding.wesl?raw";
import encoding from "../../shaders/slots/encoding.wesl?raw";
import encodingLearned from "../../shaders/variants/encoding_learned.wesl?raw";
import queryNone from "../../shaders/variants/query_none.wesl?raw";
import { link, type ModuleMap } from "../shader/link.ts";
import { configModule, MODULES } from "../shader/modules.ts";
import type { Binding, KernelSource } from "../types.ts";
import type { Access } from "./access.ts";
import { KernelCache } from "./kernel_cache.ts";
import { positionBindings, positionModules } from "./rotary.ts";
import { type RotaryChoice, rotaryBindings, rotaryModules } from "./rotary_angles.ts";
import { inPlaceModule, slotModules } from "./slot_modules.ts";
import { PLAIN, slotConstants } from "./slots.ts";

const WG_SIZE = 64;

export interface EncodingSpecialisation {
  /** D */
  readonly width: number;
  /** Where the rows to add to are, if there are any. */
  readonly x: Access | "in place" | undefined;
  readonly o: Access;
  /** How a learned table is read; or which channels are sine and cosine of one angle. */
  readonly encoding: { readonly table: Access } | { readonly pairs: RotaryChoice };
  /** Positions are in memory. */
  readonly positions: boolean;
}

/** The modules of a specialisation, of which `package::position_encoding` is the root. */
export function encodingModules(spec: EncodingSpecialisation): ModuleMap {
  const { width, x, o, encoding: source, positions } = spec;
  const table = "table" in source ? source.table : "dense";
  const slots = { ...PLAIN, q: x && x !== "in place" ? x : "dense", k: table, o } as const;
  return {
    ...MODULES,
    "package::position_encoding": positionEncoding,
    ...configModule({ HEAD_DIM: width, V_DIM: width, ...slotConstants(slots) }),
    ...slotModules(slots),
    ...(x === "in place" && inPlaceModule(o)),
    ...(!x && { "package::slots::query": { name: "variants/query_none.wesl", text: queryNone } }),
    ...("table" in source
      ? {
          "package::slots::encoding": {
            name: "variants/encoding_learned.wesl",
            text: encodingLearned,
          },
        }
      : { "package::slots::encoding": encoding }),
    ...rotaryModules("pairs" in source ? source.pairs : undefined),
    ...positionModules(positions),
  };
}

export function encodingBindings({
  x,
  encoding: source,
  positions,
}: EncodingSpecialisation): Binding[] {
  return [
    { binding: 0, name: "params", type: "uniform" },
    ...(x && x !== "in place"
      ? [{ binding: 1, name: "q", type: "read-only-storage" } as const]
      : []),
    ...("table" in source ? [{ binding: 2, name: "k", type: "read-only-storage" } as const] : []),
    { binding: 6, name: "o", type: "storage" },
    ...("pairs" in source ? rotaryBindings(source.pairs) : []),
    ...positionBindings(positions),
  ];
}

const kernels = new KernelCache<EncodingSpecialisation>();

export function encodingKernel(spec: EncodingSpecialisation): KernelSource {
  return kernels.get(spec, () => {
    const text = link("package::position_encoding", encodingModules(spec));
    return { label: "position_encoding", ...text, bindings: encodingBindings(spec) };
  });
}

/** Workgroups for so many rows of D elements. */
export const encodingWorkgroups = (width: number, rows: number): number =>
  Math.ceil((Math.ceil(width / 4) * rows) / WG_SIZE);
