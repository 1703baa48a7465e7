// The ways in which kernels reach the rows of a tensor, and which of these ways each element type
// has.

import type { Dtype } from "../types.ts";

export interface AccessFacts {
  /** Rows are addressed in units of four elements; otherwise in elements, or as a cache has them. */
  readonly aligned: boolean;
  /**
   * Names the modules of the slots `query` and `output` that reach rows in this way
   * (slot_modules.ts).
   */
  readonly form: "dense" | "strided" | "packed" | "packed-strided" | "f16" | "words";
  /** Whether elements are bf16, which is a constant of the modules that unpack words. */
  readonly bf16: boolean;
}

const facts = (form: AccessFacts["form"], aligned: boolean, bf16 = false): AccessFacts => ({
  aligned,
  form,
  bf16,
});

/**
 * f32 is read as sequences of aligned vec4s (`dense`) or element by element (`strided`). f16 and
 * bf16 are read from words of two elements, also as sequences of aligned vec4s (`packed`) or
 * element by element. `f16` reads sequences of aligned vec4s of that type, if the device has it;
 * `words` reads as a cache does.
 */
export const ACCESSES = {
  dense: facts("dense", true),
  strided: facts("strided", false),
  "f16-packed": facts("packed", true),
  "f16-packed-strided": facts("packed-strided", false),
  "bf16-packed": facts("packed", true, true),
  "bf16-packed-strided": facts("packed-strided", false, true),
  f16: facts("f16", true),
  words: facts("words", false),
};

export type Access = keyof typeof ACCESSES;

/** Whether rows are addressed in units of four elements. */
export const isAligned = (access: Access): boolean => ACCESSES[access].aligned;

/** Whether the elements are bf16. */
export const isBf16 = (access: Access): boolean => ACCESSES[access].bf16;

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
