// Modules of users among ours.

import type { Module } from "./link.ts";
import { located } from "./source.ts";

/**
 * A name at module scope hides the function or type of WGSL that has it, in every module. Throws FoveaError("shader") for a
 * name of the guest that hides what one of our modules uses.
 */
export function rejectHiding(guest: Module, modules: readonly Module[]): void {
  for (const [name, line] of guest.declared) {
    const used = new RegExp(`(?<![\\w.])${name}[(<]|(?:(?<!:):|->)\\s*${name}\\b`);
    const imports = ({ imports }: Module) => imports.some(({ names }) => names.includes(name));
    const user = modules.find((module) => !module.guest && !imports(module) && used.test(module.code));
    if (!user) continue;
    throw located(
      guest.name,
      line,
      `${name} would hide WGSL's own ${name}, which ${user.name} uses; take another name`,
    );
  }
}
