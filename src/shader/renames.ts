// Names under which a module is linked for another tensor than the one that it was written for.
// The linker applies them, and fails if a module lacks a name; those that only some variants of a
// module have end in "?".

import type { Renames } from "./link.ts";

/** The names that every module which reads rows of q has, renamed for another tensor of rows. */
const rowsOf = (name: string, rows: "m" | "n"): Readonly<Record<string, string>> => ({
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

/** The axes of keys, which comments of the modules name. */
const KEY_AXES = { "M?": "N", "H?": "Hkv" };

/** Links a module for q as one for k: q, k and v are read alike, and only the names differ. */
export const AS_KEY: Renames = {
  names: {
    ...rowsOf("k", "n"),
    ...KEY_AXES,
    "@binding(1)": "@binding(2)",
    "Q_GROUP?": "K_GROUP",
  },
};

/** Links a module for q as one for v. */
export const AS_VALUE: Renames = {
  names: {
    ...rowsOf("v", "n"),
    ...KEY_AXES,
    "@binding(1)": "@binding(3)",
    "Q_GROUP?": "V_GROUP",
    "HEAD_DIM?": "V_DIM",
    "D?": "Dv",
  },
};

const OUTPUT = "package::slots::output";

/**
 * Links a module for q as one that reads what the output holds, for kernels that work in place,
 * under the names of another tensor: `load_x`, `X_DIM`. If two lanes may share a word of the
 * output, the word is atomic, and the output's module reads it.
 */
export const asOutput = (name: string): Renames => ({
  names: {
    ...rowsOf("o", "m"),
    load_q: `load_${name}`,
    load_q_from: `load_${name}_from`,
    start_of_q: `start_of_${name}`,
    "HEAD_DIM?": `${name.toUpperCase()}_DIM`,
  },
  imported: { o: OUTPUT, word_of_o: OUTPUT },
});

/**
 * Links a module for q as one that reads what the output holds, for kernels that read attention's
 * own q.
 */
export const AS_OUTPUT: Renames = {
  ...asOutput("q"),
  names: { ...asOutput("q").names, "HEAD_DIM?": "HEAD_DIM" },
};

/** Links a module for the output as one for rows that are as wide as those of q, not of v. */
export const AS_WIDE_AS_QUERIES: Renames = { names: { "V_DIM?": "HEAD_DIM" } };

/**
 * Links a module for q as one for another tensor of keys, with constants named after that tensor:
 * `decay`, `DECAY_DIM`, `DECAY_BF16`.
 */
export const asOperand = (name: string, binding: number): Renames => ({
  names: {
    ...rowsOf(name, "n"),
    ...KEY_AXES,
    "@binding(1)": `@binding(${binding})`,
    "HEAD_DIM?": `${name.toUpperCase()}_DIM`,
  },
});

/** The axes of rows, which comments name, and their width, which is in a uniform. */
const ROW_AXES = {
  "M?": "N",
  "D?": "W",
  "Dv?": "W",
  "HEAD_DIM?": "params.width",
  "V_DIM?": "params.width",
};

/** Links a module for q as one for another tensor of rows: `residual`, `load_residual`. */
export const asReadRows = (name: string, binding: number): Renames => ({
  names: { ...rowsOf(name, "n"), ...ROW_AXES, "@binding(1)": `@binding(${binding})` },
});

/** Links a module for the output as one for another tensor of rows. */
export const asWrittenRows = (name: string, binding: number): Renames => ({
  names: {
    o: name,
    store_o: `store_${name}`,
    o_base: `${name}_base`,
    o_stride_b: `${name}_stride_b`,
    o_stride_h: `${name}_stride_h`,
    o_stride_m: `${name}_stride_n`,
    "o_stride_d?": `${name}_stride_d`,
    "word_of_o?": `word_of_${name}`,
    "O_BF16?": `${name.toUpperCase()}_BF16`,
    ...ROW_AXES,
    "@binding(6)": `@binding(${binding})`,
  },
});

/** Links a module that reads or writes nothing in place of one for a tensor of rows. */
export const asNoRows = (function_: "load_q" | "store_o", name: string): Renames => ({
  names: { [function_]: `${function_ === "load_q" ? "load" : "store"}_${name}` },
});

/** Links a module that stores rows of k in a cache as one for rows of v. */
export const AS_CACHED_VALUE: Renames = {
  names: {
    cache_k: "cache_v",
    store_cached_k: "store_cached_v",
    "@binding(16)": "@binding(17)",
    "CACHE_K_VECS?": "CACHE_V_VECS",
    "CACHE_K_ROW?": "CACHE_V_ROW",
    "CACHE_K_GROUPS?": "CACHE_V_GROUPS",
    "CACHE_K_PER_WORD?": "CACHE_V_PER_WORD",
    "CACHE_K_MASK?": "CACHE_V_MASK",
    "CACHE_K_RECIPROCAL?": "CACHE_V_RECIPROCAL",
    "HEAD_DIM?": "V_DIM",
    "K_GROUP?": "V_GROUP",
    "D?": "Dv",
  },
};
