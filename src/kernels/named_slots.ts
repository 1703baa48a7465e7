// Slots of tensors that a family of kernels calls by its own names. They hold modules for q, linked
// under these names, and need constants.

import queryNone from "../../shaders/variants/query_none.wesl?raw";
import type { ModuleMap } from "../shader/link.ts";
import { asNoRows, asOperand, asOutput } from "../shader/renames.ts";
import { type Access, isBf16 } from "./access.ts";
import { queryModule } from "./slot_modules.ts";

const NOT_READ = { name: "variants/query_none.wesl", text: queryNone };

/** A tensor that a kernel reads. */
interface NamedTensor {
  readonly name: string;
  readonly binding: number;
  /** Undefined if the tensor is absent: the kernel then reads zeros. */
  readonly access: Access | undefined;
}

/** Fills a slot that gives `load_NAME` and `start_of_NAME`. */
export function namedSlot(slot: string, { name, binding, access }: NamedTensor): ModuleMap {
  const module = access
    ? { ...queryModule(access), rename: asOperand(name, binding) }
    : { ...NOT_READ, rename: asNoRows("load_q", name) };
  return { [`package::slots::${slot}`]: { ...module, name: `${module.name} as ${name}` } };
}

/**
 * Fills a slot that gives `load_NAME` and `start_of_NAME` for a kernel that works in place: it
 * reads what the output holds.
 */
export function namedSlotInPlace(slot: string, name: string, access: Access): ModuleMap {
  const module = queryModule(access);
  return {
    [`package::slots::${slot}`]: {
      ...module,
      name: `${module.name} as ${name}`,
      rename: asOutput(name),
    },
  };
}

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
