// The kernel of absolute position encodings, shaders/position_encoding.wesl: what is compiled, its
// bindings and its grid.

import encodingParams from "../../shaders/lib/encoding_params.wesl?raw";
import half from "../../shaders/lib/half.wesl?raw";
import positionEncoding from "../../shaders/position_encoding.wesl?raw";
import encoding from "../../shaders/slots/encoding.wesl?raw";
import positionConfig from "../../shaders/slots/position_config.wesl?raw";
import encodingLearned from "../../shaders/variants/encoding_learned.wesl?raw";
import { link, type ModuleMap } from "../shader/link.ts";
import { constantsModule, MODULES } from "../shader/modules.ts";
import type { Binding, KernelSource } from "../types.ts";
import type { Access } from "./access.ts";
import { KernelCache } from "./kernel_cache.ts";
import { bf16Constants, namedSlot, namedSlotInPlace } from "./named_slots.ts";
import { positionBindings, positionModules } from "./rotary.ts";
import { type RotaryChoice, rotaryBindings, rotaryModules } from "./rotary_angles.ts";
import { outputModule } from "./slot_modules.ts";
import { UniformStruct } from "./uniform.ts";

const WG_SIZE = 64;

export interface EncodingSpecialisation {
  /** D, elements of a row. */
  readonly width: number;
  /** How the rows that the encoding is added to are read, if there are any. */
  readonly x: Access | "in place" | undefined;
  readonly o: Access;
  /** How a learned table is read, or which channels are sine and cosine of one angle. */
  readonly encoding: { readonly table: Access } | { readonly pairs: RotaryChoice };
  /** Whether positions are in memory. */
  readonly positions: boolean;
}

/** The modules of a specialisation, of which `package::position_encoding` is the root. */
export function encodingModules(spec: EncodingSpecialisation): ModuleMap {
  const { width, x, o, encoding: source, positions } = spec;
  const table = "table" in source ? source.table : undefined;
  const read = x === "in place" ? undefined : x;
  return {
    ...MODULES,
    "package::lib::half": half,
    "package::lib::params": encodingParams,
    "package::position_encoding": positionEncoding,
    ...(x === "in place"
      ? namedSlotInPlace("source", "source", o)
      : namedSlot("source", "source", 1, read)),
    ...namedSlot("table", "table", 2, table),
    "package::slots::output": outputModule(o),
    ...constantsModule("config", positionConfig, {
      HEAD_DIM: width,
      SOURCE_DIM: width,
      TABLE_DIM: width,
      V_DIM: width,
      ...bf16Constants({ source: read, table, o }),
    }),
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
      ? [{ binding: 1, name: "source", type: "read-only-storage" } as const]
      : []),
    ...("table" in source
      ? [{ binding: 2, name: "table", type: "read-only-storage" } as const]
      : []),
    { binding: 6, name: "o", type: "storage" },
    ...("pairs" in source ? rotaryBindings(source.pairs) : []),
    ...positionBindings(positions),
  ];
}

/** The uniform. A kernel reads some of its members; the others are 0. */
export const ENCODING_PARAMS = new UniformStruct(encodingParams, "EncodingParams");

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
