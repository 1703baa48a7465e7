// Views of tensors that hold several heads, or q, k and v together, in one row. Nothing is copied.

import { check, show } from "../errors.ts";
import type { OptionNames } from "../given.ts";
import { Tensor } from "../gpu/tensor.ts";
import { takeOptions } from "../options.ts";
import type { Dtype } from "../types.ts";

/**
 * Splits rows into heads: views [B, M, H * D] as [B, H, M, D].
 *
 * @param heads H; must divide the last axis.
 */
export function splitHeads<D extends Dtype>(tensor: Tensor<D>, heads: number): Tensor<D> {
  check(
    tensor instanceof Tensor,
    "argument",
    () => "splitHeads: expected a Tensor; make one with tensor().",
  );
  const [batch, rows, width] = tensor.shape;
  check(
    tensor.shape.length === 3 && Number.isInteger(heads) && heads >= 1 && width % heads === 0,
    "argument",
    () =>
      `splitHeads: can't take ${show(heads)} heads out of [${tensor.shape}]; expected [B, M, H * D].`,
  );
  const [b, m, d] = tensor.strides;
  const headDim = width / heads;
  return tensor.view({ shape: [batch, heads, rows, headDim], strides: [b, headDim * d, m, d] });
}

/** Sizes of a packed row. */
export interface PackedQkvSizes {
  /** Query heads H. */
  readonly heads: number;
  /** Key and value heads Hkv. Default H. */
  readonly kvHeads?: number;
  /** Head dim of q and k. */
  readonly headDim: number;
  /** Head dim of v. Default that of q and k. */
  readonly vDim?: number;
}

/** The names of the sizes. */
const PACKED_SIZES: OptionNames<PackedQkvSizes> = {
  heads: "number",
  kvHeads: "number",
  headDim: "number",
  vDim: "number",
};

/**
 * The q, k and v of a packed projection: rows [B, M, H * D | Hkv * D | Hkv * Dv] as three BHMD
 * tensors.
 *
 * @example
 * const { q, k, v } = unpackQkv(qkv, { heads: 12, headDim: 64 });
 */
export function unpackQkv<D extends Dtype>(
  packed: Tensor<D>,
  sizes: PackedQkvSizes,
): { q: Tensor<D>; k: Tensor<D>; v: Tensor<D> } {
  check(
    packed instanceof Tensor,
    "argument",
    () => "unpackQkv: expected a Tensor; make one with tensor().",
  );
  const {
    heads,
    kvHeads = heads,
    headDim,
    vDim = headDim,
  } = takeOptions("unpackQkv", sizes, PACKED_SIZES);
  for (const [name, value] of Object.entries({ heads, kvHeads, headDim, vDim })) {
    const least = name.endsWith("eads") ? 1 : 0;
    check(
      Number.isInteger(value) && value >= least,
      "argument",
      () => `unpackQkv: ${name} must be a whole number from ${least} up, got ${show(value)}.`,
    );
  }
  const widths = [heads * headDim, kvHeads * headDim, kvHeads * vDim];
  const total = widths[0] + widths[1] + widths[2];
  check(
    packed.shape.length === 3 && packed.shape[2] === total,
    "argument",
    () =>
      `unpackQkv: rows of ${widths.join(" + ")} = ${total} elements were described; the tensor is [${packed.shape}].`,
  );
  const part = (start: number, width: number, count: number) =>
    splitHeads(packed.slice(2, start, start + width), count);
  return {
    q: part(0, widths[0], heads),
    k: part(widths[0], widths[1], kvHeads),
    v: part(widths[0] + widths[1], widths[2], kvHeads),
  };
}
