// The modules of shaders/forward_rows.wesl: rows of queries are in registers, and each lane reads
// all keys itself, or the lanes of a quad share the reads.

import forwardRows from "../../shaders/forward_rows.wesl?raw";
import keyBlocks from "../../shaders/lib/key_blocks.wesl?raw";
import quad from "../../shaders/lib/quad.wesl?raw";
import tainted from "../../shaders/lib/tainted.wesl?raw";
import comparedKey from "../../shaders/slots/compared_key.wesl?raw";
import keyBlock from "../../shaders/slots/key_block.wesl?raw";
import keyBlockQuad from "../../shaders/variants/key_block_quad.wesl?raw";
import type { ModuleMap } from "../shader/link.ts";
import { ADDITIVE_ROWS, COMPARED_KEY_STORED } from "./slot_modules.ts";
import type { SimilarityChoice } from "./slots.ts";

/** The modules that this kernel has beside those of every forward kernel. */
export function rowModules(quads: boolean, similarity: SimilarityChoice | undefined): ModuleMap {
  const additive = similarity?.kind === "additive" ? similarity : undefined;
  return {
    "package::forward_rows": forwardRows,
    "package::lib::key_blocks": keyBlocks,
    "package::lib::quad": quad,
    "package::lib::tainted": tainted,
    "package::slots::compared_key": additive?.storedKeys ? COMPARED_KEY_STORED : comparedKey,
    "package::slots::key_block": quads
      ? { name: "variants/key_block_quad.wesl", text: keyBlockQuad }
      : keyBlock,
    ...(additive && { "package::slots::similarity": ADDITIVE_ROWS }),
  };
}
