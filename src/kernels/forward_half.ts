// The modules of shaders/forward_half.wesl: products in f16.

import forwardHalf from "../../shaders/forward_half.wesl?raw";
import halfProducts from "../../shaders/lib/half_products.wesl?raw";
import halfTiles from "../../shaders/lib/half_tiles.wesl?raw";
import type { ModuleMap } from "../shader/link.ts";

/** The modules that this kernel has beside those of every forward kernel. */
export const HALF_MODULES: ModuleMap = {
  "package::forward_half": forwardHalf,
  "package::lib::half_products": halfProducts,
  "package::lib::half_tiles": halfTiles,
};
