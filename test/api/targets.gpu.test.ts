// A plan is encoded into a pass or an encoder, and into nothing else. A refused call leaves nothing
// behind.

import { describe, expect, it } from "vitest";
import {
  planAttention,
  planLinearAttention,
  planMerge,
  planSoftmax,
  tensor,
} from "../../src/index.ts";
import { counted } from "../support/counted.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

/** Targets that take no compute work. */
const TARGETS: readonly [what: string, target: (device: GPUDevice) => unknown, shown: string][] = [
  ["null", () => null, "null"],
  ["undefined", () => undefined, "undefined"],
  ["a number", () => 5, "5"],
  ["a text", () => "encoder", '"encoder"'],
  ["an empty object", () => ({}), "{  }"],
  ["a device", (device) => device, "a GPUDevice"],
  [
    "a finished command buffer",
    (device) => device.createCommandEncoder().finish(),
    "a GPUCommandBuffer",
  ],
  ["something half like an encoder", () => ({ beginComputePass: true }), "{ beginComputePass }"],
  ["something half like a pass", () => ({ dispatchWorkgroups() {} }), "{ dispatchWorkgroups }"],
  [
    "something that throws when looked at",
    () => ({
      get beginComputePass() {
        throw new Error("no");
      },
    }),
    "{ beginComputePass }",
  ],
];

/** Plans with one kernel and with several, made once. */
let made: ReturnType<typeof makePlans> | undefined;
async function makePlans() {
  const { device, count } = counted(await testDevice());
  const make = (...shape: number[]) => tensor(device, shape);
  const q = make(1, 1, 4, 4);
  const output = make(1, 1, 4, 4);
  const lse = make(1, 1, 4);
  const partial = { output: make(1, 1, 4, 4), lse: make(1, 1, 4) };
  const plans: Record<string, { encode(target: GPUCommandEncoder): void }> = {
    attention: await planAttention(device, { q, k: q, v: q, output, variant: "8x32" }),
    mergeAttention: await planMerge(device, { partials: [partial, partial], output, lse }),
    linearAttention: await planLinearAttention(device, { q, k: q, v: q, output }),
    softmax: await planSoftmax(device, { x: q, output }),
  };
  return { plans, count };
}

describe("encode refuses", () => {
  it.each(TARGETS)("%s, of every plan, and has then bound nothing", async (_, target, shown) => {
    made ??= makePlans();
    const { plans, count } = await made;
    const bound = count.bindGroups;
    const given = target(await testDevice());
    for (const [label, plan] of Object.entries(plans)) {
      await expectError(
        () => plan.encode(given as GPUCommandEncoder),
        "argument",
        `${label}: encode takes a GPUComputePassEncoder or a GPUCommandEncoder, got ${shown}.`,
      );
    }
    expect(count.bindGroups).toBe(bound);
  });
});
