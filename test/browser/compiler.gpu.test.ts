// What the kernels rely on in the browser's compiler. Chromium 156 on SwiftShader does not zero a
// variable again that a loop declares without an initial value; with one, as all shaders here have
// it, every turn starts with that value.

import { expect, it } from "vitest";
import { failOnGpuErrors, testDevice } from "../support/device.ts";

failOnGpuErrors();

/** Runs a kernel of this body with a loop of five turns, and returns its output. */
async function run(body: string): Promise<number[]> {
  const device = await testDevice();
  const code = `
    @group(0) @binding(0) var<storage, read_write> out: array<f32>;
    @group(0) @binding(1) var<uniform> turns: vec4u;
    @compute @workgroup_size(1) fn main() {
      for (var i = 0u; i < turns.x; i++) { ${body} for (var j = 0u; j < turns.x; j++) { sum += 1.0; } out[i] = sum; }
    }`;
  const module = device.createShaderModule({ code });
  const pipeline = await device.createComputePipelineAsync({ layout: "auto", compute: { module } });
  const out = device.createBuffer({ size: 32, usage: 128 | 4 });
  const turns = device.createBuffer({ size: 16, usage: 64 | 8 });
  const staging = device.createBuffer({ size: 32, usage: 1 | 8 });
  device.queue.writeBuffer(turns, 0, new Uint32Array([5, 0, 0, 0]));
  const entries = [out, turns].map((buffer, binding) => ({ binding, resource: { buffer } }));
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
  pass.dispatchWorkgroups(1);
  pass.end();
  encoder.copyBufferToBuffer(out, 0, staging, 0, 32);
  device.queue.submit([encoder.finish()]);
  await staging.mapAsync(1);
  const values = [...new Float32Array(staging.getMappedRange())].slice(0, 5);
  for (const buffer of [out, turns, staging]) buffer.destroy();
  return values;
}

it("a variable of a loop with an initial value starts with it in every turn", async () => {
  expect(await run("var sum = f32();")).toEqual([5, 5, 5, 5, 5]);
});
