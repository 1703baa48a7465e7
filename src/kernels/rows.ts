// What the kernels of rows (shaders/pointwise.wesl, row_softmax.wesl, layer_norm.wesl, ...) have in
// common: the modules and bindings of their tensors, and their uniform.

import half from "../../shaders/lib/half.wesl?raw";
import rowParams from "../../shaders/lib/row_params.wesl?raw";
import rowConfig from "../../shaders/slots/row_config.wesl?raw";
import outputNone from "../../shaders/variants/output_none.wesl?raw";
import queryNone from "../../shaders/variants/query_none.wesl?raw";
import { link, type ModuleMap, type ModuleSource } from "../shader/link.ts";
import { constantsModule } from "../shader/modules.ts";
import { asNoRows, asReadRows, asWrittenRows } from "../shader/renames_operands.ts";
import type { Binding, KernelSource } from "../types.ts";
import { type Access, isBf16 } from "./access.ts";
import { KernelCache } from "./kernel_cache.ts";
import { outputModule, queryModule } from "./slot_modules.ts";
import { UniformStruct } from "./uniform.ts";

/** The tensors of rows that these kernels have, by their bindings from 1 on. */
const READ = ["source", "residual", "shift", "weight", "bias"] as const;
const WRITTEN = ["o", "total"] as const;
const SLOTS = [...READ, ...WRITTEN] as const;
/**
 * All tensors of these kernels: those of the slots, and the statistics of rows, which have no slot.
 */
export const ROW_TENSORS = [...SLOTS, "statistics"] as const;
export type RowTensor = (typeof ROW_TENSORS)[number];

/** How kernels reach each of the tensors that are present. */
export type RowAccesses = Readonly<Partial<Record<RowTensor, Access>>> & {
  readonly source: Access;
  readonly o: Access;
};

export interface RowSpecialisation {
  readonly tensors: Partial<RowAccesses>;
  readonly constants: Readonly<Record<string, number | boolean>>;
  /**
   * Modules beside those of the tensors. `variant` tells them from others of the same kernel and
   * constants.
   */
  readonly modules: ModuleMap;
  readonly variant?: string | undefined;
  /** Bindings beside those of the tensors. */
  readonly bindings?: readonly Binding[];
}

const NOT_READ = { name: "variants/query_none.wesl", text: queryNone };
const NOT_WRITTEN = { name: "variants/output_none.wesl", text: outputNone };

/** The module of a tensor of rows that a kernel reads; one that gives zeros if there is none. */
export const readRows = (
  name: string,
  binding: number,
  access: Access | undefined,
): ModuleSource =>
  access === undefined
    ? { ...NOT_READ, rename: asNoRows("load_q", name) }
    : { ...queryModule(access), rename: asReadRows(name, binding) };

/** The same for a tensor that it writes. */
export const writtenRows = (
  name: string,
  binding: number,
  access: Access | undefined,
): ModuleSource =>
  access === undefined
    ? { ...NOT_WRITTEN, rename: asNoRows("store_o", name) }
    : { ...outputModule(access), rename: asWrittenRows(name, binding) };

/** The modules of a kernel of rows; the root is among those that are given. */
export function rowModules({ tensors, constants, modules }: RowSpecialisation): ModuleMap {
  const slots = SLOTS.map((name, index) => {
    const access = tensors[name];
    const written = (WRITTEN as readonly string[]).includes(name);
    const module = written
      ? writtenRows(name, index + 1, access)
      : readRows(name, index + 1, access);
    return [`package::slots::row_${name}`, { ...module, name: `${module.name} as ${name}` }];
  });
  const bf16 = SLOTS.map((name) => [
    `${name.toUpperCase()}_BF16`,
    isBf16(tensors[name] ?? "dense"),
  ]);
  return {
    "package::lib::params": rowParams,
    "package::lib::half": half,
    ...Object.fromEntries(slots),
    ...constantsModule("config", rowConfig, { ...Object.fromEntries(bf16), ...constants }),
    ...modules,
  };
}

export function rowBindings({
  tensors,
  bindings = [],
}: Pick<RowSpecialisation, "tensors" | "bindings">): Binding[] {
  const used = ROW_TENSORS.flatMap((name, index): Binding[] => {
    const type = (READ as readonly string[]).includes(name) ? "read-only-storage" : "storage";
    return tensors[name] === undefined ? [] : [{ binding: index + 1, name, type }];
  });
  return [{ binding: 0, name: "params", type: "uniform" }, ...used, ...bindings];
}

/** Lanes of a workgroup of a kernel in which lanes share rows. */
const ROW_WG_SIZE = 256;

/**
 * How many lanes share a row of `width` elements. With `rowsAdjacent`, as many rows as possible are
 * read side by side.
 *
 * On software adapters barriers and workgroup memory cost more than sharing saves: a layer norm of
 * 1,024 rows of 128 takes 100 ms with 32 lanes a row, 21 with 4 and 10 with 1.
 *
 * @param softwareRows How many rows there are, on a software adapter; otherwise 0
 */
export function rowLanes(width: number, rowsAdjacent: boolean, softwareRows: number): number {
  // One lane that adds all of a wide row would lose digits.
  if (softwareRows >= 64) return width > 1024 ? 32 : softwareRows < 512 ? 4 : 1;
  const [few, some] = rowsAdjacent ? [256, Number.POSITIVE_INFINITY] : [64, 1024];
  return width <= few ? 4 : width <= some ? 32 : ROW_WG_SIZE;
}

/** Workgroups for so many rows. */
export const rowWorkgroups = (rows: number, lanes: number, workgroup = ROW_WG_SIZE): number =>
  Math.ceil((rows * lanes) / workgroup);

/** Kernels by root, and by what the text depends on of the specialisation. */
const kernels = new KernelCache<
  Pick<RowSpecialisation, "tensors" | "constants" | "variant"> & { root: string }
>();

export function rowKernel(root: string, spec: RowSpecialisation): KernelSource {
  const { tensors, constants, variant } = spec;
  return kernels.get({ root, tensors, constants, variant }, () => {
    return {
      label: root,
      ...link(`package::${root}`, rowModules(spec)),
      bindings: rowBindings(spec),
    };
  });
}

/** The uniform of these kernels. A kernel reads some of its members; the others are 0. */
export const ROW_PARAMS = new UniformStruct(rowParams, "RowParams");
