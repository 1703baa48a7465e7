// The kernels of gradients of additive attention that those of products don't have:
// shaders/backward_additive.wesl, in the form of backward.wesl; backward_additive_pairs.wesl and
// backward_additive_few.wesl for few queries; and backward_unit_vector.wesl.

import additive from "../../../shaders/backward_additive.wesl?raw";
import few from "../../../shaders/backward_additive_few.wesl?raw";
import pairs from "../../../shaders/backward_additive_pairs.wesl?raw";
import unitVector from "../../../shaders/backward_unit_vector.wesl?raw";
import invocation from "../../../shaders/lib/invocation.wesl?raw";
import tanhSlope from "../../../shaders/lib/tanh_slope.wesl?raw";
import keptRows from "../../../shaders/slots/kept_rows.wesl?raw";
import scoreProduct from "../../../shaders/slots/score_product.wesl?raw";
import keptRowsStored from "../../../shaders/variants/kept_rows_stored.wesl?raw";
import scoreProductAdditive from "../../../shaders/variants/score_product_additive.wesl?raw";
import similarityPairs from "../../../shaders/variants/similarity_pairs.wesl?raw";
import { link, type ModuleMap } from "../../shader/link.ts";
import { configModule, MODULES } from "../../shader/modules.ts";
import type { Binding, KernelSource } from "../../types.ts";
import { KernelCache } from "../kernel_cache.ts";
import { slotModules } from "../slot_modules.ts";
import type { SimilarityChoice } from "../slots.ts";

/** Rows that the kernel of queries keeps, for gradients of numbers that all rows share. */
export interface KeptRows {
  readonly vector: boolean;
  readonly bias: boolean;
  readonly scale: boolean;
}

/** Which tile the kernels have: one row a lane. */
export const ADDITIVE_TILE = "8x32";

/** Modules in place of those for products. Rows are compared as they are. */
export const additiveModules = (kept: KeptRows | undefined): ModuleMap => ({
  "package::backward_additive": additive,
  "package::backward_additive_few": few,
  "package::backward_additive_pairs": pairs,
  "package::lib::invocation": invocation,
  "package::lib::tanh_slope": tanhSlope,
  "package::slots::similarity": MODULES["package::slots::similarity"],
  "package::slots::kept_rows": isAny(kept)
    ? { name: "variants/kept_rows_stored.wesl", text: keptRowsStored }
    : keptRows,
});

const isAny = (kept: KeptRows | undefined) => Object.values(kept ?? {}).some(Boolean);

/** What kernels need that compute scores of a similarity once more, for sums over them. */
export const scoreProductModules = (similarity: SimilarityChoice | undefined): ModuleMap =>
  similarity?.kind !== "additive"
    ? { "package::slots::score_product": scoreProduct }
    : {
        "package::lib::tanh_slope": tanhSlope,
        "package::slots::score_product": {
          name: "variants/score_product_additive.wesl",
          text: scoreProductAdditive,
        },
        "package::slots::similarity": {
          name: "variants/similarity_pairs.wesl",
          text: similarityPairs,
        },
      };

/** The constants of slots/gradient_config that say which rows are kept. */
export const keptConstants = ({ vector, bias, scale }: KeptRows) => ({
  KEEP_VECTOR: vector,
  KEEP_BIAS: bias,
  KEEP_SCALE: scale,
});

/** The binding of kept rows. */
export const keptBindings = (kept: KeptRows | undefined): Binding[] =>
  isAny(kept) ? [{ binding: 8, name: "kept", type: "storage" }] : [];

/** The modules of the kernel `backward_unit_vector`, of dense or strided rows of f32. */
export function unitVectorModules(headDim: number): ModuleMap {
  const access = headDim % 4 === 0 ? "dense" : "strided";
  return {
    ...MODULES,
    "package::backward_unit_vector": unitVector,
    ...configModule({ HEAD_DIM: headDim, V_DIM: headDim, UNIT_VECTOR: true }),
    ...slotModules({ q: access, k: access, v: access, o: access, tables: true }),
  };
}

export const UNIT_VECTOR_BINDINGS: readonly Binding[] = [
  { binding: 0, name: "params", type: "uniform" },
  { binding: 1, name: "q", type: "read-only-storage" },
  { binding: 4, name: "tables", type: "read-only-storage" },
  { binding: 6, name: "o", type: "storage" },
  { binding: 8, name: "gains", type: "storage" },
];

const kernels = new KernelCache<number>();

export const unitVectorKernel = (headDim: number): KernelSource =>
  kernels.get(headDim, () => ({
    label: "backward unit_vector",
    ...link("package::backward_unit_vector", unitVectorModules(headDim)),
    bindings: UNIT_VECTOR_BINDINGS,
  }));
