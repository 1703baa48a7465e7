// What plans of gradients of operations on rows have in common: how their tensors are laid out, and
// the sums over rows for gradients of what was broadcast.

import { type Access, isAligned } from "../kernels/access.ts";
import {
  MOST_TERMS,
  type RowSumsChoice,
  rowSumsEndSpecialisation,
  sumLanes,
  sumRows,
} from "../kernels/gradients/row_sums.ts";
import {
  type ByTensor,
  GRADIENT_TENSORS,
  type GradientAccesses,
  type GradientTensor,
  ROW_GRADIENT_PARAMS,
  type RowGradientSpecialisation,
  rowGradientKernel,
} from "../kernels/gradients/rows.ts";
import type { UniformValues } from "../kernels/uniform.ts";
import { accessOf, addresses } from "../plan/access.ts";
import type { Stage } from "../plan/operation.ts";
import { bindingBase, type ResolvedSpec } from "../plan/specs.ts";
import type { FoldedRows } from "./row_axes.ts";

/** The most operations of a dispatch of sums: well within a second on any GPU. */
const MOST_FLOPS = 2 ** 36;
/** Operations for each element of a sum. */
const TERM_FLOPS = 16;
/** Invocations of a workgroup at the end of the sums. */
const END_WG_SIZE = 64;

/** Specs of tensors that were folded together. */
export type GradientSpecs = ByTensor<ResolvedSpec>;

/** How a kernel reads or writes each tensor, and the values of its uniform. */
export function layGradientRows(
  device: GPUDevice,
  { rows, width }: Pick<FoldedRows, "rows" | "width">,
  specs: GradientSpecs,
  more: UniformValues = {},
) {
  const accesses: { -readonly [Name in GradientTensor]?: Access } = {};
  const values: Record<string, unknown> = {};
  const bhmd = { layout: "bhmd" } as const;
  for (const name of GRADIENT_TENSORS) {
    const spec = specs[name];
    const operand = spec && { spec, base: bindingBase(device, spec) };
    const access = operand && accessOf(device, operand);
    if (access) accesses[name] = access;
    const dense = access !== undefined && isAligned(access);
    Object.assign(values, addresses(name, "n", operand, dense, bhmd));
    if (!spec) continue;
    const [, heads, perHead] = spec.shape;
    Object.assign(values, { n_heads: heads, rows_per_head: perHead });
  }
  const all = { ...values, all_rows: rows, width, ...more } as UniformValues;
  return { accesses, struct: ROW_GRADIENT_PARAMS, values: all };
}

/** A gradient that is a sum over rows. */
export interface RowSum {
  /** The name of its tensor in the plan. */
  readonly name: string;
  /** Which term is summed, as the kernel numbers it. */
  readonly term: number;
  /** Its spec, folded with the other tensors: the stride is 0 along what is summed over. */
  readonly spec: ResolvedSpec;
}

/** Sums of one shape, which one kernel finds together, and the numbers of their shape. */
export interface SumGroup {
  readonly sums: readonly RowSum[];
  readonly choice: RowSumsChoice;
  /** [B, H, N, vec4s of a row] of the sums. */
  readonly kept: readonly number[];
  /** [B, H, N] of the rows that each row of a sum is made of. */
  readonly reduced: readonly number[];
  readonly chunks: number;
}

/** Sums that are found together, and the elements of the workspace that they need. */
export interface SumGroups {
  readonly groups: readonly SumGroup[];
  readonly workspace: number;
}

const product = (sizes: readonly number[]) => sizes.reduce((a, b) => a * b, 1);

/**
 * Groups sums by their shape. `isEmpty`: the rows have no elements, so that the sums are 0 and
 * their specs are those of the gradients.
 */
export function groupSums(
  sums: readonly RowSum[],
  [batch, heads, perHead, width]: readonly number[],
  isEmpty = false,
): SumGroups {
  const byShape = new Map<string, RowSum[]>();
  for (const sum of sums) {
    const { shape, strides } = sum.spec;
    const isKept = shape.map((size, axis) => Number(isEmpty || size === 1 || strides[axis] > 0));
    const key = `${isEmpty ? shape : isKept}`;
    const alike = byShape.get(key);
    if (alike) alike.push(sum);
    else byShape.set(key, [sum]);
  }
  const groups = [...byShape.values()].flatMap((alike) => {
    const count = Math.ceil(alike.length / MOST_TERMS);
    return Array.from({ length: count }, (_, index) =>
      groupOf(alike.slice(MOST_TERMS * index, MOST_TERMS * (index + 1))),
    );
  });
  const sizes = groups.map(({ sums, chunks, kept }) => 4 * sums.length * chunks * product(kept));
  return { groups, workspace: Math.max(0, ...sizes) };

  function groupOf(alike: readonly RowSum[]): SumGroup {
    const { shape, strides } = alike[0].spec;
    const sizes = isEmpty ? shape : [batch, heads, perHead, width];
    const keeps = sizes.map((size, axis) => isEmpty || size === 1 || strides[axis] > 0);
    const kept = sizes.map((size, axis) => (keeps[axis] ? size : 1));
    const reduced = sizes.slice(0, 3).map((size, axis) => (keeps[axis] ? 1 : size));
    const lanes = sumLanes(product(reduced));
    return {
      sums: alike,
      choice: { lanes, widthReduced: !keeps[3], terms: alike.map(({ term }) => term) },
      kept: [...kept.slice(0, 3), Math.ceil(kept[3] / 4)],
      reduced,
      chunks: isEmpty ? 0 : Math.max(1, Math.ceil(product(reduced) / sumRows(lanes))),
    };
  }
}

/** What the kernels of sums read, and how they find their terms. */
export interface SummedRows {
  readonly device: GPUDevice;
  readonly folded: Pick<FoldedRows, "rows" | "width">;
  /** The specs that the terms of a group are made of, by the names of the kernel. */
  specsOf(terms: readonly number[]): GradientSpecs;
  /** The kernel of a group. */
  kernelOf(tensors: GradientAccesses, choice: RowSumsChoice): RowGradientSpecialisation;
  /** The plan's names for the kernel's bindings. */
  readonly names: Readonly<Record<string, string>>;
}

/** The stages that find sums and write the gradients. */
export function sumStages({ groups }: SumGroups, rows: SummedRows): Stage[] {
  const { device, folded, specsOf, kernelOf, names } = rows;
  return groups.flatMap(({ sums, choice, kept, reduced, chunks }): Stage[] => {
    const { lanes, widthReduced, terms } = choice;
    const keptRows = product(kept.slice(0, 3));
    const columnBlocks = widthReduced ? 1 : Math.ceil(kept[3] / lanes.columns);
    const values: UniformValues = {
      epsilon: 0, // read by what the kernel links, and doesn't call
      kept_rows: keptRows,
      kept_heads: kept[1],
      kept_per_head: kept[2],
      kept_width4: kept[3],
      reduced_rows: product(reduced),
      reduced_heads: reduced[1],
      reduced_per_head: reduced[2],
      chunk_rows: sumRows(lanes),
      chunks,
      column_blocks: columnBlocks,
    };
    const laid = layGradientRows(device, folded, specsOf(terms), values);
    const columns = widthReduced ? folded.width : 4 * lanes.columns;
    const each = TERM_FLOPS * terms.length * sumRows(lanes) * columns;
    const first: Stage = {
      source: rowGradientKernel("row_sums_backward", kernelOf(laid.accesses, choice)),
      names: { ...names, partials: "workspace" },
      params: laid,
      workgroups: keptRows * columnBlocks * chunks,
      flops: [Math.max(1, each), MOST_FLOPS],
    };
    const ends = sums.map(({ name, spec }, term): Stage => {
      const width = widthReduced ? 1 : spec.shape[3];
      const end = layGradientRows(device, { rows: 0, width }, { o: spec }, { ...values, term });
      return {
        source: rowGradientKernel(
          "row_sums_end_backward",
          rowSumsEndSpecialisation(end.accesses.o ?? "strided"),
        ),
        names: { o: name, partials: "workspace" },
        params: end,
        workgroups: Math.ceil((keptRows * kept[3]) / END_WG_SIZE),
      };
    });
    return chunks ? [first, ...ends] : ends;
  });
}
