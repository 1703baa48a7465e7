// Names under which modules for q and for the output are linked for other tensors than attention's.

import type { Renames } from "./link.ts";
import { KEY_AXES, rowsOf } from "./renames.ts";

/** Imports what the output's module has, in place of the lines that declare it. */
const importOutput = (text: string): string =>
  text.replace(/^.*(?:> |fn )(o|word_of_o)\b.*$/gm, "import package::slots::output::{$1};");

/** Leaves expressions out of imports: they come from no module. */
const importNames = (text: string): string =>
  text.replace(/^import .*\..*$/gm, (line) =>
    line.replace(/\w+\.\w+(, )?/g, "").replace(/^.*\{\};|, (?=\})/, ""),
  );

/**
 * A module for q as one that reads what the output holds, for kernels that work in place, under the
 * names of another tensor: `load_x`, `X_DIM`. Two lanes may share a word of the output: then it is
 * atomic, and the output's module reads it.
 */
export const asOutput = (name: string): Renames => ({
  names: {
    ...rowsOf("o", "m"),
    load_q: `load_${name}`,
    load_q_from: `load_${name}_from`,
    start_of_q: `start_of_${name}`,
    "HEAD_DIM?": `${name.toUpperCase()}_DIM`,
  },
  andThen: importOutput,
});

/** The same for kernels of attention's own q. */
export const AS_OUTPUT: Renames = {
  ...asOutput("q"),
  names: { ...asOutput("q").names, "HEAD_DIM?": "HEAD_DIM" },
};

/**
 * A module for q as one for another tensor of keys, with constants named after it: `decay`,
 * `DECAY_DIM`, `DECAY_BF16`.
 */
export const asOperand = (name: string, binding: number): Renames => ({
  names: {
    ...rowsOf(name, "n"),
    ...KEY_AXES,
    "@binding(1)": `@binding(${binding})`,
    "HEAD_DIM?": `${name.toUpperCase()}_DIM`,
  },
});

/**
 * A module for rows of integers as one for another tensor: `weight`, `WEIGHT_GROUP`. The uniform has
 * the width of a row under the name `width`.
 */
export const asWords = (name: string, binding: number, width: string): Renames => ({
  names: {
    ...rowsOf(name, "n"),
    ...KEY_AXES,
    "@binding(1)": `@binding(${binding})`,
    HEAD_DIM: `params.${width}`,
    Q_GROUP: `${name.toUpperCase()}_GROUP`,
  },
  andThen: importNames,
});

/** The axes of rows, in comments, and their width, which is a uniform. */
const ROW_AXES = {
  "M?": "N",
  "D?": "W",
  "Dv?": "W",
  "HEAD_DIM?": "params.width",
  "V_DIM?": "params.width",
};

/** A module for q as one for another tensor of rows: `residual`, `load_residual`. */
export const asReadRows = (name: string, binding: number): Renames => ({
  names: { ...rowsOf(name, "n"), ...ROW_AXES, "@binding(1)": `@binding(${binding})` },
  andThen: importNames,
});

/** A module for the output as one for another tensor of rows. */
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
  andThen: importNames,
});

/** A module that reads nothing, or writes nothing, in place of one for a tensor of rows. */
export const asNoRows = (function_: "load_q" | "store_o", name: string): Renames => ({
  names: { [function_]: `${function_ === "load_q" ? "load" : "store"}_${name}` },
});
