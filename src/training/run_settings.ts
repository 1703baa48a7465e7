// How a run of a program goes.

import { check, show } from "../errors.ts";
import type { OptionNames } from "../given.ts";
import { takeOptions } from "../options.ts";

/** How a run goes. */
export interface RunSettings {
  /**
   * Whether the optimizer changes the parameters at the end. `"accumulate"` adds the gradients up
   * for a later run that does; the optimizer's `accumulationSteps` counts both. Default true.
   */
  readonly update?: boolean | "accumulate";
}

const RUN_SETTINGS: OptionNames<RunSettings> = { update: "any" };

/** What a run does with its gradients. */
export function updateOf(label: string, settings: RunSettings): boolean | "accumulate" {
  const { update = true } = takeOptions(label, settings, RUN_SETTINGS);
  check(
    typeof update === "boolean" || update === "accumulate",
    "argument",
    () => `${label}: update must be true, false or "accumulate", got ${show(update)}.`,
  );
  return update;
}
