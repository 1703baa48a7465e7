// Subgroup matrices for devices that have none.

import type { Component } from "../../src/kernels/forward_matrix.ts";
import type { ModuleMap } from "../../src/shader/link.ts";
import rounded from "./component_rounded.wesl?raw";
import emulated from "./matrix_emulated.wesl?raw";

/** Returns modules that stand in for those of a device with matrices. */
export const standIns = (component: Component): ModuleMap => ({
  "package::lib::matrix": emulated,
  ...(component === "f16" && { "package::slots::component": rounded }),
});
