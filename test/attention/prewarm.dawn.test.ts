// Warming up while memory is short.

import { expect, it } from "vitest";
import { type AttentionProblem, planAttention, prewarm } from "../../src/index.ts";
import { overridden, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import { idle } from "../support/idle.ts";

const rows = (heads: number, tokens: number) => ({ shape: [1, heads, tokens, 8] });
/** One query over keys that are split, which takes memory for the parts. */
const TOKEN: AttentionProblem = { q: rows(2, 1), k: rows(2, 600), v: rows(2, 600), kvSplits: 3 };

it("prewarm compiles the kernels of a problem whose memory can't be had now", async () => {
  const real = idle(await testDevice());
  let asked = false;
  let popped = 0;
  const poor = overridden(real, {
    createBuffer: (descriptor: GPUBufferDescriptor) => {
      asked ||= (descriptor.usage & 0x80) !== 0; // GPUBufferUsage.STORAGE
      return real.createBuffer(descriptor);
    },
    // Of three scopes, the one for memory is pushed first and popped last.
    popErrorScope: async () => {
      const isMemory = asked && popped++ % 3 === 2;
      const error = await real.popErrorScope();
      return isMemory ? { message: "none left" } : error;
    },
  });
  await expectError(() => planAttention(poor, TOKEN), "out-of-memory", /none left/);
  [asked, popped] = [false, 0];
  await expect(prewarm(poor, [TOKEN])).resolves.toBeUndefined();
});
