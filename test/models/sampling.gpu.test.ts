// The choice of tokens in a browser, by the kernels of GPUs.

import { it } from "vitest";
import { integers, normal } from "../../src/reference/random.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { asGpu, expectSampled, expectTopTokens } from "../support/sampling.ts";

failOnGpuErrors();

const rows = [normal(1, 2501, 3), Array.from(integers(2, 2501, -6, 6), (x) => x / 2)];
const history = rows.map((_, b) => Array.from(integers(b + 3, 9, 0, 2500)));

it("tokens are chosen as in float64", async () => {
  const device = asGpu(await testDevice());
  const settings = { repetitionPenalty: 1.2, temperature: 0.9, topK: 60, topP: 0.9, minP: 0.01 };
  await expectSampled(device, { rows, history, ...settings, seed: 6, step: 2 });
  await expectSampled(device, { rows, history, topP: 0.9, repetitionPenalty: 1.2, seed: 6 });
  await expectSampled(device, { rows, history, temperature: 0 });
});

it("the largest logits are found", async () => {
  await expectTopTokens(asGpu(await testDevice()), rows, 20);
});
