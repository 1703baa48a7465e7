// Checked options of a cache: sizes with their defaults, norms, rotations.

import { check, show } from "../errors.ts";
import type { Taken } from "../given.ts";
import { tensor } from "../gpu/make_tensor.ts";
import { Tensor } from "../gpu/tensor.ts";
import type { Quantisation } from "../kernels/kv_access.ts";
import { quantisedWords } from "../kernels/quantised_rows.ts";
import { ANGLE_POSITIONS, angleTables, angleTablesShape } from "../kernels/rotary_angles.ts";
import { checkNames, takeOptions } from "../options.ts";
import { FLOATS } from "../plan/specs.ts";
import {
  type ResolvedRotary,
  ROTARY_OPTIONS,
  type RotaryOptions,
  resolveRotary,
} from "../positions/rotary_options.ts";
import type { FloatDtype } from "../types.ts";
import type { CacheRotary, ResolvedNorm } from "./append_problem.ts";
import type { KvCacheOptions, QkNorm, RowOptions } from "./options.ts";
import { checkStateSize, STATE_LIMIT } from "./state.ts";

const QK_NORM = { q: "any", k: "any", epsilon: "number" } as const;

/** The capacity of a ring by default: positions that it can count to. */
const RING_CAPACITY = 2 ** 23;
const RING_SLACK = 256;

/** The layout and the storage of a cache's rows. */
export interface ResolvedCache {
  readonly label: string;
  readonly batch: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly vDim: number;
  readonly capacity: number;
  readonly maxCapacity: number;
  /** How many keys before its own position a query sees; undefined without a ring. */
  readonly window: number | undefined;
  readonly ring: number;
  readonly sinkTokens: number;
  readonly rows: ResolvedRows;
}

/** How a row is stored. */
export interface ResolvedRows {
  readonly dtype: FloatDtype | "u32";
  readonly quantised: Quantisation | undefined;
  /** Elements of a row of k and v, padding included. */
  readonly kElements: number;
  readonly vElements: number;
}

/**
 * Checks the options of a cache and fills in the defaults. Throws FoveaError("argument") that names
 * what is wrong.
 */
export function resolveCache(options: Taken<KvCacheOptions>): ResolvedCache {
  const { label = "kvCache" } = options;
  const { batch, kvHeads, headDim, vDim = headDim, window, sinkTokens = 0 } = options;
  for (const [name, value] of Object.entries({ batch, kvHeads, headDim, vDim }))
    whole(label, name, value, 1);
  checkStateSize(
    `${label}: lengths and counts of ${batch} sequences`,
    "Make several caches.",
    batch,
    0,
  );
  check(
    window !== undefined || (options.ring === undefined && options.sinkTokens === undefined),
    "argument",
    () =>
      `${label}: ring and sinkTokens are for caches with a window; give window, or leave them out.`,
  );
  const capacity = (options.capacity ??
    (window === undefined ? undefined : RING_CAPACITY)) as number;
  whole(label, "capacity", capacity, 1, STATE_LIMIT - 1);
  const { maxCapacity = capacity } = options;
  whole(label, "maxCapacity", maxCapacity, capacity, STATE_LIMIT - 1);
  let ring = 0;
  if (window !== undefined) {
    whole(label, "window", window, 0);
    whole(label, "sinkTokens", sinkTokens, 0);
    ring = options.ring ?? window + RING_SLACK;
    whole(label, "ring", ring, window + 1);
  }
  const rows = resolveRows(label, options, headDim, vDim);
  // A smaller capacity saves no memory of a ring, so it has the largest one at once.
  const limits = { capacity: ring > 0 ? maxCapacity : capacity, maxCapacity };
  return { label, batch, kvHeads, headDim, vDim, ...limits, window, ring, sinkTokens, rows };
}

/** Throws FoveaError("argument") unless the value is a whole number in a range. */
export function whole(
  label: string,
  name: string,
  value: unknown,
  least: number,
  most = 2 ** 29 - 1,
): void {
  check(
    Number.isInteger(value) && (value as number) >= least && (value as number) <= most,
    "argument",
    () => `${label}: ${name} must be a whole number from ${least} to ${most}, got ${show(value)}.`,
  );
}

/** Bits of an element of the quantised types. */
const BITS = { int8: 8, int4: 4 } as const;

/** How rows of these head dims are stored. */
export function resolveRows(
  label: string,
  options: RowOptions,
  headDim: number,
  vDim: number,
): ResolvedRows {
  const { dtype = "f32", groupSize } = options;
  check(
    FLOATS.includes(dtype as FloatDtype) || Object.hasOwn(BITS, dtype),
    "argument",
    () => `${label}: dtype must be "f32", "f16", "bf16", "int8" or "int4", got ${show(dtype)}.`,
  );
  if (dtype !== "int8" && dtype !== "int4") {
    check(
      groupSize === undefined,
      "argument",
      () => `${label}: groupSize is for int8 and int4; rows of ${dtype} have no scales.`,
    );
    // Rows are whole vec4s: no two of them share a word, and attention may read them as vec4s.
    const padded = (dim: number) => 4 * Math.ceil(dim / 4);
    return { dtype, quantised: undefined, kElements: padded(headDim), vElements: padded(vDim) };
  }
  const groups = typeof groupSize === "object" ? groupSize : { k: groupSize, v: groupSize };
  const group = (name: "k" | "v", dim: number) => {
    const size = groups?.[name] ?? dim;
    check(
      size === dim || (Number.isInteger(size) && size > 0 && size % 8 === 0 && dim % size === 0),
      "argument",
      () =>
        `${label}: groupSize of ${name} must be ${dim}, its head dim, or a multiple of 8 that divides it, got ${show(size)}.`,
    );
    return size;
  };
  const bits = BITS[dtype];
  const quantised: Quantisation = { bits, groupK: group("k", headDim), groupV: group("v", vDim) };
  return {
    dtype: "u32",
    quantised,
    kElements: quantisedWords(headDim, bits, quantised.groupK),
    vElements: quantisedWords(vDim, bits, quantised.groupV),
  };
}

/** The norm of a cache, with its weights as numbers. */
export async function resolveNorm(
  label: string,
  norm: QkNorm | undefined,
  headDim: number,
): Promise<ResolvedNorm | undefined> {
  if (norm === undefined) return undefined;
  check(
    typeof norm === "object" && norm !== null,
    "argument",
    () => `${label}: qkNorm must be { q?, k?, epsilon? }, got ${show(norm)}.`,
  );
  checkNames(`${label}: qkNorm`, norm, QK_NORM);
  const { epsilon = 1e-6 } = norm;
  check(
    typeof epsilon === "number" && Number.isFinite(epsilon) && epsilon >= 0,
    "argument",
    () => `${label}: qkNorm.epsilon must be a number from 0 up, got ${show(epsilon)}.`,
  );
  const weights = async (name: "q" | "k") => {
    const given = norm[name];
    if (given === undefined) return undefined;
    const values = Float32Array.from(given instanceof Tensor ? await given.read() : given);
    check(
      values.length === headDim && values.every(Number.isFinite),
      "argument",
      () =>
        `${label}: qkNorm.${name} must be ${headDim} finite numbers, one a channel, got ${values.length}.`,
    );
    return values;
  };
  return { epsilon, q: await weights("q"), k: await weights("k") };
}

/** The checked rotary embedding of a cache. */
export function resolveRotation(
  label: string,
  options: RotaryOptions | undefined,
  { headDim, capacity }: Pick<ResolvedCache, "headDim" | "capacity">,
): ResolvedRotary | undefined {
  if (options === undefined) return undefined;
  check(
    options !== null,
    "argument",
    () => `${label}: rotary must be options of a rotary embedding, got null.`,
  );
  check(
    capacity <= ANGLE_POSITIONS,
    "argument",
    () =>
      `${label}: rotary positions end at ${ANGLE_POSITIONS}; a capacity of ${capacity} goes beyond.`,
  );
  return resolveRotary(
    `${label}: rotary`,
    headDim,
    takeOptions(`${label}: rotary`, options, ROTARY_OPTIONS),
  );
}

/** Makes the tables of its angles on the GPU. */
export function anglesOf(device: GPUDevice, label: string, resolved: ResolvedRotary): CacheRotary {
  const { frequencies, attentionFactor, ...choice } = resolved;
  const data = angleTables(frequencies, attentionFactor);
  const angles = tensor(device, angleTablesShape(frequencies.length), {
    data,
    label: `${label} angles`,
  });
  return { choice: { ...choice, angles: "tables" }, angles };
}
