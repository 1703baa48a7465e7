// A kernel of multiply-adds alone, by which everything is measured that arithmetic limits.

import { compileKernel } from "../src/gpu/pipelines.ts";
import { tensor } from "../src/index.ts";
import { worstElement } from "../src/reference/index.ts";
import { type Dims, flopsOf } from "./cost.ts";
import type { Implementation } from "./harness.ts";
import peak from "./peak.wgsl?raw";

const WG_SIZE = 64;
/** Operations of an invocation in a turn: 32 chains of 8 multiply-adds. */
const TURN_FLOPS = 2 * 32 * 8;
/** Turns that hide the start and the end of an invocation, and invocations that fill any device. */
const TURNS = 64;
const INVOCATIONS = 2 ** 20;

/** Sizes the work to about as many operations as attention of a problem has. */
function workOf(dims: Dims) {
  const groups = Math.ceil(flopsOf(dims) / (TURN_FLOPS * TURNS * WG_SIZE));
  const invocations = WG_SIZE * Math.min(Math.max(1, groups), INVOCATIONS / WG_SIZE);
  const turns = Math.max(1, Math.round(flopsOf(dims) / (TURN_FLOPS * invocations)));
  return { invocations, turns, flops: TURN_FLOPS * invocations * turns };
}

/** f32 multiply-adds in registers, about as many as attention has of them. */
export const PEAK: Implementation = {
  name: "fma",
  bytes: (dims) => 16 * workOf(dims).invocations,
  flops: (dims) => workOf(dims).flops,
  async plan(device, _, dims) {
    const { invocations, turns } = workOf(dims);
    const { pipeline, layout } = await compileKernel(device, {
      label: "fma",
      code: peak,
      locate: (line: number) => ({ module: "bench/peak.wgsl", line }),
      bindings: [
        { binding: 0, name: "peak", type: "uniform" },
        { binding: 1, name: "sums", type: "storage" },
      ],
    });
    const sums = tensor(device, [invocations, 4], { label: "sums" });
    // UNIFORM | COPY_DST
    const shape = device.createBuffer({ label: "fma", size: 16, usage: 0x40 | 0x8 });
    const bytes = new DataView(new ArrayBuffer(16));
    bytes.setUint32(0, turns, true);
    bytes.setFloat32(4, 1, true);
    bytes.setFloat32(8, 1, true);
    device.queue.writeBuffer(shape, 0, bytes.buffer);
    const entries = [shape, sums.buffer].map((buffer, binding) => ({
      binding,
      resource: { buffer },
    }));
    const group = device.createBindGroup({ label: "fma", layout, entries });
    return {
      kernel: "fma",
      workspaceBytes: 0,
      encode(pass) {
        pass.setPipeline(pipeline);
        pass.setBindGroup(0, group, [0]);
        pass.dispatchWorkgroups(invocations / WG_SIZE);
      },
      /**
       * Checks whole numbers, which f32 holds exactly: every chain ends 8 turns above its start.
       */
      async verify() {
        const expected = Float64Array.from(
          { length: sums.size },
          (_, i) => 8 * ((Math.floor(i / 4) % WG_SIZE) + 16 * (i % 4) + 8 * turns) + 28,
        );
        const worst = worstElement(await sums.read(), expected, [sums.size]);
        const rows = sums.size;
        return {
          correct: worst.error === 0,
          maxError: worst.error,
          bound: 0,
          worst,
          rows,
          ofRows: rows,
        };
      },
      destroy() {
        sums.destroy();
        shape.destroy();
      },
    };
  },
};
