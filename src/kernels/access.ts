// The ways in which kernels reach the rows of a tensor, and which of these ways each element type
// has.

import type { Dtype } from "../types.ts";

/**
 * The form of an access names the modules of the slots `query` and `output` that reach rows in this
 * way (slot_modules.ts): sequences of aligned vec4s (`dense`) or element by element (`strided`),
 * the same two from words of two elements (`packed`, `packed-strided`), sequences of aligned vec4s
 * of f16, if the device has the type, and words as a cache has them.
 */
export type Form = "dense" | "strided" | PackedForm | "f16" | "words";
type PackedForm = "packed" | "packed-strided";

/** A form, and the element type if words of two elements may hold several. */
export type Access = Exclude<Form, PackedForm> | `${"f16" | "bf16"}-${PackedForm}`;

export const formOf = (access: Access): Form => access.replace(/^b?f16-/, "") as Form;

/** Whether rows are addressed in units of four elements; otherwise in elements, or by a cache. */
export const isAligned = (access: Access): boolean => !/strided|words/.test(access);

/** Whether the elements are bf16, which is a constant of the modules that unpack words. */
export const isBf16 = (access: Access): boolean => access.startsWith("bf16");

interface DtypeAccesses {
  /** The access for rows of aligned vec4s, on devices that have the type (shader-f16). */
  readonly native?: Access;
  /** The access for rows of aligned vec4s. */
  readonly aligned: Access;
  readonly strided: Access;
}

const WORDS: DtypeAccesses = { aligned: "dense", strided: "strided" };

/** The accesses of each element type. */
export const ACCESSES_OF: Readonly<Record<Dtype, DtypeAccesses>> = {
  f32: WORDS,
  i32: WORDS,
  u32: WORDS,
  u8: WORDS,
  f16: { native: "f16", aligned: "f16-packed", strided: "f16-packed-strided" },
  bf16: { aligned: "bf16-packed", strided: "bf16-packed-strided" },
};
