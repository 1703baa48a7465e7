// The kernel of sums over rows, shaders/column_sums.wesl: what is compiled, and its grid.

import columnSums from "../../../shaders/column_sums.wesl?raw";
import carriedSum from "../../../shaders/lib/carried_sum.wesl?raw";
import finite from "../../../shaders/lib/finite.wesl?raw";
import half from "../../../shaders/lib/half.wesl?raw";
import sumParams from "../../../shaders/lib/sum_params.wesl?raw";
import sumConfig from "../../../shaders/slots/sum_config.wesl?raw";
import { link, type ModuleMap } from "../../shader/link.ts";
import { constantsModule } from "../../shader/modules.ts";
import type { Binding, KernelSource } from "../../types.ts";
import type { Access } from "../access.ts";
import { KernelCache } from "../kernel_cache.ts";
import { bf16Constants, namedSlot } from "../named_slots.ts";
import { outputModule } from "../slot_modules.ts";
import { UniformStruct } from "../uniform.ts";

const WG_SIZE = 64;

/** The fewest rows of a part, and the most parts, whose sums one lane adds up. */
const PART_ROWS = 64;
const MOST_PARTS = 256;

/** How many rows each part has if so many are summed. */
export const rowsOfPart = (rows: number): number =>
  PART_ROWS * Math.max(1, Math.ceil(rows / (PART_ROWS * MOST_PARTS)));

/** What the text of a sum depends on. */
export interface SumSpecialisation {
  readonly source: Access;
  readonly o: Access;
  /** Columns of a row of the output if they aren't a multiple of 4; otherwise undefined. */
  readonly oddColumns: number | undefined;
}

/** The modules of a specialisation. */
export const columnSumsModules = ({ source, o, oddColumns }: SumSpecialisation): ModuleMap => ({
  "package::column_sums": columnSums,
  "package::lib::carried_sum": carriedSum,
  "package::lib::finite": finite,
  "package::lib::half": half,
  "package::lib::params": sumParams,
  ...namedSlot("summed", "source", 1, source),
  "package::slots::output": outputModule(o),
  ...constantsModule("config", sumConfig, {
    V_DIM: oddColumns ?? 4,
    ...bf16Constants({ source, o }),
  }),
});

export const COLUMN_SUMS_BINDINGS: readonly Binding[] = [
  { binding: 0, name: "params", type: "uniform" },
  { binding: 1, name: "source", type: "read-only-storage" },
  { binding: 6, name: "o", type: "storage" },
];

/** The uniform. */
export const SUM_PARAMS = new UniformStruct(sumParams, "SumParams");

const kernels = new KernelCache<SumSpecialisation>();

export function columnSumsKernel(spec: SumSpecialisation): KernelSource {
  return kernels.get(spec, () => {
    const text = link("package::column_sums", columnSumsModules(spec));
    return { label: "column_sums", ...text, bindings: COLUMN_SUMS_BINDINGS };
  });
}

/** Workgroups for the sums of so many vec4s of columns, of each part of the rows. */
export const columnSumsWorkgroups = (columns4: number, parts: number): number =>
  Math.ceil((columns4 * parts) / WG_SIZE);
