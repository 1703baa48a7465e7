// How kernels reach the rows of a tensor: by vec4s, by elements or by halves of words, and at which
// addresses.

import { ACCESSES_OF, type Access } from "../kernels/access.ts";
import type { Layout } from "../types.ts";
import type { Operand } from "./operand.ts";
import { reorder } from "./specs.ts";

/** Whether the rows of a tensor are sequences of aligned vec4s. */
export function isDense({ spec, base }: Pick<Operand, "spec" | "base">): boolean {
  const rowAxis = spec.shape.length - 1;
  return (
    spec.shape[rowAxis] % 4 === 0 &&
    spec.strides[rowAxis] === 1 &&
    base % 4 === 0 &&
    spec.shape.every((size, axis) => axis === rowAxis || size <= 1 || spec.strides[axis] % 4 === 0)
  );
}

/** How the rows of an operand are read or written on this device. */
export function accessOf(device: GPUDevice, operand: Pick<Operand, "spec" | "base">): Access {
  const { native, aligned, strided } = ACCESSES_OF[operand.spec.dtype];
  if (!isDense(operand)) return strided;
  return native && device.features.has("shader-f16") ? native : aligned;
}

/**
 * The params of a tensor: base and strides in the units of its slot, which are vec4s if the slot is
 * dense, and elements otherwise.
 */
export function addresses<Name extends string, Row extends "m" | "n">(
  name: Name,
  row: Row,
  operand: Pick<Operand, "spec" | "base"> | undefined,
  dense: boolean,
  { layout }: { readonly layout: Layout },
): Record<`${Name}_base` | `${Name}_stride_${"b" | "h" | Row | "d"}`, number> {
  const { shape, strides } = operand
    ? operand.spec.shape.length === 4
      ? reorder(operand.spec, layout)
      : operand.spec
    : { shape: [], strides: [] };
  const unit = dense ? 4 : 1;
  // The stride of an axis with one index is never taken, and need not be a whole number of units.
  const [b = 0, h = 0, m = 0, d = 0] = strides.map((stride, axis) =>
    shape[axis] > 1 ? stride / unit : 0,
  );
  return {
    [`${name}_base`]: (operand?.base ?? 0) / unit,
    [`${name}_stride_b`]: b,
    [`${name}_stride_h`]: h,
    [`${name}_stride_${row}`]: m,
    [`${name}_stride_d`]: dense ? 0 : d,
  } as ReturnType<typeof addresses<Name, Row>>;
}

/** The params of a tensor that has one element a row, [B, H, M]. */
export function rowAddresses<Name extends string>(
  name: Name,
  operand: Pick<Operand, "spec" | "base"> | undefined,
): Record<`${Name}_base` | `${Name}_stride_${"b" | "h" | "m"}`, number> {
  const params: Record<string, number> = addresses(name, "m", operand, false, { layout: "bhmd" });
  delete params[`${name}_stride_d`];
  return params as ReturnType<typeof rowAddresses<Name>>;
}
