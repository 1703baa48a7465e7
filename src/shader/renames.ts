// Names under which a module is linked for another tensor than the one that it was written for.
// The linker applies them, and fails if a module lacks a name; those that only some variants of a
// module have end in "?".

import type { Renames } from "./link.ts";

/** Names that every module which reads rows of q has, for a tensor of rows. */
export const rowsOf = (name: string, rows: "m" | "n"): Readonly<Record<string, string>> => ({
  q: name,
  load_q: `load_${name}`,
  load_q_from: `load_${name}_from`,
  start_of_q: `start_of_${name}`,
  q_base: `${name}_base`,
  q_stride_b: `${name}_stride_b`,
  q_stride_h: `${name}_stride_h`,
  q_stride_m: `${name}_stride_${rows}`,
  "q_stride_d?": `${name}_stride_d`,
  "word_of_q?": `word_of_${name}`,
  "Q_BF16?": `${name.toUpperCase()}_BF16`,
});

/** The axes of keys, in comments. */
export const KEY_AXES = { "M?": "N", "H?": "Hkv" };

/** Links a module for q as one for k or v: all are read alike, and only the names differ. */
const asKeys = (name: "k" | "v", binding: number, names?: Renames["names"]): Renames => ({
  names: {
    ...rowsOf(name, "n"),
    ...KEY_AXES,
    "@binding(1)": `@binding(${binding})`,
    "Q_GROUP?": `${name.toUpperCase()}_GROUP`,
    ...names,
  },
});

export const AS_KEY = asKeys("k", 2);
export const AS_VALUE = asKeys("v", 3, { "HEAD_DIM?": "V_DIM", "D?": "Dv" });
