// The modules of shaders/decode_quads.wesl: few queries, quads of lanes that share keys.

import decodeQuads from "../../shaders/decode_quads.wesl?raw";
import quad from "../../shaders/lib/quad.wesl?raw";
import quads from "../../shaders/slots/quads.wesl?raw";
import splitEnd from "../../shaders/slots/split_end.wesl?raw";
import quadsMany from "../../shaders/variants/quads_many.wesl?raw";
import splitEndWhole from "../../shaders/variants/split_end_whole.wesl?raw";
import type { ModuleMap } from "../shader/link.ts";

/** The modules that this kernel has beside those of every decode kernel. */
export const quadModules = (lanes: number, whole: boolean): ModuleMap => ({
  "package::decode_quads": decodeQuads,
  "package::lib::quad": quad,
  "package::slots::quads":
    lanes > 4 ? { name: "variants/quads_many.wesl", text: quadsMany } : quads,
  "package::slots::split_end": whole
    ? { name: "variants/split_end_whole.wesl", text: splitEndWhole }
    : splitEnd,
});
