// An empty kernel over the same buffers. It shows what a dispatch costs before anything is
// computed.

import type { Contestant, Input } from "./contest.ts";
import { upload } from "./fovea.ts";

const SHADER = `
@group(0) @binding(0) var<storage, read> q: array<f32>;
@group(0) @binding(1) var<storage, read> k: array<f32>;
@group(0) @binding(2) var<storage, read> v: array<f32>;
@group(0) @binding(3) var<storage, read_write> o: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x == 0) {
    o[0] = q[0] + k[0] + v[0];
  }
}`;

/** Makes a yardstick, whose result is not attention. */
export async function bareDispatch(
  device: GPUDevice,
  inputs: readonly Input[],
): Promise<Contestant> {
  const tensors = upload(device, [...inputs, inputs[0]]);
  const module = device.createShaderModule({ code: SHADER });
  const pipeline = await device.createComputePipelineAsync({ layout: "auto", compute: { module } });
  const entries = tensors.map(({ buffer }, binding) => ({ binding, resource: { buffer } }));
  const group = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
  return {
    kernel: "bare dispatch",
    workspaceBytes: 0,
    yardstick: true,
    run() {
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(1);
      pass.end();
      device.queue.submit([encoder.finish()]);
      return device.queue.onSubmittedWorkDone() as Promise<unknown>;
    },
    read: () => tensors[3].read(),
    destroy: () => {
      for (const one of tensors) one.destroy();
    },
  };
}
