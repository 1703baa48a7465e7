// Every rung of the ladder computes the same attention.

import { describe, it } from "vitest";
import { LADDER } from "../../bench/ladder.ts";
import { type Case, runCase, title } from "../support/cases.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";

failOnGpuErrors();

const PROBLEMS: readonly Case[] = [
  { M: 1, N: 1, D: 16 },
  { B: 2, H: 4, Hkv: 2, M: 63, N: 65, D: 16 },
  { H: 2, M: 65, N: 31, D: 16, causal: true },
  { H: 2, M: 37, N: 70, D: 16, causal: true, spread: 60 },
  { B: 3, M: 40, N: 50, D: 16, causal: true, kvLengths: [50, 17, 0] },
  { H: 2, M: 20, N: 33, D: 16, layout: "bmhd" },
  { H: 2, M: 20, N: 33, D: 6, Dv: 5 },
];

describe.each(LADDER)("$name", ({ name, plan }) => {
  const storesLse = name !== "1 naive"; // the naive step has probabilities instead
  for (const problem of PROBLEMS)
    it(title(problem), async () => runCase(await testDevice(), problem, plan, storesLse));
});
