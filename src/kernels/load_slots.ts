// Loads the modules that replace default ones, for problems that need any.

import type { ModuleMap } from "../shader/link.ts";
import type { SlotChoice } from "./slots.ts";

/** The modules that replace default ones. Plain attention needs none, and loads none. */
export async function loadSlotModules(slots: SlotChoice): Promise<ModuleMap> {
  const isPlain = Object.values(slots).every((choice) => !choice || choice === "dense");
  return isPlain ? {} : (await import("./slot_modules.ts")).slotModules(slots);
}
