// A call leaves nothing behind. Objects and bytes are counted at the device.

import { describe, expect, it } from "vitest";
import { attention, planAttention, type Tensor, tensor } from "../../src/index.ts";
import { integers, normal } from "../../src/reference/random.ts";
import { counted } from "../support/counted.ts";
import { failOnGpuErrors, overridden, testDevice } from "../support/device.ts";

failOnGpuErrors();

const make = (device: GPUDevice, seed: number, shape: number[]) =>
  tensor(device, shape, {
    data: normal(
      seed,
      shape.reduce((product, size) => product * size, 1),
    ),
  });

describe("a thousand calls", () => {
  it("of any lengths leave memory and objects as they were, and compile once", async () => {
    const { device, count, buffers, bytes } = counted(await testDevice());
    const [k, v] = [1, 2].map((seed) => make(device, seed, [2, 2, 64, 8]));
    const q = make(device, 3, [2, 4, 16, 8]);
    const sizes = integers(7, 3000, 1, 64);
    const call = async (index: number) => {
      const [queries, n, kept] = sizes.slice(3 * index, 3 * index + 3);
      const m = Math.ceil(queries / 4); // few, since they cost time, and memory depends on the call
      const lengths = [Math.min(n, kept), n];
      const options = {
        causal: index % 2 === 0,
        kvLengths: lengths,
        lse: true,
        variant: "8x32",
      } as const;
      const { output, lse } = await attention(
        q.slice(2, 0, m),
        k.slice(2, 0, n),
        v.slice(2, 0, n),
        options,
      );
      output.destroy();
      lse?.destroy();
    };
    await call(0);
    const before = [buffers(), bytes(), count.pipelines, count.modules];
    expect(count.pipelines).toBe(1);
    for (let index = 1; index < 1000; index += 27) {
      await Promise.all(Array.from({ length: 27 }, (_, next) => call(index + next)));
    }
    expect([buffers(), bytes(), count.pipelines, count.modules]).toEqual(before);
    expect(count.buffersMade).toBeGreaterThan(4000); // the counter works
    for (const used of [q, k, v]) used.destroy();
    expect(buffers()).toBe(0);
  });

  it("that fail leave nothing either", async () => {
    const { device, buffers } = counted(await testDevice());
    const q = make(device, 1, [1, 1, 4, 4]);
    const other = make(device, 2, [1, 1, 4, 8]);
    const before = buffers();
    for (let index = 0; index < 100; index++) {
      await expect(attention(q, q, q, { kvLengths: [9] })).rejects.toThrow("kvLengths");
      await expect(attention(q, other, q)).rejects.toThrow("head dim");
      await expect(attention(q, q, q, { kvLengths: [3], output: q })).rejects.toThrow("GPUBuffer");
      await expect(attention(q, q, q, { kvLengths: [3], variant: "none" })).rejects.toThrow(
        "variant",
      );
    }
    expect(buffers()).toBe(before);
  });
});

describe("encode", () => {
  it("allocates, submits and compiles nothing, and binds the same tensors once", async () => {
    const { device, count, buffers } = counted(await testDevice());
    const tensors = [1, 2, 3, 4].map((seed) => make(device, seed, [1, 2, 16, 8]));
    const [q, k, v, output] = tensors;
    const plan = await planAttention(device, { q, k, v, causal: true, variant: "8x32" });
    expect(plan.workspaceBytes).toBe(0);
    expect(plan.kernel).toBe("forward 8x32");
    const before = { ...count };
    const alive = buffers();
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (let again = 0; again < 50; again++) plan.encode(pass, { output });
    pass.end();
    device.queue.submit([encoder.finish()]);
    expect(count).toEqual({
      ...before,
      bindGroups: before.bindGroups + 1,
      submits: before.submits + 1,
    });
    expect(buffers()).toBe(alive);
    for (const used of [...tensors, plan]) used.destroy();
    expect(buffers()).toBe(0);
  });
  it("labels every object", async () => {
    const real = await testDevice();
    const labels = new Set<string | undefined>();
    const noting = (
      name:
        | "createBuffer"
        | "createBindGroup"
        | "createComputePipelineAsync"
        | "createShaderModule",
    ) => ({
      [name]: (descriptor: GPUObjectDescriptorBase) => {
        labels.add(descriptor.label);
        return (real[name] as (d: unknown) => unknown).call(real, descriptor);
      },
    });
    const device = overridden(real, {
      ...noting("createBuffer"),
      ...noting("createBindGroup"),
      ...noting("createComputePipelineAsync"),
      ...noting("createShaderModule"),
    });
    const q: Tensor = tensor(device, [1, 1, 4, 8], { label: "q" });
    const { output } = await attention(q, q, q, {
      label: "layer 1",
      kvLengths: [4],
      variant: "8x32",
    });
    expect([...labels].sort()).toEqual(
      ["forward 8x32", "layer 1", "layer 1 tables", "layer 1 output", "layer 1 params", "q"].sort(),
    );
    q.destroy();
    output.destroy();
  });
});
