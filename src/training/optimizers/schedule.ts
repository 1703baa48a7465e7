// Schedules of the learning rate. The GPU evaluates them (shaders/optimizer_advance.wesl).

import { check, show } from "../../errors.ts";
import { digitsOf, SCHEDULE } from "../../kernels/training/optimizer.ts";
import type { UniformValues } from "../../kernels/uniform.ts";
import { checkNames } from "../../options.ts";

/**
 * The factor of the learning rates for update t = 0, 1, ...:
 *
 * - `constant`: 1
 * - `linear`: from startFactor to endFactor over totalSteps updates, then endFactor
 * - `cosine`: minFactor + (1 - minFactor) (1 + cos(pi t / totalSteps)) / 2, then minFactor
 * - `step`: gamma^floor(t / stepSize)
 * - `warmup_cosine`, `warmup_linear`: (t + warmupOffset) / warmupSteps for the first warmupSteps
 *   updates; then the cosine, or (totalSteps - t) / (totalSteps - warmupSteps), over the rest of
 *   totalSteps
 *
 * Defaults: startFactor 1, endFactor 0, minFactor 0, gamma 0.1, warmupOffset 1. Steps are updates.
 * gamma is from 0 to 1.
 */
export type Schedule =
  | { readonly kind: "constant" }
  | {
      readonly kind: "linear";
      readonly totalSteps: number;
      readonly startFactor?: number;
      readonly endFactor?: number;
    }
  | { readonly kind: "cosine"; readonly totalSteps: number; readonly minFactor?: number }
  | { readonly kind: "step"; readonly stepSize: number; readonly gamma?: number }
  | {
      readonly kind: "warmup_cosine";
      readonly warmupSteps: number;
      readonly totalSteps: number;
      readonly warmupOffset?: number;
      readonly minFactor?: number;
    }
  | {
      readonly kind: "warmup_linear";
      readonly warmupSteps: number;
      readonly totalSteps: number;
      readonly warmupOffset?: number;
    };

const NUMBERS = {
  constant: [],
  linear: ["totalSteps", "startFactor", "endFactor"],
  cosine: ["totalSteps", "minFactor"],
  step: ["stepSize", "gamma"],
  warmup_cosine: ["warmupSteps", "totalSteps", "warmupOffset", "minFactor"],
  warmup_linear: ["warmupSteps", "totalSteps", "warmupOffset"],
} as const;

/** Numbers that count updates, which have no defaults. */
const COUNTS: readonly string[] = ["totalSteps", "stepSize", "warmupSteps"];
const MOST_STEPS = 2 ** 32 - 1;

/** Checks a schedule. Gives the values of the kernel's uniform that follow from it. */
export function resolveSchedule(
  label: string,
  schedule: Schedule = { kind: "constant" },
): UniformValues {
  check(
    typeof schedule === "object" && schedule !== null && Object.hasOwn(NUMBERS, schedule.kind),
    "argument",
    () =>
      `${label}: schedule must be { kind, ... }, of the kinds ${Object.keys(NUMBERS).join(", ")}, got ${show(schedule?.kind ?? schedule)}.`,
  );
  const names: readonly string[] = NUMBERS[schedule.kind];
  const kinds = Object.fromEntries(names.map((name) => [name, "number"] as const));
  checkNames(`${label}: schedule`, schedule, { kind: "string", ...kinds });
  const given = schedule as unknown as Readonly<Record<string, number | undefined>>;
  for (const name of names) {
    const value = given[name];
    const counts = COUNTS.includes(name);
    const isRight = counts
      ? Number.isInteger(value) && (value as number) >= 1 && (value as number) <= MOST_STEPS
      : value === undefined || (Number.isFinite(Math.fround(value)) && value >= 0);
    check(
      isRight && !(name === "gamma" && (value ?? 0) > 1),
      "argument",
      () =>
        `${label}: schedule.${name} must be ${counts ? `a whole number from 1 to ${MOST_STEPS}` : name === "gamma" ? "a number from 0 to 1" : "a number from 0 up"}, got ${show(value)}.`,
    );
  }
  const { warmupSteps = 0, totalSteps = 0, stepSize = 1, gamma = 0.1 } = given;
  check(
    warmupSteps <= totalSteps,
    "argument",
    () =>
      `${label}: schedule.totalSteps counts the warm-up, too: it must be ${warmupSteps} or more, got ${totalSteps}.`,
  );
  const shape = schedule.kind.replace("warmup_", "") as keyof typeof SCHEDULE;
  const isStill = shape === "constant" || (shape === "step" && gamma === 1);
  return {
    kind: isStill ? SCHEDULE.constant : SCHEDULE[shape],
    warmup_steps: warmupSteps,
    total_steps: totalSteps,
    step_steps: stepSize,
    gamma: digitsOf(isStill ? 0 : gamma),
    warmup_offset: given.warmupOffset ?? 1,
    first_factor: given.startFactor ?? 1,
    last_factor: given.minFactor ?? given.endFactor ?? 0,
  };
}
