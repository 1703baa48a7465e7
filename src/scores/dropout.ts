// Dropout of the probabilities.

import { check, show } from "../errors.ts";
import { Tensor } from "../gpu/tensor.ts";
import { checkNames } from "../options.ts";
import type { Descriptor, Table } from "./descriptor.ts";

/** Describes `dropout`. A dropout with p = 0 counts as absent. */
export const DROPOUT: Descriptor = ({ label, options: { dropout }, tensors }) => {
  if (dropout === undefined) return undefined;
  check(
    typeof dropout === "object" && dropout !== null,
    "argument",
    () => `${label}: dropout must be { p, seed, step }, got ${show(dropout)}.`,
  );
  checkNames(`${label}: dropout`, dropout, { p: "number", seed: "number", step: "any" });
  const { p, seed, step = 0 } = dropout;
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
  checkStep(`${label}: dropout.step`, step);
  const rows = tensors.heads * tensors.rowsQ * tensors.batch;
  check(
    rows < 2 ** 32,
    "limit",
    () => `${label}: dropout numbers rows of B * H * M below 2^32; there are ${rows}.`,
  );
  const kept = 1 - p;
  if (kept === 1) return undefined;
  const isStored = step instanceof Tensor;
  const stored: Table[] = isStored
    ? [{ at: "dropout_step_at", name: "dropoutStep", values: step, dtype: "i32" }]
    : [];
  return {
    keeps: "scores",
    slots: { dropout: isStored ? "stepped" : "seeded" },
    tables: stored,
    word: "dropout",
    params: () => ({
      seed_low: seed % 2 ** 32,
      seed_high: (Math.floor(seed / 2 ** 32) + (isStored ? 0 : step)) % 2 ** 32,
      keep_below: Math.floor(kept * 2 ** 32),
      keep_factor: p < 1 ? 1 / kept : 0,
    }),
  };
};

function checkStep(what: string, step: unknown): void {
  const isRight =
    step instanceof Tensor
      ? /^[ui]32$/.test(step.dtype) && step.shape.length <= 1 && step.size === 1
      : Number.isSafeInteger(step) && (step as number) >= 0 && (step as number) < 2 ** 32;
  check(
    isRight,
    "argument",
    () => `${what} must be a whole number below 2^32, or a u32 or i32 tensor [] or [1].`,
  );
}
