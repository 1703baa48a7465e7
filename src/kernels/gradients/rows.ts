// What the kernels of gradients of operations on rows have in common: the modules and bindings of
// their tensors, and their uniform.

import carriedSum from "../../../shaders/lib/carried_sum.wesl?raw";
import finite from "../../../shaders/lib/finite.wesl?raw";
import half from "../../../shaders/lib/half.wesl?raw";
import invocation from "../../../shaders/lib/invocation.wesl?raw";
import reducedRows from "../../../shaders/lib/reduced_rows.wesl?raw";
import params from "../../../shaders/lib/row_gradient_params.wesl?raw";
import rowLanesModule from "../../../shaders/lib/row_lanes.wesl?raw";
import config from "../../../shaders/slots/row_gradient_config.wesl?raw";
import { link, type ModuleMap } from "../../shader/link.ts";
import { constantsModule } from "../../shader/modules.ts";
import type { Binding, KernelSource } from "../../types.ts";
import { type Access, isBf16 } from "../access.ts";
import { KernelCache } from "../kernel_cache.ts";
import { readRows, writtenRows } from "../rows.ts";
import { UniformStruct } from "../uniform.ts";

/**
 * The tensors of rows that these kernels have, by their bindings from 1 on. `gradient` is that of
 * the result, `passed` one that goes past the operation, and `o` the one that is written.
 */
export const GRADIENT_TENSORS = [
  "source",
  "residual",
  "shift",
  "weight",
  "gradient",
  "passed",
  "o",
] as const;
export type GradientTensor = (typeof GRADIENT_TENSORS)[number];

/** How a kernel reaches each of its tensors. */
export type GradientAccesses = ByTensor<Access>;

/** Something for each tensor that there is. */
export type ByTensor<T> = { readonly [Name in GradientTensor]?: T | undefined };

export interface RowGradientSpecialisation {
  readonly tensors: GradientAccesses;
  readonly constants: Readonly<Record<string, number | boolean>>;
  /** Modules beside those of the tensors; `variant` tells them from others of the same kernel. */
  readonly modules: ModuleMap;
  readonly variant?: string | undefined;
  /** Bindings beside those of the tensors. */
  readonly bindings?: readonly Binding[] | undefined;
}

/** The modules of a kernel; the root is among those that are given. */
export function rowGradientModules({
  tensors,
  constants,
  modules,
}: RowGradientSpecialisation): ModuleMap {
  const slots = GRADIENT_TENSORS.map((name, index) => {
    const module = (name === "o" ? writtenRows : readRows)(name, index + 1, tensors[name]);
    return [`package::slots::row_${name}`, { ...module, name: `${module.name} as ${name}` }];
  });
  const bf16 = GRADIENT_TENSORS.map((name) => [
    `${name.toUpperCase()}_BF16`,
    isBf16(tensors[name] ?? "dense"),
  ]);
  return {
    "package::lib::carried_sum": carriedSum,
    "package::lib::finite": finite,
    "package::lib::half": half,
    "package::lib::invocation": invocation,
    "package::lib::params": params,
    "package::lib::reduced_rows": reducedRows,
    "package::lib::row_lanes": rowLanesModule,
    ...Object.fromEntries(slots),
    ...constantsModule("config", config, { ...Object.fromEntries(bf16), ...constants }),
    ...modules,
  };
}

export function rowGradientBindings({
  tensors,
  bindings = [],
}: Pick<RowGradientSpecialisation, "tensors" | "bindings">): Binding[] {
  const used = GRADIENT_TENSORS.flatMap((name, index): Binding[] => {
    const type = name === "o" ? "storage" : "read-only-storage";
    return tensors[name] === undefined ? [] : [{ binding: index + 1, name, type }];
  });
  const others = [...bindings].sort((a, b) => a.binding - b.binding);
  return [{ binding: 0, name: "params", type: "uniform" }, ...used, ...others];
}

/** Kernels by root, and by what the text depends on of the specialisation. */
const kernels = new KernelCache<
  Pick<RowGradientSpecialisation, "tensors" | "constants" | "variant"> & { root: string }
>();

export function rowGradientKernel(root: string, spec: RowGradientSpecialisation): KernelSource {
  const { tensors, constants, variant } = spec;
  return kernels.get({ root, tensors, constants, variant }, () => ({
    label: root,
    ...link(`package::${root}`, rowGradientModules(spec)),
    bindings: rowGradientBindings(spec),
  }));
}

/** The uniform of these kernels. A kernel reads some of its members; the others are 0. */
export const ROW_GRADIENT_PARAMS = new UniformStruct(params, "RowGradientParams");
