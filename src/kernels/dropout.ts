// The kernel of dropout, shaders/dropout.wesl: what is compiled.

import dropout from "../../shaders/dropout.wesl?raw";
import invocation from "../../shaders/lib/invocation.wesl?raw";
import rowVec4s from "../../shaders/lib/row_vec4s.wesl?raw";
import threefry from "../../shaders/lib/threefry.wesl?raw";
import dropoutKey from "../../shaders/slots/dropout_key.wesl?raw";
import elementFactor from "../../shaders/slots/element_factor.wesl?raw";
import dropoutFactorThreefry from "../../shaders/variants/dropout_factor_threefry.wesl?raw";
import elementFactorMask from "../../shaders/variants/element_factor_mask.wesl?raw";
import type { ModuleMap } from "../shader/link.ts";
import type { RowAccesses, RowSpecialisation } from "./rows.ts";

const GENERATED: ModuleMap = {
  "package::lib::threefry": threefry,
  "package::slots::dropout_factor": {
    name: "variants/dropout_factor_threefry.wesl",
    text: dropoutFactorThreefry,
  },
  "package::slots::dropout_key": dropoutKey,
  "package::slots::element_factor": elementFactor,
};
const MASKED: ModuleMap = {
  "package::slots::element_factor": {
    name: "variants/element_factor_mask.wesl",
    text: elementFactorMask,
  },
};

/** @param masked Whether a mask says what is kept, and no generator. */
export const dropoutSpecialisation = (
  tensors: RowAccesses,
  masked: boolean,
): RowSpecialisation => ({
  tensors,
  variant: masked ? "masked" : "generated",
  constants: {},
  modules: {
    "package::dropout": dropout,
    "package::lib::invocation": invocation,
    "package::lib::row_vec4s": rowVec4s,
    ...(masked ? MASKED : GENERATED),
  },
  bindings: [{ binding: 9, name: masked ? "keep_mask" : "steps", type: "read-only-storage" }],
});
