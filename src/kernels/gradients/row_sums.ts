// The kernels of sums over rows, shaders/row_sums_backward.wesl and row_sums_end_backward.wesl: what
// is compiled, and how rows are shared among workgroups.

import rowSumsBackward from "../../../shaders/row_sums_backward.wesl?raw";
import rowSumsEnd from "../../../shaders/row_sums_end_backward.wesl?raw";
import type { ModuleMap } from "../../shader/link.ts";
import type { Binding } from "../../types.ts";
import type { Access } from "../access.ts";
import type { GradientAccesses, RowGradientSpecialisation } from "./rows.ts";

/** The most sums that one kernel finds together. */
export const MOST_TERMS = 3;
/** Rows that a lane adds. */
const LANE_ROWS = 16;

/** How the lanes of a workgroup share rows and columns. */
export interface SumLanes {
  /** Lanes that have different columns of four elements. */
  readonly columns: number;
  /** Lanes that have different rows of a column. */
  readonly rows: number;
}

/** Lanes for sums of so many rows. */
export const sumLanes = (reducedRows: number): SumLanes =>
  reducedRows <= 4 ? { columns: 64, rows: 1 } : { columns: 16, rows: 16 };

/** Rows that a workgroup adds. */
export const sumRows = ({ rows }: SumLanes): number => rows * LANE_ROWS;

export interface RowSumsChoice {
  readonly lanes: SumLanes;
  readonly widthReduced: boolean;
  /** What is summed, by numbers that the module of the terms knows. Three at most. */
  readonly terms: readonly number[];
}

/** What gives the terms: modules, constants and bindings of theirs. */
export type TermsOfRows = Omit<RowGradientSpecialisation, "tensors">;

const PARTIALS = { binding: 9, name: "partials" } as const;

export const rowSumsSpecialisation = (
  tensors: GradientAccesses,
  { lanes, widthReduced, terms }: RowSumsChoice,
  { modules, constants, bindings = [], variant }: TermsOfRows,
): RowGradientSpecialisation => ({
  tensors,
  constants: {
    ...constants,
    COLUMN_LANES: lanes.columns,
    ROW_LANES: lanes.rows,
    TERMS: terms.length,
    WIDTH_REDUCED: widthReduced,
    TERM_A: terms[0],
    TERM_B: terms[1] ?? 0,
    TERM_C: terms[2] ?? 0,
  },
  modules: { "package::row_sums_backward": rowSumsBackward, ...modules },
  variant,
  bindings: [...bindings, { ...PARTIALS, type: "storage" }],
});

/** The kernel that writes one of the sums. */
export const rowSumsEndSpecialisation = (o: Access): RowGradientSpecialisation => ({
  tensors: { o },
  constants: {},
  modules: END,
  bindings: [{ ...PARTIALS, type: "read-only-storage" } satisfies Binding],
});
const END: ModuleMap = { "package::row_sums_end_backward": rowSumsEnd };
