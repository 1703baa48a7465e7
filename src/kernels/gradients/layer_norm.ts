// The kernels of the gradients of a normalisation, shaders/layer_norm_backward.wesl and the sums
// over rows that follow it: what is compiled.

import layerNormBackward from "../../../shaders/layer_norm_backward.wesl?raw";
import magnitude from "../../../shaders/lib/magnitude.wesl?raw";
import normGradient from "../../../shaders/lib/norm_gradient.wesl?raw";
import rowMoments from "../../../shaders/lib/row_moments.wesl?raw";
import rowSums from "../../../shaders/lib/row_sums.wesl?raw";
import momentsNotKept from "../../../shaders/slots/row_moments.wesl?raw";
import rowTerms from "../../../shaders/slots/row_terms.wesl?raw";
import rowMomentsStored from "../../../shaders/variants/row_moments_stored.wesl?raw";
import rowTermsGradient from "../../../shaders/variants/row_terms_gradient.wesl?raw";
import type { ModuleMap } from "../../shader/link.ts";
import type { LayerNormChoice } from "../layer_norm.ts";
import { type RowSumsChoice, rowSumsSpecialisation } from "./row_sums.ts";
import type { ByTensor, GradientAccesses, RowGradientSpecialisation } from "./rows.ts";

/** What can be summed over rows, as shaders/slots/row_terms.wesl numbers it. */
export const NORM_TERMS = { weight: 0, bias: 1, total: 2 } as const;

const LIBRARY: ModuleMap = {
  "package::lib::magnitude": magnitude,
  "package::lib::norm_gradient": normGradient,
  "package::lib::row_moments": rowMoments,
  "package::lib::row_sums": rowSums,
};
const MOMENTS = { binding: 8, name: "moments_of_rows" } as const;

const constantsOf = (tensors: GradientAccesses, centred: boolean) => ({
  CENTRED: centred,
  RESIDUAL: tensors.residual !== undefined,
  SHIFT: tensors.shift !== undefined,
  WEIGHT: tensors.weight !== undefined,
  PASSED: tensors.passed !== undefined,
});

/** The kernel that finds the gradient of x. `moments`: sums over rows follow. */
export const layerNormBackwardSpecialisation = (
  tensors: GradientAccesses,
  {
    lanes,
    rowsAdjacent,
    centred,
    moments,
  }: Omit<LayerNormChoice, "workgroup"> & { readonly moments: boolean },
): RowGradientSpecialisation => ({
  tensors,
  constants: {
    ...constantsOf(tensors, centred),
    LANES: lanes,
    ROWS_ADJACENT: rowsAdjacent,
    MOMENTS: moments,
  },
  modules: {
    ...LIBRARY,
    "package::layer_norm_backward": layerNormBackward,
    "package::slots::row_moments": moments
      ? { name: "variants/row_moments_stored.wesl", text: rowMomentsStored }
      : momentsNotKept,
  },
  bindings: moments ? [{ ...MOMENTS, type: "storage" }] : [],
});

/** The tensors that the sums of these terms read. */
export function normTermTensors<T>(tensors: ByTensor<T>, terms: readonly number[]): ByTensor<T> {
  const { source, residual, shift, weight, gradient, passed } = tensors;
  if (terms.every((term) => term === NORM_TERMS.bias)) return { gradient };
  const ofTotal = terms.includes(NORM_TERMS.total) ? { weight, passed } : {};
  return { source, residual, shift, gradient, ...ofTotal };
}

/** The kernel of the sums. `tensors` are those that `normTermTensors` gives. */
export const normSumsSpecialisation = (
  tensors: GradientAccesses,
  choice: RowSumsChoice,
  centred: boolean,
): RowGradientSpecialisation =>
  tensors.source === undefined
    ? rowSumsSpecialisation(tensors, choice, GRADIENT_ALONE)
    : rowSumsSpecialisation(tensors, choice, {
        constants: constantsOf(tensors, centred),
        modules: { ...LIBRARY, "package::slots::row_terms": rowTerms },
        bindings: [{ ...MOMENTS, type: "read-only-storage" }],
      });

const GRADIENT_ALONE = {
  constants: {},
  modules: {
    "package::slots::row_terms": {
      name: "variants/row_terms_gradient.wesl",
      text: rowTermsGradient,
    },
  },
};
