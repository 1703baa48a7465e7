// The copy kernel, by which everything is measured that memory limits.

import { compileKernel } from "../src/gpu/pipelines.ts";
import { type Tensor, tensor } from "../src/index.ts";
import { worstElement } from "../src/reference/index.ts";
import copy from "./copy.wgsl?raw";
import type { Implementation, Memory } from "./harness.ts";

const WG_SIZE = 64;

/** Copies k and v, and counts the bytes read and the bytes written. */
export const COPY: Implementation = {
  name: "copy",
  bytes: ({ B, Hkv, N, D, Dv }) => 2 * 4 * B * Hkv * N * (D + Dv),
  async plan(device) {
    const source = {
      label: "copy",
      code: copy,
      locate: (line: number) => ({ module: "bench/copy.wgsl", line }),
      bindings: [
        { binding: 0, name: "copy", type: "uniform" },
        { binding: 1, name: "source", type: "read-only-storage" },
        { binding: 2, name: "copied", type: "storage" },
      ],
    } as const;
    const { pipeline, layout } = await compileKernel(device, source);
    const made: { destroy(): void }[] = [];
    const copies = new Map<Tensor, { copied: Tensor; group: GPUBindGroup; x: number; y: number }>();
    const copyOf = (given: Tensor) => {
      const vec4s = Math.ceil(given.size / 4);
      const workgroups = Math.ceil(vec4s / WG_SIZE);
      const x = Math.min(workgroups, 65535);
      const copied = tensor(device, [given.size], { label: "copied" });
      // UNIFORM | COPY_DST
      const shape = device.createBuffer({ label: "copy", size: 16, usage: 0x40 | 0x8 });
      device.queue.writeBuffer(shape, 0, new Uint32Array([vec4s, x, 0, 0]));
      made.push(copied, shape);
      const entries = [shape, given.buffer, copied.buffer].map((buffer, binding) => ({
        binding,
        resource: { buffer },
      }));
      const group = device.createBindGroup({ label: "copy", layout, entries });
      const known = { copied, group, x, y: Math.ceil(workgroups / x) };
      copies.set(given, known);
      return known;
    };
    return {
      kernel: "copy",
      workspaceBytes: 0,
      encode(pass, { k, v }: Memory) {
        pass.setPipeline(pipeline);
        for (const given of [k, v]) {
          const { group, x, y } = copies.get(given) ?? copyOf(given);
          pass.setBindGroup(0, group, [0]);
          pass.dispatchWorkgroups(x, y);
        }
      },
      /** Checks that the copies equal k and v, to the bit. */
      async verify({ k, v }) {
        const read = (of: (given: Tensor) => Tensor | undefined) =>
          Promise.all([k, v].map(async (given) => Array.from((await of(given)?.read()) ?? [])));
        const [expected, actual] = await Promise.all([
          read((given) => given),
          read((given) => copies.get(given)?.copied),
        ]);
        const size = k.size + v.size;
        const worst = worstElement(actual.flat(), expected.flat(), [size]);
        return {
          correct: worst.error === 0,
          maxError: worst.error,
          bound: 0,
          worst,
          rows: size,
          ofRows: size,
        };
      },
      destroy() {
        for (const one of made) one.destroy();
      },
    };
  },
};
