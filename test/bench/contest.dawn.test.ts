// A case of suite `scale` is checked against float64 by its window, and timed in no more rounds
// than are enough.

import { expect, it } from "vitest";
import { attentionContest } from "../../bench/attention.ts";
import { contestSteps, runContests } from "../../bench/peers/contest.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";

failOnGpuErrors();

const dims = { B: 1, H: 2, Hkv: 2, M: 300, N: 300, D: 8, Dv: 8, causal: true };

it("a window is computed and checked as such", async () => {
  const device = await testDevice();
  const windowed = attentionContest("windowed", { ...dims, window: 40 }, { mostRounds: 2 });
  const whole = attentionContest("whole", dims);
  const steps: string[] = [];
  const options = {
    rounds: 3,
    onStep: () => steps.push("step"),
    note: (text: string) => steps.push(text),
  };
  const [row] = await runContests(device, "scale", [windowed], options);
  expect(row).toMatchObject({
    impl: "fovea",
    correct: true,
    rounds: 2,
    dispatches: 1,
    workspaceBytes: 0,
  });
  expect(steps).toEqual(["step", "step", "step"]);
  expect([contestSteps(windowed, 3), contestSteps(whole, 3)]).toEqual([3, 4]);

  // The same rows without the window have other results, which the check would notice.
  const mixed = { ...windowed, expected: whole.expected };
  expect(await runContests(device, "scale", [mixed], options)).toMatchObject([{ correct: false }]);
});
