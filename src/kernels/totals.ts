// The totals of rows with many keys: the module that fills slots/totals if sums would lose digits.

import carried from "../../shaders/variants/totals_carried.wesl?raw";
import type { ModuleMap } from "../shader/link.ts";

export const TOTALS_MODULES: ModuleMap = {
  "package::slots::totals": { name: "variants/totals_carried.wesl", text: carried },
};
