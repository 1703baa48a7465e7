// The kernels of attention's gradients, shaders/backward.wesl with what it needs before and after:
// tile table, specialisation and grid.

import backward from "../../../shaders/backward.wesl?raw";
import clear from "../../../shaders/backward_clear.wesl?raw";
import delta from "../../../shaders/backward_delta.wesl?raw";
import factors from "../../../shaders/backward_factors.wesl?raw";
import rows from "../../../shaders/backward_rows.wesl?raw";
import gradient from "../../../shaders/lib/gradient.wesl?raw";
import staged from "../../../shaders/lib/gradient_staged.wesl?raw";
import tileEnds from "../../../shaders/lib/gradient_tile_ends.wesl?raw";
import tiles from "../../../shaders/lib/gradient_tiles.wesl?raw";
import units from "../../../shaders/lib/gradient_units.wesl?raw";
import weights from "../../../shaders/lib/gradient_weights.wesl?raw";
import quad from "../../../shaders/lib/quad.wesl?raw";
import streamedQueries from "../../../shaders/lib/streamed_queries.wesl?raw";
import blocks from "../../../shaders/slots/blocks.wesl?raw";
import derivative from "../../../shaders/slots/derivative.wesl?raw";
import dropoutFactor from "../../../shaders/slots/dropout_factor.wesl?raw";
import gradientConfig from "../../../shaders/slots/gradient_config.wesl?raw";
import gradientRows from "../../../shaders/slots/gradient_rows.wesl?raw";
import roles from "../../../shaders/slots/roles.wesl?raw";
import scoreGradient from "../../../shaders/slots/score_gradient.wesl?raw";
import blocksListed from "../../../shaders/variants/blocks_listed.wesl?raw";
import derivativeModified from "../../../shaders/variants/derivative_modified.wesl?raw";
import dropoutFactorThreefry from "../../../shaders/variants/dropout_factor_threefry.wesl?raw";
import gradientRowsNormalized from "../../../shaders/variants/gradient_rows_normalized.wesl?raw";
import outputNone from "../../../shaders/variants/output_none.wesl?raw";
import rolesKeys from "../../../shaders/variants/roles_keys.wesl?raw";
import { link, type ModuleMap, type Renames } from "../../shader/link.ts";
import { configModule, constantsModule, MODULES } from "../../shader/modules.ts";
import { rowsOf } from "../../shader/renames.ts";
import { asNoRows, asWrittenRows } from "../../shader/renames_operands.ts";
import type { Binding, KernelSource } from "../../types.ts";
import { type Access, isBf16 } from "../access.ts";
import { KernelCache } from "../kernel_cache.ts";
import { outputModule, queryModule, slotModules } from "../slot_modules.ts";
import { type SlotChoice, slotBindings, slotConstants } from "../slots.ts";
import { UniformStruct } from "../uniform.ts";
import { additiveModules, type KeptRows, keptBindings, keptConstants } from "./additive.ts";
import { type BackwardTile, constantsOf, LANES_X } from "./backward_tiles.ts";
import { differentiableModules } from "./score_gradient.ts";

/** The uniform of lib/gradient.wesl, which all dispatches of a plan share. */
export const GRADIENT = new UniformStruct(gradient, "Gradient");

/**
 * What the gradients of attention are made by: a kernel for each side, one before them, one more
 * before the only side of quads, and one more before both sides of additive attention with few
 * queries.
 */
export type BackwardKernel = "queries" | "keys" | "delta" | "factors" | "pairs";

export interface BackwardSpecialisation extends SlotChoice {
  readonly kernel: BackwardKernel;
  readonly headDim: number;
  readonly vDim: number;
  readonly tile: BackwardTile;
  readonly dOutput: Access;
  /** How d_v is written, by the kernel of keys. */
  readonly dV: Access;
  readonly dLse: boolean;
  /** Set for additive attention of few queries: `pairs` runs before the two sides. */
  readonly few?: true;
  /** Rows that the kernel of queries keeps, of additive attention. */
  readonly kept?: KeptRows;
  /** What the kernel of scores.ts adds up, which has this file's modules. */
  readonly sumOf?: number;
}

/** Names of a module for q as one for d_output, whose places another uniform tells. */
const AS_D_OUTPUT: Renames = {
  names: {
    ...rowsOf("d_output", "m"),
    params: "gradient",
    "config?": "gradient_config",
    "HEAD_DIM?": "D_OUTPUT_DIM",
    "@binding(1)": "@binding(13)",
  },
};

/** Names of a module for the output as one for d_v. */
const AS_D_V: Renames = {
  ...asWrittenRows("d_v", 7),
  names: {
    ...asWrittenRows("d_v", 7).names,
    params: "gradient",
    "config?": "gradient_config",
    "V_DIM?": "D_V_DIM",
  },
};

/** Names of a module for the output as one for d_q or d_k. */
const AS_D_X: Renames = { names: { "V_DIM?": "HEAD_DIM" } };

/** The modules of a specialisation, of which {@link backwardRoot} is the root. */
export function backwardModules(spec: BackwardSpecialisation): ModuleMap {
  const { kernel, headDim, vDim, tile, dOutput, dV, dLse, few, kept, sumOf, ...slots } = spec;
  const { dChunk, xCols, yCols, vAtOnce } = constantsOf(tile, headDim, vDim);
  const isDelta = kernel === "delta";
  const keys = kernel === "keys";
  const config = configModule({
    HEAD_DIM: isDelta ? vDim : headDim,
    V_DIM: vDim,
    KV_TILE: tile.streamed,
    LANES_Y: tile.lanes,
    ROWS: tile.rows,
    V_AT_ONCE: vAtOnce[keys ? "keys" : "queries"],
    D_CHUNK: dChunk,
    ...slotConstants(slots),
  });
  const gradientConstants = constantsModule("gradient_config", gradientConfig, {
    OWN_KEYS: keys,
    ONE_PASS: isOnePass(spec),
    QUERIES: keys ? Math.ceil(tile.streamed / LANES_X) : tile.rows,
    X_COLS: xCols,
    Y_COLS: keys ? yCols : 1,
    D_LSE: dLse,
    SUM_OF: sumOf ?? 0,
    D_OUTPUT_DIM: vDim,
    D_V_DIM: vDim,
    D_OUTPUT_BF16: isBf16(dOutput),
    D_V_BF16: isBf16(dV),
    ...(kept && keptConstants(kept)),
  });
  const variant = (file: string, text: string) => ({ name: `variants/${file}.wesl`, text });
  return {
    ...MODULES,
    "package::backward": backward,
    "package::backward_rows": rows,
    "package::backward_delta": delta,
    "package::backward_factors": factors,
    "package::lib::gradient": gradient,
    "package::lib::gradient_staged": staged,
    "package::lib::gradient_tile_ends": tileEnds,
    "package::lib::gradient_tiles": tiles,
    "package::lib::gradient_units": units,
    "package::lib::gradient_weights": weights,
    ...config,
    ...gradientConstants,
    "package::slots::score_gradient": scoreGradient,
    ...slotModules(slots),
    ...differentiableModules(slots.score),
    "package::slots::blocks": slots.blocks ? variant("blocks_listed", blocksListed) : blocks,
    "package::slots::derivative": isModified(slots)
      ? variant("derivative_modified", derivativeModified)
      : derivative,
    "package::slots::dropout_factor": slots.dropout
      ? variant("dropout_factor_threefry", dropoutFactorThreefry)
      : dropoutFactor,
    "package::lib::quad": quad,
    "package::lib::streamed_queries": streamedQueries,
    "package::slots::gradient_rows":
      slots.similarity?.kind === "normalized"
        ? variant("gradient_rows_normalized", gradientRowsNormalized)
        : gradientRows,
    "package::slots::roles": keys ? variant("roles_keys", rolesKeys) : roles,
    "package::slots::d_output": named("d_output", queryModule(dOutput), AS_D_OUTPUT),
    "package::slots::d_v": keys
      ? named("d_v", outputModule(dV), AS_D_V)
      : named("d_v", variant("output_none", outputNone), asNoRows("store_o", "d_v")),
    ...(isAdditive(spec) && additiveModules(kept)),
    ...(!isDelta && {
      "package::slots::output": named("d_q or d_k", outputModule(slots.o), AS_D_X),
    }),
  };
}

const named = (as: string, module: { name: string; text: string }, rename: Renames) => ({
  ...module,
  name: `${module.name} as ${as}`,
  rename,
});

/** Whether scores have more than a factor, as lib/units.wesl has it. */
const isModified = (slots: SlotChoice) =>
  slots.similarity !== undefined ||
  Boolean(slots.softcap || slots.score || slots.relativeBias || slots.alibi || slots.mask) ||
  Boolean(slots.maskTensor || slots.bias);

const isAdditive = ({ kernel, similarity }: BackwardSpecialisation) =>
  kernel !== "delta" && similarity?.kind === "additive";

/** Whether the kernel of keys makes the gradients of queries, too. */
const isOnePass = ({ kernel, tile }: BackwardSpecialisation) =>
  kernel === "keys" && tile.form === "quads";

/** The name of a specialisation's root module. */
const rootName = (spec: BackwardSpecialisation) => {
  if (spec.kernel === "delta" || spec.kernel === "factors") return `backward_${spec.kernel}`;
  if (spec.kernel === "pairs") return "backward_additive_pairs";
  if (isAdditive(spec)) return spec.few ? "backward_additive_few" : "backward_additive";
  return isOnePass(spec) ? "backward_rows" : "backward";
};

export const backwardRoot = (spec: BackwardSpecialisation) => `package::${rootName(spec)}`;

export function backwardBindings(spec: BackwardSpecialisation): Binding[] {
  const { kernel } = spec;
  const read = (binding: number, name: string): Binding => ({
    binding,
    name,
    type: "read-only-storage",
  });
  const written = (binding: number, name: string): Binding => ({ binding, name, type: "storage" });
  const uniform: Binding = { binding: 15, name: "gradient", type: "uniform" };
  if (kernel === "delta") {
    return [
      { binding: 0, name: "params", type: "uniform" },
      read(1, "q"),
      read(7, "lse"),
      read(11, "d_lse"),
      read(13, "d_output"),
      written(14, "statistics"),
      uniform,
    ];
  }
  const shared = slotBindings({ ...spec, lse: false, rowMax: false });
  if (kernel === "factors" || kernel === "pairs") {
    return [
      ...shared.filter(({ name }) => name !== "o"),
      ...(kernel === "pairs" ? [written(12, "pairs")] : []),
      read(13, "d_output"),
      written(14, "statistics"),
      uniform,
    ].sort((a, b) => a.binding - b.binding);
  }
  return [
    ...shared,
    ...(spec.few ? [written(12, "pairs")] : []),
    ...(kernel === "keys" ? [written(7, "d_v")] : []),
    ...(isOnePass(spec) ? [written(8, "d_q")] : []),
    ...keptBindings(spec.kept),
    read(13, "d_output"),
    written(14, "statistics"),
    uniform,
  ].sort((a, b) => a.binding - b.binding);
}

const kernels = new KernelCache<BackwardSpecialisation>();

/** The linked kernel of a specialisation. */
export function backwardKernel(spec: BackwardSpecialisation): KernelSource {
  return kernels.get(spec, () => ({
    label: `backward ${spec.kernel}${spec.kernel === "delta" ? "" : ` ${spec.tile.name}`}`,
    ...link(backwardRoot(spec), backwardModules(spec)),
    bindings: backwardBindings(spec),
  }));
}

/** Rows of a workgroup of the kernel `delta`. */
export const DELTA_ROWS = 64;
/** Vec4s of a workgroup of the kernel that clears gradients. */
export const CLEAR_VEC4S = 64;

interface ClearSpecialisation {
  readonly dim: number;
  readonly access: Access;
}

const clearKernels = new KernelCache<ClearSpecialisation>();

/** The modules of the kernel below. */
export const clearModules = (dim: number, access: Access): ModuleMap => ({
  ...MODULES,
  "package::backward_clear": clear,
  ...configModule({ V_DIM: dim, O_BF16: isBf16(access) }),
  "package::lib::half": slotModules({ q: access, k: access, v: access, o: access })[
    "package::lib::half"
  ],
  "package::slots::output": outputModule(access),
});

/** The kernel that writes zeros to a gradient with rows of `dim` elements. */
export function clearKernel(dim: number, access: Access): KernelSource {
  return clearKernels.get({ dim, access }, () => {
    return {
      label: "backward clear",
      ...link("package::backward_clear", clearModules(dim, access)),
      bindings: [
        { binding: 0, name: "params", type: "uniform" },
        { binding: 6, name: "o", type: "storage" },
      ],
    };
  });
}
