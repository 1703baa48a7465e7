// The shader modules that every attention kernel may import: the library, and the default text of
// each slot. A kernel adds its root and its variants of the slots; what no kernel imports stays out
// of an application's bundle.

import finite from "../../shaders/lib/finite.wesl?raw";
import invocation from "../../shaders/lib/invocation.wesl?raw";
import mask from "../../shaders/lib/mask.wesl?raw";
import params from "../../shaders/lib/params.wesl?raw";
import position from "../../shaders/lib/position.wesl?raw";
import softmax from "../../shaders/lib/softmax.wesl?raw";
import staged from "../../shaders/lib/staged.wesl?raw";
import tiles from "../../shaders/lib/tiles.wesl?raw";
import units from "../../shaders/lib/units.wesl?raw";
import work from "../../shaders/lib/work.wesl?raw";
import config from "../../shaders/slots/config.wesl?raw";
import dropout from "../../shaders/slots/dropout.wesl?raw";
import kvPlace from "../../shaders/slots/kv_place.wesl?raw";
import lse from "../../shaders/slots/lse.wesl?raw";
import output from "../../shaders/slots/output.wesl?raw";
import query from "../../shaders/slots/query.wesl?raw";
import rowMax from "../../shaders/slots/row_max.wesl?raw";
import rows from "../../shaders/slots/rows.wesl?raw";
import sequence from "../../shaders/slots/sequence.wesl?raw";
import similarity from "../../shaders/slots/similarity.wesl?raw";
import tables from "../../shaders/slots/tables.wesl?raw";
import terms from "../../shaders/slots/terms.wesl?raw";
import totals from "../../shaders/slots/totals.wesl?raw";
import walk from "../../shaders/slots/walk.wesl?raw";
import { FoveaError } from "../errors.ts";
import type { ModuleMap } from "./link.ts";

const KEY_NAMES = {
  q: "k",
  load_q: "load_k",
  "@binding(1)": "@binding(2)",
  Q_BF16: "K_BF16",
  Q_GROUP: "K_GROUP",
  start_of_q: "start_of_k",
  load_q_from: "load_k_from",
  q_base: "k_base",
  q_stride_b: "k_stride_b",
  q_stride_h: "k_stride_h",
  q_stride_d: "k_stride_d",
  q_stride_m: "k_stride_n",
  M: "N",
  H: "Hkv",
};
const VALUE_NAMES = {
  q: "v",
  load_q: "load_v",
  "@binding(1)": "@binding(3)",
  Q_BF16: "V_BF16",
  Q_GROUP: "V_GROUP",
  HEAD_DIM: "V_DIM",
  start_of_q: "start_of_v",
  load_q_from: "load_v_from",
  q_base: "v_base",
  q_stride_b: "v_stride_b",
  q_stride_h: "v_stride_h",
  q_stride_d: "v_stride_d",
  q_stride_m: "v_stride_n",
  M: "N",
  H: "Hkv",
  D: "Dv",
};
const OUTPUT_NAMES = {
  q: "o",
  q_base: "o_base",
  q_stride_b: "o_stride_b",
  q_stride_h: "o_stride_h",
  q_stride_d: "o_stride_d",
  q_stride_m: "o_stride_m",
  Q_BF16: "O_BF16",
};

/** A module for q as one that reads what the output holds, for kernels that work in place. */
export function asOutput(text: string): string {
  const bound = text.replace(/^@group.*$/m, "import package::slots::output::{o};");
  // Where two lanes may share a word, the output is atomic.
  return renamed(bound, OUTPUT_NAMES).replaceAll("o[at / 2u]", "atomicLoad(&o[at / 2u])");
}

/**
 * A module for q as one for k: the three tensors are read alike, and are told apart by names only.
 */
export const asKey = (text: string): string => renamed(text, KEY_NAMES);
/** A module for q as one for v. */
export const asValue = (text: string): string => renamed(text, VALUE_NAMES);

/**
 * A module for q as one for another tensor of keys, with constants of its own: `decay`,
 * `DECAY_DIM`, `DECAY_BF16`.
 */
export const asOperand = (name: string, binding: number, text: string): string =>
  renamed(text, {
    q: name,
    load_q: `load_${name}`,
    "@binding(1)": `@binding(${binding})`,
    M: "N",
    H: "Hkv",
    start_of_q: `start_of_${name}`,
    load_q_from: `load_${name}_from`,
    HEAD_DIM: `${name.toUpperCase()}_DIM`,
    Q_BF16: `${name.toUpperCase()}_BF16`,
    q_base: `${name}_base`,
    q_stride_b: `${name}_stride_b`,
    q_stride_h: `${name}_stride_h`,
    q_stride_m: `${name}_stride_n`,
    q_stride_d: `${name}_stride_d`,
  });

/**
 * A module for q, or one for the output, as one for another tensor of rows, whose width is a
 * uniform: `residual`, `load_residual`, `RESIDUAL_BF16`.
 */
export function asRows(name: string, binding: number, text: string): string {
  // the width, and nothing else
  const runtime = text.replace(/^import .*config::\{(?:HEAD_DIM|V_DIM)\};$/m, "");
  const imported = runtime.replace(/^import .*$/gm, (line) =>
    line.replace(/HEAD_DIM, |, V_DIM/, ""),
  );
  return renamed(imported, {
    q: name,
    o: name,
    load_q: `load_${name}`,
    store_o: `store_${name}`,
    start_of_q: `start_of_${name}`,
    load_q_from: `load_${name}_from`,
    "@binding(1)": `@binding(${binding})`,
    "@binding(6)": `@binding(${binding})`,
    HEAD_DIM: "params.width",
    V_DIM: "params.width",
    ...Object.fromEntries(
      ["q", "o"].flatMap((of) => [
        [`${of.toUpperCase()}_BF16`, `${name.toUpperCase()}_BF16`],
        ...["base", "stride_b", "stride_h", "stride_d"].map((part) => [
          `${of}_${part}`,
          `${name}_${part}`,
        ]),
        [`${of}_stride_m`, `${name}_stride_n`],
      ]),
    ),
    M: "N",
    D: "W",
    Dv: "W",
  });
}

const CACHED_VALUE_NAMES = {
  cache_k: "cache_v",
  store_cached_k: "store_cached_v",
  "@binding(16)": "@binding(17)",
  CACHE_K_VECS: "CACHE_V_VECS",
  CACHE_K_ROW: "CACHE_V_ROW",
  CACHE_K_GROUPS: "CACHE_V_GROUPS",
  CACHE_K_PER_WORD: "CACHE_V_PER_WORD",
  CACHE_K_MASK: "CACHE_V_MASK",
  CACHE_K_RECIPROCAL: "CACHE_V_RECIPROCAL",
  HEAD_DIM: "V_DIM",
  K_GROUP: "V_GROUP",
  D: "Dv",
};

/** A module that stores rows of k in a cache as one for v. */
export const asCachedValue = (text: string): string => renamed(text, CACHED_VALUE_NAMES);

function renamed(text: string, names: Readonly<Record<string, string>>): string {
  return text.replace(/@binding\(\d+\)|[A-Za-z_]\w*/g, (word) => names[word] ?? word);
}

export const MODULES: ModuleMap = {
  "package::lib::finite": finite,
  "package::lib::invocation": invocation,
  "package::lib::mask": mask,
  "package::lib::params": params,
  "package::lib::position": position,
  "package::lib::softmax": softmax,
  "package::lib::staged": staged,
  "package::lib::tiles": tiles,
  "package::lib::units": units,
  "package::lib::work": work,
  "package::slots::config": config,
  "package::slots::dropout": dropout,
  "package::slots::key": { name: "slots/query.wesl as key", text: asKey(query) },
  "package::slots::kv_place": kvPlace,
  "package::slots::lse": lse,
  "package::slots::output": output,
  "package::slots::query": query,
  "package::slots::row_max": rowMax,
  "package::slots::rows": rows,
  "package::slots::sequence": sequence,
  "package::slots::similarity": similarity,
  "package::slots::tables": tables,
  "package::slots::terms": terms,
  "package::slots::totals": totals,
  "package::slots::value": { name: "slots/query.wesl as value", text: asValue(query) },
  "package::slots::walk": walk,
};

/** A constant of a module of constants, with its value there. */
const CONSTANT = /^const (\w+) = (\w+);/gm;

/**
 * Text for `slots/config`: the default file's constants, with these values. Throws
 * FoveaError("shader") for a name that the file does not have.
 */
export const configModule = (values: Constants): ModuleMap =>
  constantsModule("config", config, values);

type Constants = Readonly<Record<string, number | boolean>>;

/** Text for another slot that holds constants, likewise. `defaults` is its file. */
export function constantsModule(slot: string, defaults: string, values: Constants): ModuleMap {
  const constants = new Map([...defaults.matchAll(CONSTANT)].map((match) => [match[1], match[2]]));
  for (const [name, value] of Object.entries(values)) {
    if (!constants.has(name))
      throw new FoveaError("shader", `slots/${slot}.wesl has no constant ${name}`);
    constants.set(name, `${value}${typeof value === "number" ? "u" : ""}`);
  }
  const text = [...constants].map(([name, value]) => `const ${name} = ${value};\n`).join("");
  return { [`package::slots::${slot}`]: { name: `slots/${slot}`, text } };
}
