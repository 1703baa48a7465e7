// Slots of tensors that a family of kernels calls by its own names: modules for q under these
// names, and the constants that they ask for.

import queryNone from "../../shaders/variants/query_none.wesl?raw";
import type { ModuleMap } from "../shader/link.ts";
import { asOperand, asOutput } from "../shader/modules.ts";
import { queryModule } from "./slot_modules.ts";
import type { Access } from "./slots.ts";

const NOT_READ = { name: "variants/query_none.wesl", text: queryNone };

/**
 * The slot of a tensor that a kernel reads: it gives `load_NAME` and `start_of_NAME`, and all zeros
 * for a tensor that there is not.
 */
export function namedSlot(
  slot: string,
  name: string,
  binding: number,
  access: Access | undefined,
): ModuleMap {
  const module = access ? queryModule(access) : NOT_READ;
  return slotOf(slot, `${module.name} as ${name}`, asOperand(name, binding, module.text));
}

/** The same for a kernel that works in place: the slot reads what the output holds. */
export function namedSlotInPlace(slot: string, name: string, access: Access): ModuleMap {
  const { name: file, text } = queryModule(access);
  return slotOf(slot, `${file} as ${name}`, asOperand(name, 0, asOutput(text)));
}

const slotOf = (slot: string, name: string, text: string): ModuleMap => ({
  [`package::slots::${slot}`]: { name, text },
});

/** Which tensors are bf16: constants of a config, by the tensors' names. */
export const bf16Constants = (
  accesses: Readonly<Record<string, Access | undefined>>,
): Readonly<Record<string, boolean>> =>
  Object.fromEntries(
    Object.entries(accesses).map(([name, access]) => [
      `${name.toUpperCase()}_BF16`,
      access?.startsWith("bf16") ?? false,
    ]),
  );
