// The slots of the attention kernels: which module fills each for a problem, and the bindings that it brings.

import output from "../../shaders/slots/output.wesl?raw";
import query from "../../shaders/slots/query.wesl?raw";
import biasStored from "../../shaders/variants/bias_stored.wesl?raw";
import dropoutThreefry from "../../shaders/variants/dropout_threefry.wesl?raw";
import lseStored from "../../shaders/variants/lse_stored.wesl?raw";
import maskTensorBits from "../../shaders/variants/mask_tensor_bits.wesl?raw";
import maskTensorBytes from "../../shaders/variants/mask_tensor_bytes.wesl?raw";
import outputF16 from "../../shaders/variants/output_f16.wesl?raw";
import outputHalf from "../../shaders/variants/output_half.wesl?raw";
import outputHalfStrided from "../../shaders/variants/output_half_strided.wesl?raw";
import outputStrided from "../../shaders/variants/output_strided.wesl?raw";
import queryF16 from "../../shaders/variants/query_f16.wesl?raw";
import queryHalf from "../../shaders/variants/query_half.wesl?raw";
import queryHalfStrided from "../../shaders/variants/query_half_strided.wesl?raw";
import queryStrided from "../../shaders/variants/query_strided.wesl?raw";
import rowMaxStored from "../../shaders/variants/row_max_stored.wesl?raw";
import sequenceBatch from "../../shaders/variants/sequence_batch.wesl?raw";
import sequencePacked from "../../shaders/variants/sequence_packed.wesl?raw";
import similarityAdditive from "../../shaders/variants/similarity_additive.wesl?raw";
import similarityAdditiveRows from "../../shaders/variants/similarity_additive_rows.wesl?raw";
import similarityNormalized from "../../shaders/variants/similarity_normalized.wesl?raw";
import tablesStored from "../../shaders/variants/tables_stored.wesl?raw";
import walkBlocks from "../../shaders/variants/walk_blocks.wesl?raw";
import type { ModuleMap, ModuleSource } from "../shader/link.ts";
import { asKey, asOutput, asValue } from "../shader/modules.ts";
import type { Binding } from "../types.ts";
import type { KvAccess } from "./kv_access.ts";

/**
 * How the rows of a tensor are read or written: f32 as sequences of aligned vec4s or element by element, f16 and bf16
 * likewise from words of two, f16 as sequences of aligned vec4s where the device has the type, and words as a cache
 * reads them.
 */
export type Access = "dense" | "strided" | `${"f16" | "bf16"}-${"packed" | "packed-strided"}` | "f16" | "words";

/** Whether rows are addressed in units of four elements. */
export const isAligned = (access: Access): boolean => access !== "words" && !access.endsWith("strided");

/** Types that a function of a user may capture. */
export type CaptureType = "f32" | "i32" | "u32";

/** What a user's function is about. */
export type FunctionKind = "score" | "mask" | "probability";

/** What is compiled of a user's function: not the values that it captures. */
export interface FunctionText {
  readonly label: string;
  readonly source: string;
  readonly captures: readonly { readonly name: string; readonly type: CaptureType; readonly array: boolean }[];
  /** It may give HIDDEN. */
  readonly hides?: boolean;
  /** Other functions that the source calls. */
  readonly parts?: readonly FunctionPart[];
}

/** A function that is a part of another one, with names that no other part has. */
export interface FunctionPart {
  readonly label: string;
  readonly source: string;
  /** The source with the names that its author gave. */
  readonly written: string;
}

/** What a similarity's module depends on. */
export type SimilarityChoice =
  | { readonly kind: "normalized"; readonly rms: boolean; readonly qWeights: boolean; readonly kWeights: boolean }
  | { readonly kind: "additive"; readonly innerBias: boolean; readonly unitVector: boolean };

/** What the slots of a kernel depend on. Lengths and strides are not among it. */
export interface SlotChoice {
  readonly q: Access;
  readonly k: Access;
  readonly v: Access;
  readonly o: Access;
  /** Keys and values are those of a cache, which brings modules of its own, for `slots/sequence` too. */
  readonly cache?: KvAccess;
  /** Lengths and positions: the same for all entries, their own, or those of entries one after the other. */
  readonly sequence?: "batch" | "packed";
  /** There are small tables: of lengths, slopes, sinks or distances. */
  readonly tables?: boolean;
  /** What is written beside the output. */
  readonly lse?: boolean;
  readonly rowMax?: boolean;
  /** What stands in for the dot product, and what it has beyond its formula. */
  readonly similarity?: SimilarityChoice;
  /** A factor of the scores for each head, as it is or its logarithm. */
  readonly temperature?: "plain" | "log";
  /** What happens to scores and probabilities. */
  readonly softcap?: boolean;
  readonly bias?: boolean;
  readonly relativeBias?: boolean;
  readonly alibi?: boolean;
  readonly sinks?: boolean;
  readonly dropout?: boolean;
  /** A boolean mask in memory. */
  readonly maskTensor?: "bytes" | "bits";
  /** A user's functions. */
  readonly score?: FunctionText;
  readonly mask?: FunctionText;
  /** Of the weights kernel. */
  readonly probability?: FunctionText;
  /** Blocks of keys that are not visited. */
  readonly blocks?: boolean;
}

/** Plain attention of dense tensors. */
export const PLAIN: SlotChoice = { q: "dense", k: "dense", v: "dense", o: "dense" };

const SEQUENCES = {
  batch: { name: "variants/sequence_batch.wesl", text: sequenceBatch },
  packed: { name: "variants/sequence_packed.wesl", text: sequencePacked },
};
const MASK_TENSORS = {
  bytes: { name: "variants/mask_tensor_bytes.wesl", text: maskTensorBytes },
  bits: { name: "variants/mask_tensor_bits.wesl", text: maskTensorBits },
};
const SIMILARITIES = {
  additive: { name: "variants/similarity_additive.wesl", text: similarityAdditive },
  normalized: { name: "variants/similarity_normalized.wesl", text: similarityNormalized },
};

/** The module of additive scores for kernels that hold rows in registers. */
export const ADDITIVE_ROWS: ModuleSource = {
  name: "variants/similarity_additive_rows.wesl",
  text: similarityAdditiveRows,
};

/** Modules of the slot `query`, and of `output`, for each access but the default. */
const QUERIES: Readonly<Record<string, ModuleSource>> = {
  strided: { name: "variants/query_strided.wesl", text: queryStrided },
  packed: { name: "variants/query_half.wesl", text: queryHalf },
  "packed-strided": { name: "variants/query_half_strided.wesl", text: queryHalfStrided },
  f16: { name: "variants/query_f16.wesl", text: queryF16 },
};
const OUTPUTS: Readonly<Record<string, ModuleSource>> = {
  strided: { name: "variants/output_strided.wesl", text: outputStrided },
  packed: { name: "variants/output_half.wesl", text: outputHalf },
  "packed-strided": { name: "variants/output_half_strided.wesl", text: outputHalfStrided },
  f16: { name: "variants/output_f16.wesl", text: outputF16 },
};
const moduleOf = (modules: typeof QUERIES, access: Access) => modules[access.replace(/^b?f16-/, "")];

/** The module of the slot `query` for an access, to be renamed for another tensor that is read alike. */
export const queryModule = (access: Access): ModuleSource =>
  moduleOf(QUERIES, access) ?? { name: "slots/query.wesl", text: query };

/** The module of the slot `output` for an access, likewise. */
export const outputModule = (access: Access): ModuleSource =>
  moduleOf(OUTPUTS, access) ?? { name: "slots/output.wesl", text: output };

/** Modules that replace defaults. */
export function slotModules(slots: SlotChoice): ModuleMap {
  const { q, k, v, o, sequence, similarity, maskTensor } = slots;
  return {
    ...slotModule("query", moduleOf(QUERIES, q)),
    ...slotModule("key", moduleOf(QUERIES, k), asKey),
    ...slotModule("value", moduleOf(QUERIES, v), asValue),
    ...slotModule("output", moduleOf(OUTPUTS, o)),
    ...(sequence && { "package::slots::sequence": SEQUENCES[sequence] }),
    ...(slots.tables && { "package::slots::tables": { name: "variants/tables_stored.wesl", text: tablesStored } }),
    ...(similarity && { "package::slots::similarity": SIMILARITIES[similarity.kind] }),
    ...(slots.lse && { "package::slots::lse": { name: "variants/lse_stored.wesl", text: lseStored } }),
    ...(slots.rowMax && { "package::slots::row_max": { name: "variants/row_max_stored.wesl", text: rowMaxStored } }),
    ...(slots.bias && { "package::slots::bias": { name: "variants/bias_stored.wesl", text: biasStored } }),
    ...(slots.dropout && {
      "package::slots::dropout": { name: "variants/dropout_threefry.wesl", text: dropoutThreefry },
    }),
    ...(maskTensor && { "package::slots::mask_tensor": MASK_TENSORS[maskTensor] }),
    ...slots.cache?.modules,
    ...functionModules("score", slots.score),
    ...functionModules("mask", slots.mask),
    ...functionModules("probability", slots.probability),
    ...(slots.blocks && { "package::slots::walk": { name: "variants/walk_blocks.wesl", text: walkBlocks } }),
  };
}

/** The slot `query` of a kernel that works in place: it reads what the output holds. */
export function inPlaceModule(access: Access): ModuleMap {
  return slotModule("query", queryModule(access), asOutput);
}

/** A module for a slot, under the names of the slot; nothing where the default stays. */
function slotModule(slot: string, module: ModuleSource | undefined, rename = (text: string) => text): ModuleMap {
  if (!module) return {};
  return { [`package::slots::${slot}`]: { name: `${module.name} as ${slot}`, text: rename(module.text) } };
}

/** The constants of `slots/config` that say what happens to scores and probabilities. */
export function slotConstants(slots: SlotChoice): Readonly<Record<string, boolean | number>> {
  const { similarity } = slots;
  return {
    ...slots.cache?.constants,
    ...(similarity?.kind === "normalized" && {
      ...{ NORMALIZED: true, RMS: similarity.rms, Q_WEIGHTS: similarity.qWeights, K_WEIGHTS: similarity.kWeights },
    }),
    ...(similarity?.kind === "additive" && {
      ...{ INNER_BIAS: similarity.innerBias, UNIT_VECTOR: similarity.unitVector },
    }),
    TEMPERATURE: slots.temperature !== undefined,
    LOG_TEMPERATURE: slots.temperature === "log",
    SOFTCAP: slots.softcap ?? false,
    SCORE_FUNCTION: slots.score !== undefined,
    SCORE_HIDES: slots.score?.hides ?? false,
    MASK_FUNCTION: slots.mask !== undefined,
    PROBABILITY_FUNCTION: slots.probability !== undefined,
    BIAS: slots.bias ?? false,
    RELATIVE_BIAS: slots.relativeBias ?? false,
    ALIBI: slots.alibi ?? false,
    MASK_TENSOR: slots.maskTensor !== undefined,
    SINKS: slots.sinks ?? false,
    DROPOUT: slots.dropout ?? false,
    ROW_MAX: slots.rowMax ?? false,
    Q_BF16: slots.q.startsWith("bf16"),
    K_BF16: slots.k.startsWith("bf16"),
    V_BF16: slots.v.startsWith("bf16"),
    O_BF16: slots.o.startsWith("bf16"),
  };
}

/** The bindings of a kernel that reads q, k and v and writes o. */
export function slotBindings(slots: SlotChoice): Binding[] {
  const read = (binding: number, name: string, used: unknown): Binding[] =>
    used ? [{ binding, name, type: "read-only-storage" }] : [];
  const written = (binding: number, name: string, used: unknown): Binding[] =>
    used ? [{ binding, name, type: "storage" }] : [];
  return [
    { binding: 0, name: "params", type: "uniform" },
    ...read(1, "q", true),
    ...read(2, "k", true),
    ...read(3, "v", true),
    ...read(4, "tables", slots.tables),
    ...read(5, "bias", slots.bias),
    ...written(6, "o", true),
    ...written(7, "lse", slots.lse),
    ...read(9, "mask_tensor", slots.maskTensor),
    ...read(10, "blocks", slots.blocks),
    ...written(11, "row_max", slots.rowMax),
    ...read(12, "kv_state", slots.cache),
    ...captureBindings("score", slots.score),
    ...captureBindings("mask", slots.mask),
    ...captureBindings("probability", slots.probability),
  ];
}

/** The first binding of what each function captures. */
const CAPTURES_AT = { score: 16, mask: 80, probability: 144 } as const;

/** A user's function as the module of its slot, and its captures as a module that it uses. */
export function functionModules(kind: FunctionKind, text: FunctionText | undefined): ModuleMap {
  if (!text) return {};
  const captures = `package::slots::${kind}_captures`;
  const declarations = text.captures.map(({ name, type, array }, index) => {
    const memory = array ? `var<storage, read> ${name}: array<${type}>` : `var<uniform> ${name}: ${type}`;
    return `@group(0) @binding(${CAPTURES_AT[kind] + index}) ${memory};\n`;
  });
  const uses = ["package::lib::position", captures];
  const parts = (text.parts ?? []).map(({ label, source, written }, index) => {
    return [`package::slots::${kind}_${index}`, { name: label, text: source, written, uses, guest: true }] as const;
  });
  return {
    [captures]: { name: `captures of the ${text.label}`, text: declarations.join(""), guest: true },
    ...Object.fromEntries(parts),
    [`package::slots::${kind}`]: {
      name: text.label,
      text: text.source,
      uses: [...uses, ...parts.map(([path]) => path)],
      guest: true,
    },
  };
}

/** The bindings of what a function captures, in the order of its captures. */
export function captureBindings(kind: FunctionKind, text: FunctionText | undefined): Binding[] {
  return (text?.captures ?? []).map(({ name, array }, index) => ({
    binding: CAPTURES_AT[kind] + index,
    name: `captures.${name}`,
    type: array ? "read-only-storage" : "uniform",
  }));
}
