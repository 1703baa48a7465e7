// Options that no caller means: of every public function each option with each hostile value ends in a FoveaError, or
// gives the values of the plain call, or those that float64 gives for what was said; never in a TypeError, an unhandled
// rejection or a hang. A new function is a line in one of the tables.

import { describe, expect, it } from "vitest";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { attack, type Call } from "../support/hostile.ts";
import { attentionCalls } from "../support/hostile_attention.ts";
import { cacheCalls } from "../support/hostile_caches.ts";
import { hostCalls } from "../support/hostile_host.ts";
import { operatorCalls } from "../support/hostile_operators.ts";
import { layerCalls, tensorCalls } from "../support/hostile_tensors.ts";

failOnGpuErrors();

const device = await testDevice();
const calls: readonly Call[] = [
  ...attentionCalls(device),
  ...operatorCalls(device),
  ...tensorCalls(device),
  ...layerCalls(device),
  ...hostCalls(device),
  ...cacheCalls(device),
];
const counted = { tried: 0, taken: 0 };

/** Faults that are still there, each a defect to mend: calls that are not listed have none, and the numbers only fall. */
const KNOWN: Readonly<Record<string, number>> = {
  attention: 3,
  additiveAttention: 1,
  "planAttention and encode": 7,
  attentionWeights: 1,
  topKKeys: 1,
  mergeAttention: 2,
  "parts of mergeAttention": 2,
  tune: 2,
  prewarm: 4,
  gelu: 1,
  copyTensor: 1,
  project: 4,
  rotary: 3,
  positionEncoding: 8,
  relativePositionBias: 12,
  tensor: 6,
  view: 23,
  createGpuTimer: 2,
  MultiHeadAttention: 4,
  glorot: 16,
  allOf: 2,
  anyOf: 2,
  alibiSlopes: 2,
  sinusoidalPositions: 3,
  rotaryFrequencies: 13,
  createBlockMask: 3,
  blockMaskOf: 3,
  createKvCache: 16,
  createPagedKvCache: 2,
  truncate: 2,
  forkEntry: 6,
  "fork of pages": 1,
  batch: 2,
};

describe("hostile values", () => {
  it.each(calls.map((call) => [call.name, call] as const))("in %s", async (_, call) => {
    const { faults, tried, taken } = await attack(call, device).catch((error) => {
      return { faults: [`the attack itself: ${error}`], tried: 0, taken: 0 };
    });
    counted.tried += tried;
    counted.taken += taken;
    expect(faults.length, faults.join("\n")).toBeLessThanOrEqual(KNOWN[call.name] ?? 0);
  });

  it("are many, and some are taken", () => {
    expect(counted.tried).toBeGreaterThanOrEqual(2368);
    expect(counted.taken).toBeGreaterThan(100);
  });
});
