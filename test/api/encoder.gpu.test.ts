// One-line calls into a caller's encoder are recorded, not submitted. Results are right once the
// caller has submitted, and nothing is left behind.

import { describe, expect, it } from "vitest";
import {
  attention,
  copyTensor,
  gelu,
  mergeAttention,
  softmax,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import { normal } from "../../src/reference/random.ts";
import { counted } from "../support/counted.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

const variant = "8x32";

describe("the option encoder", () => {
  it("puts many calls into one submission, each from the results of those before", async () => {
    const { device, count, buffers } = counted(await testDevice());
    const q = tensor(device, [1, 2, 8, 8], { data: normal(1, 128) });
    const chain = async (encoder?: GPUCommandEncoder | GPUComputePassEncoder) => {
      const run = encoder ? { encoder } : {};
      const first = await attention(q, q, q, { variant, lse: true, ...run });
      const lse = first.lse as Tensor;
      const merged = await mergeAttention([first, { output: q, lse }], run);
      const soft = await softmax(merged.output, run);
      const last = await gelu(soft.output, run);
      return {
        last: last.output,
        made: [first.output, lse, merged.output, merged.lse, soft.output, last.output],
      };
    };
    const expected = await chain();
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    const submits = count.submits;
    const recorded = await chain(pass);
    expect(count.submits).toBe(submits);
    pass.end();
    device.queue.submit([encoder.finish()]);
    expect(await recorded.last.read()).toEqual(await expected.last.read());
    for (const one of [q, ...expected.made, ...recorded.made]) one.destroy();
    expect(buffers()).toBe(0); // the plans went with their results
  });

  it("refuses what isn't an encoder, and frees what it had", async () => {
    const { device, buffers } = counted(await testDevice());
    const q = tensor(device, [1, 1, 4, 4]);
    for (const encoder of [null, {}, 5, device]) {
      await expectError(
        () => attention(q, q, q, { variant, encoder: encoder as unknown as GPUCommandEncoder }),
        "argument",
        /^attention: encode takes a GPUComputePassEncoder or a GPUCommandEncoder, got /,
      );
    }
    const finished = device.createCommandEncoder();
    finished.finish();
    await expectError(() => copyTensor(q, { encoder: finished }), "validation", /copyTensor/);
    q.destroy();
    expect(buffers()).toBe(0);
  });
});
