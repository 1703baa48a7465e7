// The softcap: scores approach a bound.

import { check } from "../errors.ts";
import type { Descriptor } from "./descriptor.ts";

/** The smallest softcap: a device may take smaller numbers for 0. */
const SMALLEST_NORMAL = 2 ** -126;

/** Describes `softcap`. */
export const SOFTCAP: Descriptor = ({ label, options: { softcap } }) => {
  check(
    softcap === undefined || (Number.isFinite(Math.fround(softcap)) && softcap >= 0),
    "argument",
    () => `${label}: softcap must be a positive number of f32, or 0 for none, got ${softcap}.`,
  );
  if (!softcap) return undefined;
  return {
    keeps: "nothing",
    bounds: true,
    slots: { softcap: true },
    params: () => ({ softcap: Math.max(softcap, SMALLEST_NORMAL) }),
  };
};
