// The matrix product for few rows, shaders/matvec.wesl and matvec_columns.wesl: shapes and
// specialisation.

import matvec from "../../../shaders/matvec.wesl?raw";
import matvecColumns from "../../../shaders/matvec_columns.wesl?raw";
import weightBlock from "../../../shaders/slots/weight_block.wesl?raw";
import weightBlockInt4 from "../../../shaders/variants/weight_block_int4.wesl?raw";
import weightBlockInt8 from "../../../shaders/variants/weight_block_int8.wesl?raw";
import { link, type ModuleMap } from "../../shader/link.ts";
import type { KernelSource } from "../../types.ts";
import type { TileLimits } from "../forward_tiles.ts";
import { KernelCache } from "../kernel_cache.ts";
import { type MatmulOperands, matmulBindings, operandModules } from "../matmul.ts";

/** The names by which callers ask for these kernels, with the lanes of software adapters or GPUs. */
const VARIANTS: Readonly<Record<string, { readonly software: boolean }>> = {
  "matvec-4": { software: true },
  "matvec-16": { software: false },
};

/** The most rows of x that a workgroup holds. */
const MOST_ROWS = 8;

/** Products of more than four rows are as fast in tiles on software adapters if k is shorter. */
const SHORT = 128;

/** How a workgroup covers y. */
export interface MatvecShape {
  /** By rows of the weight, or by columns of one that is stored [K, N]. */
  readonly form: "rows" | "columns";
  /** Rows of x that a lane holds. */
  readonly rows: 1 | 2 | 4 | 8;
  /** Lanes of a workgroup, and lanes that lie side by side: along k, or along the columns. */
  readonly workgroup: number;
  readonly lanes: number;
  /** Rows of the weight that a lane holds, a multiple of 4; by columns, vec4s of them. */
  readonly columns: number;
}

/** What the shape of a product depends on. */
export interface MatvecSize {
  readonly rows: number;
  readonly columnsAdjacent: boolean;
}

type Adapter = Pick<TileLimits, "software">;

/**
 * The shape for a product that these kernels are best at, or that callers ask for by a variant;
 * undefined for others.
 */
export function chooseMatvec(
  size: MatvecSize & { readonly inner: number },
  { software }: Adapter,
  variant?: string,
): MatvecShape | undefined {
  if (variant !== undefined)
    return Object.hasOwn(VARIANTS, variant) ? matvecShape(size, VARIANTS[variant]) : undefined;
  const { rows, inner } = size;
  const isBest = rows <= MOST_ROWS && (rows <= 4 || inner >= SHORT || !software);
  return isBest ? matvecShape(size, { software }) : undefined;
}

/**
 * The shape for a size. On GPUs lanes read 256 bytes of f32 side by side, 64 of integers of four
 * bits, and several of them share k, so that small weights fill the device, too. On software
 * adapters, whose workgroups run four lanes at a time, wider ones only add barriers.
 */
export function matvecShape(
  { rows, columnsAdjacent }: MatvecSize,
  { software }: Adapter,
): MatvecShape {
  const held = rows > 4 ? 8 : rows > 2 ? 4 : rows > 1 ? 2 : 1;
  if (columnsAdjacent) {
    return software
      ? { form: "columns", rows: held, workgroup: 4, lanes: 4, columns: held > 2 ? 1 : 2 }
      : { form: "columns", rows: held, workgroup: 128, lanes: 8, columns: 1 };
  }
  return software
    ? { form: "rows", rows: held, workgroup: 4, lanes: 4, columns: held > 2 ? 4 : 8 }
    : { form: "rows", rows: held, workgroup: 64, lanes: 16, columns: 4 };
}

/** What the text of a product of few rows depends on. */
export interface MatvecSpecialisation extends MatmulOperands {
  readonly shape: MatvecShape;
  /** Whether the length of k is no multiple of 4. */
  readonly endsWithinVec4: boolean;
}

export const matvecRoot = ({ form }: MatvecShape) =>
  `package::matvec${form === "rows" ? "" : "_columns"}`;

const BLOCKS = {
  8: { name: "variants/weight_block_int8.wesl", text: weightBlockInt8 },
  4: { name: "variants/weight_block_int4.wesl", text: weightBlockInt4 },
} as const;

/** The modules of a specialisation. */
export function matvecModules(spec: MatvecSpecialisation): ModuleMap {
  const { shape, quantised, endsWithinVec4 } = spec;
  const { form, rows, workgroup, lanes, columns } = shape;
  const byRows = form === "rows";
  return {
    [matvecRoot(shape)]: byRows ? matvec : matvecColumns,
    ...operandModules(spec, {
      ROWS: rows,
      LANES: lanes,
      GROUPS: workgroup / lanes,
      ...(byRows ? { COLUMNS: columns } : { V_COLS: columns }),
      MASKED_END: endsWithinVec4,
    }),
    ...(byRows && {
      "package::slots::weight_block": quantised ? BLOCKS[quantised.bits] : weightBlock,
    }),
  };
}

const kernels = new KernelCache<MatvecSpecialisation>();

export function matvecKernel(spec: MatvecSpecialisation): KernelSource {
  return kernels.get(spec, () => {
    const { shape, quantised } = spec;
    const { rows, columns } = matvecTile(shape);
    const text = link(matvecRoot(shape), matvecModules(spec));
    const kind =
      shape.form === "columns" ? " of columns" : quantised ? ` int${quantised.bits}` : "";
    return { label: `matvec ${rows}x${columns}${kind}`, ...text, bindings: matmulBindings(spec) };
  });
}

/** Rows and columns of y that a workgroup computes. */
export const matvecTile = ({ form, rows, workgroup, lanes, columns }: MatvecShape) => ({
  rows,
  columns: form === "rows" ? (workgroup / lanes) * columns : 4 * lanes * columns,
});

/** Bytes of workgroup memory, as the shaders declare it. */
export const matvecWorkgroupBytes = ({ form, rows, workgroup, columns }: MatvecShape): number =>
  form === "rows" ? 4 * (workgroup + 1) * rows * columns : 16 * workgroup;
