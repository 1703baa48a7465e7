// The modules that fill slots of the attention kernels in place of the default ones. Plain
// attention of dense f32 tensors needs none of them, and is planned without loading this file.

import additive from "../../shaders/lib/additive.wesl?raw";
import blockLists from "../../shaders/lib/block_lists.wesl?raw";
import half from "../../shaders/lib/half.wesl?raw";
import magnitude from "../../shaders/lib/magnitude.wesl?raw";
import tanh from "../../shaders/lib/tanh.wesl?raw";
import threefry from "../../shaders/lib/threefry.wesl?raw";
import bias from "../../shaders/slots/bias.wesl?raw";
import dropoutKey from "../../shaders/slots/dropout_key.wesl?raw";
import maskFunction from "../../shaders/slots/mask.wesl?raw";
import maskTensor from "../../shaders/slots/mask_tensor.wesl?raw";
import output from "../../shaders/slots/output.wesl?raw";
import query from "../../shaders/slots/query.wesl?raw";
import scoreFunction from "../../shaders/slots/score.wesl?raw";
import biasStored from "../../shaders/variants/bias_stored.wesl?raw";
import comparedKeyStored from "../../shaders/variants/compared_key_stored.wesl?raw";
import dropoutKeyStepped from "../../shaders/variants/dropout_key_stepped.wesl?raw";
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
import similarityScaled from "../../shaders/variants/similarity_scaled.wesl?raw";
import tablesStored from "../../shaders/variants/tables_stored.wesl?raw";
import termsModified from "../../shaders/variants/terms_modified.wesl?raw";
import walkBlocks from "../../shaders/variants/walk_blocks.wesl?raw";
import { type Guest, guestLines } from "../shader/guests.ts";
import type { ModuleMap, ModuleSource, Renames } from "../shader/link.ts";
import { AS_KEY, AS_VALUE } from "../shader/renames.ts";
import { AS_OUTPUT } from "../shader/renames_operands.ts";
import { type Access, type Form, formOf } from "./access.ts";
import { CAPTURES_AT, type FunctionKind, type FunctionText, type SlotChoice } from "./slots.ts";

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

/** The module of `slots/compared_key` that reads what another kernel has computed. */
export const COMPARED_KEY_STORED: ModuleSource = {
  name: "variants/compared_key_stored.wesl",
  text: comparedKeyStored,
};

/**
 * Modules of the slot `query`, and of `output`, for each form but the default and words, whose
 * modules a cache brings.
 */
type FormModules = Readonly<Record<Exclude<Form, "dense" | "words">, ModuleSource>>;
const QUERIES: FormModules = {
  strided: { name: "variants/query_strided.wesl", text: queryStrided },
  packed: { name: "variants/query_half.wesl", text: queryHalf },
  "packed-strided": { name: "variants/query_half_strided.wesl", text: queryHalfStrided },
  f16: { name: "variants/query_f16.wesl", text: queryF16 },
};
const OUTPUTS: FormModules = {
  strided: { name: "variants/output_strided.wesl", text: outputStrided },
  packed: { name: "variants/output_half.wesl", text: outputHalf },
  "packed-strided": { name: "variants/output_half_strided.wesl", text: outputHalfStrided },
  f16: { name: "variants/output_f16.wesl", text: outputF16 },
};
const moduleOf = (modules: Partial<Record<Form, ModuleSource>>, access: Access) =>
  modules[formOf(access)];

/** The module of the slot `query` for an access. Renamed, it reads another tensor. */
export const queryModule = (access: Access): ModuleSource =>
  moduleOf(QUERIES, access) ?? { name: "slots/query.wesl", text: query };

/** The module of the slot `output` for an access. Renamed, it writes another tensor. */
export const outputModule = (access: Access): ModuleSource =>
  moduleOf(OUTPUTS, access) ?? { name: "slots/output.wesl", text: output };

/** Modules that variants import beside the library of every kernel. */
const LIBRARY: ModuleMap = {
  "package::lib::additive": additive,
  "package::lib::half": half,
  "package::lib::magnitude": magnitude,
  "package::lib::tanh": tanh,
  "package::slots::bias": bias,
  "package::slots::mask": maskFunction,
  "package::slots::mask_tensor": maskTensor,
  "package::slots::score": scoreFunction,
  "package::slots::terms": { name: "variants/terms_modified.wesl", text: termsModified },
};

/** Modules that replace defaults, and those that they import. */
export function slotModules(slots: SlotChoice): ModuleMap {
  const { q, k, v, o, sequence, similarity } = slots;
  return {
    ...LIBRARY,
    ...slotModule("query", moduleOf(QUERIES, q)),
    ...slotModule("key", moduleOf(QUERIES, k), AS_KEY),
    ...slotModule("value", moduleOf(QUERIES, v), AS_VALUE),
    ...slotModule("output", moduleOf(OUTPUTS, o)),
    ...(sequence && { "package::slots::sequence": SEQUENCES[sequence] }),
    ...(slots.tables && {
      "package::slots::tables": { name: "variants/tables_stored.wesl", text: tablesStored },
    }),
    ...(slots.largeScale && {
      "package::slots::similarity": {
        name: "variants/similarity_scaled.wesl",
        text: similarityScaled,
      },
    }),
    ...(similarity && { "package::slots::similarity": SIMILARITIES[similarity.kind] }),
    ...(slots.lse && {
      "package::slots::lse": { name: "variants/lse_stored.wesl", text: lseStored },
    }),
    ...(slots.rowMax && {
      "package::slots::row_max": { name: "variants/row_max_stored.wesl", text: rowMaxStored },
    }),
    ...(slots.bias && {
      "package::slots::bias": { name: "variants/bias_stored.wesl", text: biasStored },
    }),
    ...(slots.dropout && {
      "package::lib::threefry": threefry,
      "package::slots::dropout": { name: "variants/dropout_threefry.wesl", text: dropoutThreefry },
      "package::slots::dropout_key":
        slots.dropout === "stepped"
          ? { name: "variants/dropout_key_stepped.wesl", text: dropoutKeyStepped }
          : dropoutKey,
    }),
    ...(slots.maskTensor && { "package::slots::mask_tensor": MASK_TENSORS[slots.maskTensor] }),
    ...slots.cache?.modules,
    ...functionModules("score", slots.score),
    ...functionModules("mask", slots.mask),
    ...functionModules("probability", slots.probability),
    ...(slots.blocks && {
      "package::lib::block_lists": { name: "lib/block_lists.wesl", text: blockLists },
      "package::slots::walk": { name: "variants/walk_blocks.wesl", text: walkBlocks },
    }),
  };
}

/** The slot `query` of a kernel that works in place: it reads what the output holds. */
export function inPlaceModule(access: Access): ModuleMap {
  return slotModule("query", queryModule(access), AS_OUTPUT);
}

/** A module for a slot, under the names of the slot; none if the default stays. */
function slotModule(slot: string, module: ModuleSource | undefined, rename?: Renames): ModuleMap {
  if (!module) return {};
  return {
    [`package::slots::${slot}`]: {
      ...module,
      name: `${module.name} as ${slot}`,
      ...(rename && { rename }),
    },
  };
}

/**
 * A user's function as the module of its slot, with the memory that it captures.
 *
 * @param others Functions of its texts that kernels call, too, from other slots
 */
export function functionModules(
  kind: FunctionKind,
  text: FunctionText | undefined,
  others: readonly string[] = [],
): ModuleMap {
  if (!text) return {};
  const memory = text.captures.map(({ name, type, array }, index) => ({
    name,
    declared: (as: string) => {
      const variable = array
        ? `var<storage, read> ${as}: array<${type}>`
        : `var<uniform> ${as}: ${type}`;
      return `@group(0) @binding(${CAPTURES_AT[kind] + index}) ${variable};`;
    },
  }));
  const guest: Guest = {
    entries: [kind, ...others],
    parts: text.parts,
    memory,
    memoryLabel: `captures of the ${text.label}`,
  };
  const uses = ["package::lib::position", ...text.uses];
  const lines = (taken: Set<string>) => guestLines(guest, taken);
  return {
    [`package::slots::${kind}`]: {
      name: text.label,
      text: "",
      uses,
      guest: { entry: kind, lines },
    },
  };
}
