// The temperature of each head: a learned factor of its scores, or the logarithm of one.

import { check, show } from "../errors.ts";
import type { PerHead } from "../plan/specs.ts";
import type { Descriptor } from "./descriptor.ts";
import { checkNumbers, LARGEST, perHead } from "./numbers.ts";

/** The largest temperature: beyond it, scores of ordinary q and k leave f32. */
const LARGEST_TEMPERATURE = 2 ** 64;

/** Describes `temperature`, `logTemperature` and `maxTemperature`. */
export const TEMPERATURE: Descriptor = ({ label, options, tensors: { heads } }) => {
  const { temperature, logTemperature, maxTemperature } = options;
  check(
    temperature === undefined || logTemperature === undefined,
    "argument",
    () => `${label}: temperature and logTemperature say the same; give one of them.`,
  );
  check(
    maxTemperature === undefined ||
      (logTemperature !== undefined && maxTemperature > 0 && maxTemperature <= LARGEST_TEMPERATURE),
    "argument",
    () =>
      `${label}: maxTemperature is a positive number up to ${LARGEST_TEMPERATURE} beside logTemperature, got ${show(maxTemperature)}.`,
  );
  const kind =
    temperature !== undefined ? "plain" : logTemperature !== undefined ? "log" : undefined;
  if (!kind) return undefined;
  const name = kind === "log" ? "logTemperature" : "temperature";
  const values = perHead(options[name] as number | PerHead, heads);
  checkNumbers(
    `${label}: ${name}`,
    values,
    [[heads]],
    kind === "log" ? LARGEST : LARGEST_TEMPERATURE,
  );
  return {
    keeps: "scores",
    slots: { temperature: kind },
    tables: [{ at: "temperature_at", name, values, dtype: "f32" }],
    params: () => ({ max_temperature: maxTemperature ?? 100 }),
    word: "temperature",
  };
};
