// The kernel of the steps of LSTM and GRU, shaders/recurrent.wesl: what is compiled, and how it
// covers units, batch entries and steps.

import half from "../../shaders/lib/half.wesl?raw";
import recurrentParams from "../../shaders/lib/recurrent_params.wesl?raw";
import recurrentRows from "../../shaders/lib/recurrent_rows.wesl?raw";
import recurrent from "../../shaders/recurrent.wesl?raw";
import cellLstm from "../../shaders/slots/cell.wesl?raw";
import recurrentConfig from "../../shaders/slots/recurrent_config.wesl?raw";
import cellGru from "../../shaders/variants/cell_gru.wesl?raw";
import { link, type ModuleMap } from "../shader/link.ts";
import { constantsModule } from "../shader/modules.ts";
import type { Binding, KernelSource } from "../types.ts";
import type { Access } from "./access.ts";
import { activationModules } from "./activations.ts";
import { KernelCache } from "./kernel_cache.ts";
import { bf16Constants, namedSlot } from "./named_slots.ts";
import { UniformStruct } from "./uniform.ts";

/** The cells, with the matrices that make their gates. */
export const GATES = { lstm: 4, gru: 3 } as const;
export type CellKind = keyof typeof GATES;

/** What both kernels, that of the steps and that of their gradients, depend on. */
export interface RecurrentTile {
  readonly cell: CellKind;
  /** Batch entries of a workgroup. */
  readonly entries: number;
  readonly weight: Access;
  /** Columns of the weight if they aren't a multiple of 4; otherwise undefined. */
  readonly oddUnits: number | undefined;
}

export interface RecurrentSpecialisation extends RecurrentTile {
  /** Lanes of a workgroup, each of which has a unit. */
  readonly lanes: number;
  readonly bias: Access | undefined;
  /** The elements of the bias if they aren't a multiple of 4; otherwise undefined. */
  readonly oddGates: number | undefined;
  /** Whether what the gradient needs is left in memory. */
  readonly keep: boolean;
}

/** The modules of a cell and of the rows that it reads. */
export function cellModules({ cell, weight }: RecurrentTile): ModuleMap {
  const gru = { name: "variants/cell_gru.wesl", text: cellGru };
  return {
    // Half is linked if a slot of 16 bits imports it.
    "package::lib::half": half,
    "package::lib::params": recurrentParams,
    "package::lib::recurrent_rows": recurrentRows,
    "package::slots::cell": cell === "gru" ? gru : cellLstm,
    ...activationModules("tanh").modules,
    ...namedSlot("recurrent_weight", "weight", 1, weight),
  };
}

/** The module of constants. */
export const recurrentConstants = (
  { entries, weight, oddUnits }: RecurrentTile,
  own: Readonly<Record<string, number | boolean>>,
): ModuleMap =>
  constantsModule("config", recurrentConfig, {
    ENTRIES: entries,
    WEIGHT_DIM: oddUnits ?? 4,
    ...bf16Constants({ weight }),
    ...own,
  });

/** The modules of a specialisation, of which `package::recurrent` is the root. */
export const recurrentModules = (spec: RecurrentSpecialisation): ModuleMap => ({
  "package::recurrent": recurrent,
  ...cellModules(spec),
  ...namedSlot("recurrent_bias", "bias", 2, spec.bias),
  ...recurrentConstants(spec, {
    WG_SIZE: spec.lanes,
    KEEP: spec.keep,
    BIAS_DIM: spec.oddGates ?? 4,
    ...bf16Constants({ bias: spec.bias }),
  }),
});

export const recurrentBindings = ({
  bias,
}: Pick<RecurrentSpecialisation, "bias">): readonly Binding[] => [
  { binding: 0, name: "params", type: "uniform" },
  { binding: 1, name: "weight", type: "read-only-storage" },
  ...(bias ? [{ binding: 2, name: "bias", type: "read-only-storage" } as const] : []),
  { binding: 3, name: "lengths", type: "read-only-storage" },
  { binding: 4, name: "h0", type: "read-only-storage" },
  { binding: 5, name: "c0", type: "read-only-storage" },
  { binding: 6, name: "gates", type: "storage" },
  { binding: 7, name: "states", type: "storage" },
  { binding: 8, name: "ends", type: "storage" },
];

/** The uniform. A kernel reads some of its members; the others are 0. */
export const RECURRENT_PARAMS = new UniformStruct(recurrentParams, "RecurrentParams");

const kernels = new KernelCache<RecurrentSpecialisation>();

export function recurrentKernel(spec: RecurrentSpecialisation): KernelSource {
  return kernels.get(spec, () => ({
    label: `${spec.cell} ${spec.lanes}x${spec.entries}`,
    ...link("package::recurrent", recurrentModules(spec)),
    bindings: recurrentBindings(spec),
  }));
}

/**
 * The most units that one workgroup has, and so walks several steps with. On SwiftShader, against a
 * dispatch for each step in 64 units, in turns: 1.4 to 2.6 times as fast forward and 3 to 6 times
 * backward (B 8 to 32, T 16 and 32, H 32 to 256, median of 7).
 */
const MOST_WALKED_UNITS = 256;

/**
 * Batch entries of a workgroup: a row of W_hh is read once for all of them. Four take 40 to 70 % of
 * the time of one in the same runs.
 */
const entriesOf = (batch: number): number => (batch <= 1 ? 1 : batch === 2 ? 2 : 4);

/**
 * How workgroups cover so many units and batch entries: all units in one workgroup, which then
 * walks many steps in a dispatch, or tiles of 64 of them and a dispatch for each step.
 */
export function recurrentCover(units: number, batch: number) {
  const walks = units <= MOST_WALKED_UNITS;
  const tile = walks ? 64 * 2 ** Math.ceil(Math.log2(Math.max(1, units / 64))) : 64;
  const entries = entriesOf(batch);
  const unitTiles = Math.ceil(units / tile);
  return { walks, tile, entries, unitTiles, workgroups: unitTiles * Math.ceil(batch / entries) };
}

/** The most operations of one workgroup in a dispatch: a few milliseconds of a GPU. */
const MOST_WALKED_FLOPS = 2 ** 28;

/**
 * Cuts a walk of so many steps into dispatches.
 *
 * @param flops Operations of a workgroup in a step
 */
export function walkedParts(
  steps: number,
  walks: boolean,
  flops: number,
): readonly (readonly [first: number, end: number])[] {
  const each = walks ? Math.max(1, Math.floor(MOST_WALKED_FLOPS / flops)) : 1;
  return Array.from({ length: Math.ceil(steps / each) }, (_, index) => [
    index * each,
    Math.min((index + 1) * each, steps),
  ]);
}
