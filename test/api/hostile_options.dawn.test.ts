// Options that no caller means. In every public function each option with each hostile value ends
// in a FoveaError, or gives the values of the plain call, or those that float64 gives for what was
// said. It never ends in a TypeError, an unhandled rejection or a hang. A new function is a line in
// one of the tables.

import { describe, expect, it } from "vitest";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { attack, type Call, isClose } from "../support/hostile.ts";
import { attentionCalls } from "../support/hostile_attention.ts";
import { cacheCalls } from "../support/hostile_caches.ts";
import { gradientCalls } from "../support/hostile_gradients.ts";
import { hostCalls } from "../support/hostile_host.ts";
import { operatorCalls } from "../support/hostile_operators.ts";
import { recurrentCalls } from "../support/hostile_recurrent.ts";
import { layerCalls, tensorCalls } from "../support/hostile_tensors.ts";

failOnGpuErrors();

const device = await testDevice();
const calls: readonly Call[] = [
  ...attentionCalls(device),
  ...gradientCalls(device),
  ...operatorCalls(device),
  ...tensorCalls(device),
  ...layerCalls(device),
  ...recurrentCalls(device),
  ...hostCalls(device),
  ...cacheCalls(device),
];
const counted = { tried: 0, taken: 0 };

/**
 * One call of every operation, for people who change something: of this file, `npm test -- --quick`
 * runs only these.
 */
describe("good calls", () => {
  it.each(calls.map((call) => [call.name, call] as const))(
    "of %s give what float64 gives",
    async (_, call) => {
      const { args = {}, options } = call;
      const found = await call.run(Object.values(args), options);
      expect(found.length).toBeGreaterThan(0);
      expect(Array.from(found).every(Number.isFinite)).toBe(true);
      if (call.right)
        expect(isClose(found, call.right(args, options ?? {})), `${Array.from(found)}`).toBe(true);
    },
  );
});

describe("hostile values", () => {
  it.each(calls.map((call) => [call.name, call] as const))("in %s", async (_, call) => {
    const { faults, tried, taken } = await attack(call, device).catch((error) => {
      return { faults: [`the attack itself: ${error}`], tried: 0, taken: 0 };
    });
    counted.tried += tried;
    counted.taken += taken;
    expect(faults).toEqual([]);
  });

  it("are many, and some are taken", () => {
    expect(counted.tried).toBeGreaterThanOrEqual(2368);
    expect(counted.taken).toBeGreaterThan(100);
  });
});
