// Factors of the learning rate in float64.

/** A schedule. Names and defaults are those of `planOptimizer`. */
export interface ReferenceSchedule {
  readonly kind: "constant" | "linear" | "cosine" | "step" | "warmup_cosine" | "warmup_linear";
  readonly totalSteps?: number;
  readonly warmupSteps?: number;
  readonly warmupOffset?: number;
  readonly startFactor?: number;
  readonly endFactor?: number;
  readonly minFactor?: number;
  readonly stepSize?: number;
  readonly gamma?: number;
}

/** The factor of update t = 0, 1, ... */
export function rateFactor(schedule: ReferenceSchedule | undefined, t: number): number {
  if (!schedule) return 1;
  const { kind, totalSteps = 1, warmupSteps = 0, warmupOffset = 1 } = schedule;
  const { startFactor = 1, endFactor = 0, minFactor = 0, stepSize = 1, gamma = 0.1 } = schedule;
  if (t < warmupSteps) return (t + warmupOffset) / warmupSteps;
  const progress = Math.min(1, (t - warmupSteps) / (totalSteps - warmupSteps || 1));
  switch (kind) {
    case "constant":
      return 1;
    case "linear":
      return startFactor + (endFactor - startFactor) * progress;
    case "cosine":
    case "warmup_cosine":
      if (t >= totalSteps) return minFactor;
      return minFactor + ((1 - minFactor) * (1 + Math.cos(Math.PI * progress))) / 2;
    case "step":
      return gamma ** Math.floor(t / stepSize);
    case "warmup_linear":
      return t >= totalSteps ? 0 : 1 - progress;
  }
}
