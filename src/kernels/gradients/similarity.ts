// The kernels that finish the gradients of a similarity: those of rows that were normalised,
// shaders/backward_normalized.wesl, and of numbers that all rows share, shaders/backward_sums.wesl.

import normalized from "../../../shaders/backward_normalized.wesl?raw";
import sums from "../../../shaders/backward_sums.wesl?raw";
import gradientConfig from "../../../shaders/slots/gradient_config.wesl?raw";
import { link, type ModuleMap } from "../../shader/link.ts";
import { configModule, constantsModule, MODULES } from "../../shader/modules.ts";
import type { Binding, KernelSource } from "../../types.ts";
import { type Access, isBf16 } from "../access.ts";
import { KernelCache } from "../kernel_cache.ts";
import { slotModules } from "../slot_modules.ts";

/** Rows of a workgroup of the kernel of normalised rows. */
export const NORMALIZED_ROWS = 8;
/** Columns of a workgroup of the kernel of sums, and the rows that it adds up in a first run. */
export const SUMS_COLUMNS = 32;
export const SUMS_ROWS = 256;

export interface NormalizedSpecialisation {
  readonly headDim: number;
  /** How rows are read, and their gradients written. */
  readonly x: Access;
  readonly dX: Access;
  readonly rms: boolean;
  readonly weights: boolean;
  /** Whether the gradient of the weights is asked for. */
  readonly keep: boolean;
}

const PARAMS: Binding = { binding: 0, name: "params", type: "uniform" };
const Q: Binding = { binding: 1, name: "q", type: "read-only-storage" };
const O: Binding = { binding: 6, name: "o", type: "storage" };

/** The modules of a specialisation, of which `package::backward_normalized` is the root. */
export function normalizedModules(spec: NormalizedSpecialisation): ModuleMap {
  const { headDim, x, dX, rms, weights, keep } = spec;
  return {
    ...MODULES,
    "package::backward_normalized": normalized,
    ...configModule({
      HEAD_DIM: headDim,
      V_DIM: headDim,
      RMS: rms,
      Q_WEIGHTS: weights,
      Q_BF16: isBf16(x),
      O_BF16: isBf16(dX),
    }),
    ...constantsModule("gradient_config", gradientConfig, { KEEP_WEIGHTS: keep }),
    ...slotModules({ q: x, k: x, v: x, o: dX, tables: true }),
  };
}

export const NORMALIZED_BINDINGS: readonly Binding[] = [
  PARAMS,
  Q,
  { binding: 4, name: "tables", type: "read-only-storage" },
  O,
  { binding: 8, name: "rows", type: "storage" },
];

const normalizedKernels = new KernelCache<NormalizedSpecialisation>();

export const normalizedKernel = (spec: NormalizedSpecialisation): KernelSource =>
  normalizedKernels.get(spec, () => ({
    label: "backward normalized",
    ...link("package::backward_normalized", normalizedModules(spec)),
    bindings: NORMALIZED_BINDINGS,
  }));

export interface SumsSpecialisation {
  /** Elements of a row. */
  readonly dim: number;
  readonly rows: Access;
  readonly sums: Access;
}

/** The modules of a specialisation, of which `package::backward_sums` is the root. */
export function sumsModules({ dim, rows, sums: output }: SumsSpecialisation): ModuleMap {
  return {
    ...MODULES,
    "package::backward_sums": sums,
    ...configModule({ HEAD_DIM: dim, V_DIM: dim, O_BF16: isBf16(output) }),
    ...slotModules({ q: rows, k: rows, v: rows, o: output }),
  };
}

export const SUMS_BINDINGS: readonly Binding[] = [PARAMS, Q, O];

const sumsKernels = new KernelCache<SumsSpecialisation>();

export const sumsKernel = (spec: SumsSpecialisation): KernelSource =>
  sumsKernels.get(spec, () => ({
    label: "backward sums",
    ...link("package::backward_sums", sumsModules(spec)),
    bindings: SUMS_BINDINGS,
  }));
