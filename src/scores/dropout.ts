// Dropout of the probabilities.

import { check, show } from "../errors.ts";
import { checkNames } from "../options.ts";
import type { Descriptor } from "./descriptor.ts";

/** Describes `dropout`. A dropout with p = 0 counts as absent. */
export const DROPOUT: Descriptor = ({ label, options: { dropout }, tensors }) => {
  if (dropout === undefined) return undefined;
  check(
    typeof dropout === "object" && dropout !== null,
    "argument",
    () => `${label}: dropout must be { p, seed }, got ${show(dropout)}.`,
  );
  checkNames(`${label}: dropout`, dropout, { p: "number", seed: "number" });
  const { p, seed } = dropout;
  check(
    p >= 0 && p <= 1,
    "argument",
    () => `${label}: dropout.p must be a probability from 0 to 1, got ${p}.`,
  );
  check(
    Number.isSafeInteger(seed) && seed >= 0,
    "argument",
    () => `${label}: dropout.seed must be a whole number from 0 up to 2^53, got ${seed}.`,
  );
  const rows = tensors.heads * tensors.rowsQ * tensors.batch;
  check(
    rows < 2 ** 32,
    "limit",
    () => `${label}: dropout numbers rows of B * H * M below 2^32; there are ${rows}.`,
  );
  const kept = 1 - p;
  if (kept === 1) return undefined;
  return {
    keeps: "scores",
    slots: { dropout: true },
    params: () => ({
      seed_low: seed % 2 ** 32,
      seed_high: Math.floor(seed / 2 ** 32),
      keep_below: Math.floor(kept * 2 ** 32),
      keep_factor: p < 1 ? 1 / kept : 0,
    }),
  };
};
