// The kernels of the gradients of position encodings: of the rows, and of a table whose rows were
// looked up (shaders/table_backward.wesl and the sort before it). What is compiled, and their grids.

import carriedSum from "../../../shaders/lib/carried_sum.wesl?raw";
import finite from "../../../shaders/lib/finite.wesl?raw";
import half from "../../../shaders/lib/half.wesl?raw";
import invocation from "../../../shaders/lib/invocation.wesl?raw";
import params from "../../../shaders/lib/table_gradient_params.wesl?raw";
import tableKeys from "../../../shaders/lib/table_keys.wesl?raw";
import positionEncodingBackward from "../../../shaders/position_encoding_backward.wesl?raw";
import order from "../../../shaders/slots/order.wesl?raw";
import rotary from "../../../shaders/slots/rotary.wesl?raw";
import config from "../../../shaders/slots/table_gradient_config.wesl?raw";
import tableSums from "../../../shaders/slots/table_sums.wesl?raw";
import tableBackward from "../../../shaders/table_backward.wesl?raw";
import tableCount from "../../../shaders/table_count_backward.wesl?raw";
import tableOffsets from "../../../shaders/table_offsets_backward.wesl?raw";
import tableScatter from "../../../shaders/table_scatter_backward.wesl?raw";
import orderStored from "../../../shaders/variants/order_stored.wesl?raw";
import tableSumsStored from "../../../shaders/variants/table_sums_stored.wesl?raw";
import { link, type ModuleMap } from "../../shader/link.ts";
import { constantsModule } from "../../shader/modules.ts";
import type { Binding, KernelSource } from "../../types.ts";
import { type Access, isBf16 } from "../access.ts";
import { KernelCache } from "../kernel_cache.ts";
import { positionBindings, positionModules } from "../rotary.ts";
import { readRows, writtenRows } from "../rows.ts";
import { UniformStruct } from "../uniform.ts";

const ROOTS = {
  position_encoding_backward: positionEncodingBackward,
  table_backward: tableBackward,
  table_count_backward: tableCount,
  table_offsets_backward: tableOffsets,
  table_scatter_backward: tableScatter,
} as const;

export interface TableGradientSpecialisation {
  readonly root: keyof typeof ROOTS;
  /** How the gradient is read and the result is written, if they are. */
  readonly gradient?: Access | undefined;
  readonly o?: Access | undefined;
  /** Whether positions are in memory, if the kernel looks at them. */
  readonly positions?: boolean | undefined;
  /** Whether there is an order of the rows in memory already. */
  readonly ordered?: boolean | undefined;
  /** Whether sums go on from dispatch to dispatch. */
  readonly carried?: boolean | undefined;
}

/** The modules of a kernel. */
export function tableGradientModules(spec: TableGradientSpecialisation): ModuleMap {
  const { root, gradient, o, positions = false, ordered, carried } = spec;
  return {
    [`package::${root}`]: ROOTS[root],
    "package::lib::carried_sum": carriedSum,
    "package::lib::finite": finite,
    "package::lib::half": half,
    "package::lib::invocation": invocation,
    "package::lib::params": params,
    "package::lib::table_keys": tableKeys,
    "package::slots::order": ordered
      ? { name: "variants/order_stored.wesl", text: orderStored }
      : order,
    "package::slots::rotary": rotary,
    "package::slots::row_gradient": { ...readRows("gradient", 1, gradient), name: "gradient" },
    "package::slots::row_o": { ...writtenRows("o", 2, o), name: "o" },
    "package::slots::table_sums": carried
      ? { name: "variants/table_sums_stored.wesl", text: tableSumsStored }
      : tableSums,
    ...positionModules(positions),
    ...constantsModule("config", config, {
      GRADIENT_BF16: isBf16(gradient ?? "dense"),
      O_BF16: isBf16(o ?? "dense"),
    }),
  };
}

export function tableGradientBindings(spec: TableGradientSpecialisation): Binding[] {
  const { root, gradient, o, positions = false, ordered, carried } = spec;
  const storage = (binding: number, name: string, written: boolean): Binding => ({
    binding,
    name,
    type: written ? "storage" : "read-only-storage",
  });
  return [
    { binding: 0, name: "params", type: "uniform" },
    ...(gradient ? [storage(1, "gradient", false)] : []),
    ...(o ? [storage(2, "o", true)] : []),
    ...(ordered ? [storage(8, "order", false)] : []),
    ...(carried ? [storage(9, "sums", true)] : []),
    ...(root === "table_count_backward" || root === "table_offsets_backward"
      ? [storage(9, "counts", true)]
      : []),
    ...(root === "table_scatter_backward"
      ? [storage(9, "counts", false), storage(10, "next_order", true)]
      : []),
    ...positionBindings(positions),
  ];
}

/** The uniform of these kernels. A kernel reads some of its members; the others are 0. */
export const TABLE_GRADIENT_PARAMS = new UniformStruct(params, "TableGradientParams");

const kernels = new KernelCache<TableGradientSpecialisation>();

export function tableGradientKernel(spec: TableGradientSpecialisation): KernelSource {
  return kernels.get(spec, () => ({
    label: spec.root,
    ...link(`package::${spec.root}`, tableGradientModules(spec)),
    bindings: tableGradientBindings(spec),
  }));
}

/** Invocations of a workgroup that spends one on each vec4. */
const WG_SIZE = 64;
/** Rows of a block of the sort. */
const BLOCK_ROWS = 256;
/** Bits of a digit of the sort. */
const DIGIT_BITS = 8;
/** Values of a digit. */
export const DIGITS = 2 ** DIGIT_BITS;
/** The most rows that a dispatch adds: a lane may have to add them all. */
const PART_ROWS = 2 ** 16;

/** Workgroups for so many rows of so many elements. */
export const vec4Workgroups = (rows: number, width: number): number =>
  Math.ceil((rows * Math.ceil(width / 4)) / WG_SIZE);

/** Blocks that so many rows are sorted in. */
export const sortBlocks = (rows: number): number => Math.ceil(rows / BLOCK_ROWS);

/** How far each digit of the numbers from 0 up to `most` is from the lowest bit. */
export const digitShifts = (most: number): number[] =>
  Array.from(
    { length: Math.max(1, Math.ceil((32 - Math.clz32(most)) / DIGIT_BITS)) },
    (_, index) => DIGIT_BITS * index,
  );

/** The parts of so many sorted rows that a dispatch adds. There is one at least. */
export const sumParts = (rows: number) =>
  Array.from({ length: Math.max(1, Math.ceil(rows / PART_ROWS)) }, (_, index) => ({
    part_begin: index * PART_ROWS,
    part_end: Math.min((index + 1) * PART_ROWS, rows),
  }));
