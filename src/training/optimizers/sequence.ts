// A list of dispatches that is made once: its kernels are compiled, its uniforms written and its
// memory bound, so that recording it again and again allocates nothing.

import { paramsBuffer } from "../../gpu/buffers.ts";
import { compileKernel } from "../../gpu/pipelines.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import type { UniformStruct, UniformValues } from "../../kernels/uniform.ts";
import type { Caller } from "../../plan/operation.ts";
import { bindingRange } from "../../plan/specs.ts";
import type { Recording } from "../../plan/target.ts";
import { wholeGrid } from "../../plan/work.ts";
import type { KernelSource } from "../../types.ts";

/** A part of a buffer that a kernel binds. */
export interface Bound {
  readonly buffer: GPUBuffer;
  readonly offset: number;
  readonly size: number;
}

/** A kernel over all of its work. */
export interface Step {
  readonly source: KernelSource;
  readonly struct: UniformStruct;
  readonly values: UniformValues;
  readonly workgroups: number;
  /** What is bound, by the names of the kernel's bindings. */
  readonly bound: Readonly<Record<string, Bound | Tensor>>;
}

/** What a plan of the engine records, between steps. */
export interface Recorded {
  readonly record: Recording;
  readonly dispatchCount: number;
}

export type Part = Step | Recorded;

/** Prepares lists of parts. Gives each as one, and the buffer of their uniforms. */
export async function prepareSteps(
  { device, label }: Caller,
  lists: readonly (readonly Part[])[],
): Promise<{ readonly recorded: readonly Recorded[]; readonly params: GPUBuffer }> {
  const steps = lists.flat().filter((one) => "source" in one);
  const compiled = await Promise.all(steps.map(({ source }) => compileKernel(device, source)));
  const bytes = new ArrayBuffer(256 * Math.max(1, steps.length));
  const { value: params, done } = paramsBuffer(device, label, [packed(device, steps, bytes)]);
  try {
    await done; // memory that was refused can't be bound
  } catch (error) {
    params.destroy();
    throw error;
  }
  const ready = new Map<Step, Recording>();
  for (const [index, step] of steps.entries()) {
    const { pipeline, layout } = compiled[index];
    const entries = step.source.bindings.map(({ binding, name, type }): GPUBindGroupEntry => {
      if (type === "uniform")
        return { binding, resource: { buffer: params, size: step.struct.bytes } };
      const bound = step.bound[name];
      const { offset, size } = "shape" in bound ? bindingRange(bound) : bound;
      return { binding, resource: { buffer: bound.buffer, offset, size } };
    });
    const group = device.createBindGroup({ label, layout, entries });
    const [grid] = wholeGrid(device, step.workgroups);
    ready.set(step, (pass) => {
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group, [256 * index]);
      pass.dispatchWorkgroups(grid.x, grid.y);
    });
  }
  const recorded = lists.map((list): Recorded => {
    const parts = list.map((one) => ("record" in one ? one.record : ready.get(one)));
    return {
      record(pass) {
        for (const record of parts) record?.(pass);
      },
      dispatchCount: list.reduce((sum, one) => sum + ("record" in one ? one.dispatchCount : 1), 0),
    };
  });
  return { recorded, params };
}

/** Writes the uniforms of all steps, 256 bytes apart. */
function packed(device: GPUDevice, steps: readonly Step[], bytes: ArrayBuffer): ArrayBuffer {
  for (const [index, { source, struct, values, workgroups }] of steps.entries()) {
    const [grid] = wholeGrid(device, workgroups);
    const known = struct.has("grid_x") ? { grid_x: grid.x } : {};
    struct.pack({ ...values, ...known }, bytes, 256 * index, source);
  }
  return bytes;
}
