// Slots of tensors that a family of kernels calls by its own names. They hold modules for q, linked
// under these names, and need constants.

import queryNone from "../../shaders/variants/query_none.wesl?raw";
import type { ModuleMap, ModuleSource, Renames } from "../shader/link.ts";
import { asNoRows, asOperand, asOutput, asWords } from "../shader/renames_operands.ts";
import { type Access, isBf16 } from "./access.ts";
import { type IntegerBits, QUANTISED_ROWS } from "./quantised_rows.ts";
import { queryModule } from "./slot_modules.ts";

const NOT_READ = { name: "variants/query_none.wesl", text: queryNone };

/**
 * The slot of a tensor that a kernel reads: it gives `load_NAME` and `start_of_NAME`, and all zeros
 * for a tensor that there is not.
 */
export const namedSlot = (
  slot: string,
  name: string,
  binding: number,
  access: Access | undefined,
): ModuleMap =>
  access
    ? slotOf(slot, name, queryModule(access), asOperand(name, binding))
    : slotOf(slot, name, NOT_READ, asNoRows("load_q", name));

/**
 * The slot of a tensor whose rows are integers with scales. The uniform says how many integers a
 * row has, by the name `width`.
 */
export const namedWords = (
  slot: string,
  name: string,
  { binding, bits, width }: { binding: number; bits: IntegerBits; width: string },
): ModuleMap => slotOf(slot, name, QUANTISED_ROWS[bits], asWords(name, binding, width));

/** `namedSlot` for a kernel that works in place: the slot reads what the output holds. */
export const namedSlotInPlace = (slot: string, name: string, access: Access): ModuleMap =>
  slotOf(slot, name, queryModule(access), asOutput(name));

const slotOf = (slot: string, as: string, module: ModuleSource, rename: Renames): ModuleMap => ({
  [`package::slots::${slot}`]: { ...module, name: `${module.name} as ${as}`, rename },
});

/** Which tensors are bf16: constants of a config, by the tensors' names. */
export const bf16Constants = (
  accesses: Readonly<Record<string, Access | undefined>>,
): Readonly<Record<string, boolean>> =>
  Object.fromEntries(
    Object.entries(accesses).map(([name, access]) => [
      `${name.toUpperCase()}_BF16`,
      isBf16(access ?? "dense"),
    ]),
  );
