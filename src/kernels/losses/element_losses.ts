// The losses of single elements, shaders/pointwise_loss.wesl and lib/element_losses.wesl: what is
// compiled.

import elementLosses from "../../../shaders/lib/element_losses.wesl?raw";
import finite from "../../../shaders/lib/finite.wesl?raw";
import invocation from "../../../shaders/lib/invocation.wesl?raw";
import rowVec4s from "../../../shaders/lib/row_vec4s.wesl?raw";
import sigmoid from "../../../shaders/lib/sigmoid.wesl?raw";
import pointwiseLoss from "../../../shaders/pointwise_loss.wesl?raw";
import loss from "../../../shaders/slots/loss.wesl?raw";
import lossLogistic from "../../../shaders/variants/loss_logistic.wesl?raw";
import type { ModuleMap } from "../../shader/link.ts";
import type { RowAccesses, RowSpecialisation } from "../rows.ts";

/** `"squared"`, (x - t)^2; `"logistic"`, the binary cross-entropy of a logit x. */
export type ElementLoss = "squared" | "logistic";

const LOGISTIC: ModuleMap = {
  "package::lib::finite": finite,
  "package::lib::sigmoid": sigmoid,
  "package::slots::loss": { name: "variants/loss_logistic.wesl", text: lossLogistic },
};

/** The modules that find the losses of elements. */
export const elementLossModules = (kind: ElementLoss): ModuleMap => ({
  "package::lib::element_losses": elementLosses,
  "package::lib::row_vec4s": rowVec4s,
  ...(kind === "logistic" ? LOGISTIC : { "package::slots::loss": loss }),
});

/** Which tensors there are, as these modules ask for it. */
export const elementLossConstants = (tensors: Partial<RowAccesses>) => ({
  SHIFT: tensors.shift !== undefined,
  WEIGHT: tensors.weight !== undefined,
});

/** @param gradient Whether a gradient is written, and by which of the two; otherwise losses are. */
export const pointwiseLossSpecialisation = (
  tensors: Partial<RowAccesses>,
  kind: ElementLoss,
  gradient?: "x" | "target",
): RowSpecialisation => ({
  tensors,
  variant: kind,
  constants: {
    ...elementLossConstants(tensors),
    GRADIENT: gradient !== undefined,
    BY_TARGET: gradient === "target",
  },
  modules: {
    "package::pointwise_loss": pointwiseLoss,
    "package::lib::invocation": invocation,
    ...elementLossModules(kind),
  },
});
