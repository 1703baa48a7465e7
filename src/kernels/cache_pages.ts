// The kernels that keep a cache's pages in order, shaders/cache_write.wesl and cache_copy.wesl:
// bindings, grids, and how numbers travel in a command.

import cacheCopy from "../../shaders/cache_copy.wesl?raw";
import cacheWrite from "../../shaders/cache_write.wesl?raw";
import { link, type ModuleMap } from "../shader/link.ts";
import type { Binding, KernelSource } from "../types.ts";

const BASE = 256;
/** Bytes from one digit to the next: every device can bind a uniform at multiples of it. */
const DIGIT_STRIDE = 256;
const DIGITS = 3;
const COPY_WG_SIZE = 64;

/** Numbers in a command are below this. */
export const NUMBER_LIMIT = BASE ** DIGITS;

/** The contents of the uniform buffer: every digit stands at its offset. */
export function digitBytes(): ArrayBuffer {
  const bytes = new ArrayBuffer(BASE * DIGIT_STRIDE);
  const view = new DataView(bytes);
  for (let digit = 0; digit < BASE; digit++) view.setUint32(digit * DIGIT_STRIDE, digit, true);
  return bytes;
}

/** Writes the offsets of a number's digits, the lowest first. */
export function placeDigits(number: number, offsets: Uint32Array, start: number): void {
  for (let digit = 0, rest = number; digit < DIGITS; digit++, rest = Math.floor(rest / BASE)) {
    offsets[start + digit] = (rest % BASE) * DIGIT_STRIDE;
  }
}

/** The offset of a number of one digit. */
export const digitOffset = (digit: number): number => digit * DIGIT_STRIDE;

const digitBindings = (...names: string[]): Binding[] =>
  names.map((name, binding) => ({ binding, name, type: "uniform", dynamic: true }));

const WRITE_DIGITS = digitBindings("at_0", "at_1", "at_2", "value_0", "value_1", "value_2", "step");
const COPY_DIGITS = digitBindings("from_0", "from_1", "from_2", "to_0", "to_1", "to_2");

export const CACHE_WRITE_MODULES: ModuleMap = { "package::cache_write": cacheWrite };
export const CACHE_WRITE_BINDINGS: readonly Binding[] = [
  ...WRITE_DIGITS,
  { binding: 7, name: "state", type: "storage" },
];

export const CACHE_COPY_MODULES: ModuleMap = { "package::cache_copy": cacheCopy };
export const CACHE_COPY_BINDINGS: readonly Binding[] = [
  ...COPY_DIGITS,
  { binding: 6, name: "page_words", type: "uniform" },
  { binding: 7, name: "pages", type: "storage" },
];

let write: KernelSource | undefined;
let copy: KernelSource | undefined;

export function cacheWriteKernel(): KernelSource {
  write ??= {
    label: "cache write",
    ...link("package::cache_write", CACHE_WRITE_MODULES),
    bindings: CACHE_WRITE_BINDINGS,
  };
  return write;
}

export function cacheCopyKernel(): KernelSource {
  copy ??= {
    label: "cache copy",
    ...link("package::cache_copy", CACHE_COPY_MODULES),
    bindings: CACHE_COPY_BINDINGS,
  };
  return copy;
}

/** Workgroups that copy a page, in two dimensions. */
export function cacheCopyGrid(
  words: number,
  perDimension: number,
): { readonly x: number; readonly y: number } {
  const workgroups = Math.ceil(words / COPY_WG_SIZE);
  const x = Math.min(workgroups, perDimension);
  return { x, y: Math.ceil(workgroups / x) };
}
