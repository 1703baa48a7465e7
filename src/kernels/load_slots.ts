// Loading of the modules that replace the default ones, for problems that have any.

import type { ModuleMap } from "../shader/link.ts";
import type { SlotChoice } from "./slots.ts";

/** Modules that replace the default ones. Plain attention has none, and loads none. */
export async function loadSlotModules(slots: SlotChoice): Promise<ModuleMap> {
  const isPlain = Object.values(slots).every((choice) => !choice || choice === "dense");
  return isPlain ? {} : (await import("./slot_modules.ts")).slotModules(slots);
}
