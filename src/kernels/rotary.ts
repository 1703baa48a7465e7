// The rotary kernel, shaders/rotary.wesl: what is compiled, its bindings and its grid.

import half from "../../shaders/lib/half.wesl?raw";
import rotaryParams from "../../shaders/lib/rotary_params.wesl?raw";
import rotary from "../../shaders/rotary.wesl?raw";
import positionConfig from "../../shaders/slots/position_config.wesl?raw";
import positions from "../../shaders/slots/positions.wesl?raw";
import positionsStored from "../../shaders/variants/positions_stored.wesl?raw";
import { link, type ModuleMap } from "../shader/link.ts";
import { constantsModule, MODULES } from "../shader/modules.ts";
import type { Binding, KernelSource } from "../types.ts";
import type { Access } from "./access.ts";
import { KernelCache } from "./kernel_cache.ts";
import { bf16Constants, namedSlot, namedSlotInPlace } from "./named_slots.ts";
import { type RotaryChoice, rotaryBindings, rotaryModules } from "./rotary_angles.ts";
import { outputModule } from "./slot_modules.ts";
import { UniformStruct } from "./uniform.ts";

const WG_SIZE = 64;
/** Heads that a lane turns by the same angles. */
export const ROTARY_HEADS = 4;

export interface RotarySpecialisation {
  readonly headDim: number;
  readonly x: Access;
  /** How the output is written; in place also how x is read. */
  readonly o: Access;
  readonly rotary: RotaryChoice;
  /** Whether positions are in memory; otherwise they rise by one from row to row. */
  readonly positions: boolean;
}

/** The modules of slots/positions. */
export const positionModules = (stored: boolean): ModuleMap => ({
  "package::slots::positions": stored
    ? { name: "variants/positions_stored.wesl", text: positionsStored }
    : positions,
});

export const positionBindings = (stored: boolean): Binding[] =>
  stored ? [{ binding: 15, name: "positions", type: "read-only-storage" }] : [];

/** The modules of a specialisation, of which `package::rotary` is the root. */
export function rotaryKernelModules({
  headDim,
  x,
  o,
  rotary: choice,
  positions,
}: RotarySpecialisation): ModuleMap {
  return {
    ...MODULES,
    "package::lib::half": half,
    "package::lib::params": rotaryParams,
    "package::rotary": rotary,
    ...(choice.inPlace
      ? namedSlotInPlace("source", "source", o)
      : namedSlot("source", "source", 1, x)),
    "package::slots::output": outputModule(o),
    ...constantsModule("config", positionConfig, {
      HEAD_DIM: headDim,
      SOURCE_DIM: headDim,
      V_DIM: headDim,
      ...bf16Constants({ source: x, o }),
    }),
    ...rotaryModules(choice),
    ...positionModules(positions),
  };
}

export function rotaryKernelBindings({
  rotary: choice,
  positions,
}: RotarySpecialisation): Binding[] {
  return [
    { binding: 0, name: "params", type: "uniform" },
    ...(choice.inPlace ? [] : [{ binding: 1, name: "source", type: "read-only-storage" } as const]),
    { binding: 6, name: "o", type: "storage" },
    ...rotaryBindings(choice),
    ...positionBindings(positions),
  ];
}

/** The uniform. A kernel reads some of its members; the others are 0. */
export const ROTARY_PARAMS = new UniformStruct(rotaryParams, "RotaryParams");

const kernels = new KernelCache<RotarySpecialisation>();

export function rotaryKernel(spec: RotarySpecialisation): KernelSource {
  return kernels.get(spec, () => {
    const text = link("package::rotary", rotaryKernelModules(spec));
    return { label: "rotary", ...text, bindings: rotaryKernelBindings(spec) };
  });
}

/** The number of parts that the shader cuts a row into; a lane takes one of them. */
export function rotaryCells({
  headDim,
  rotary: { rotaryDim, interleaved, inPlace },
}: RotarySpecialisation): number {
  const half = rotaryDim / 2;
  if (!interleaved && half % 4 !== 0) return 1;
  const end = Math.ceil((inPlace ? rotaryDim : headDim) / 4);
  return interleaved ? end : end - half / 4;
}

/** Workgroups for so many rows of so many heads. */
export const rotaryWorkgroups = (spec: RotarySpecialisation, rows: number, heads: number): number =>
  Math.ceil((rotaryCells(spec) * rows * Math.ceil(heads / ROTARY_HEADS)) / WG_SIZE);
