// Rows of integers that share scales, as caches and weights have them: the modules that read them.

import queryInt4 from "../../shaders/variants/query_int4.wesl?raw";
import queryInt8 from "../../shaders/variants/query_int8.wesl?raw";
import type { ModuleSource } from "../shader/link.ts";

/** Bits of an integer. */
export type IntegerBits = 8 | 4;

/** Modules of the slot `query` for rows of integers, by the bits of one. */
export const QUANTISED_ROWS: Readonly<Record<IntegerBits, ModuleSource>> = {
  8: { name: "variants/query_int8.wesl", text: queryInt8 },
  4: { name: "variants/query_int4.wesl", text: queryInt4 },
};

/** Words of a row of integers: scales of its groups, then the integers. */
export const quantisedWords = (dim: number, bits: IntegerBits, group: number): number =>
  dim / group + Math.ceil((dim * bits) / 32);
