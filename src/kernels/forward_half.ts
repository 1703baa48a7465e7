// The modules of shaders/forward_half.wesl: products in f16.

import forwardHalf from "../../shaders/forward_half.wesl?raw";
import halfProducts from "../../shaders/lib/half_products.wesl?raw";
import halfTiles from "../../shaders/lib/half_tiles.wesl?raw";
import kvTileWide from "../../shaders/variants/kv_tile_wide.wesl?raw";
import type { ModuleMap } from "../shader/link.ts";

/** The modules beside those of every kernel; `wide`: tiles of 64 keys, not 32. */
export const halfModules = (wide: boolean): ModuleMap => ({
  "package::forward_half": forwardHalf,
  "package::lib::half_products": halfProducts,
  "package::lib::half_tiles": halfTiles,
  ...(wide && { "package::lib::kv_tile": kvTileWide }),
});
