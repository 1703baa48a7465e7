// Numbers as f16 stores them.

import { float16Bits } from "../src/gpu/elements.ts";
import { float16Value } from "../src/gpu/read.ts";

/** Returns the nearest number of f16. */
export const toF16 = (value: number): number => float16Value(float16Bits(value));
