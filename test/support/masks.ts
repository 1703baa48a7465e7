// Computes every value of a mask function over [B, H, M, N], by a small kernel that does nothing
// else.

import { numberBytes } from "../../src/functions/captures.ts";
import { guarded } from "../../src/gpu/buffers.ts";
import { compileKernel } from "../../src/gpu/pipelines.ts";
import { type MaskFunction, Tensor, tensor } from "../../src/index.ts";
import { blockMaskBindings, blockMaskModules } from "../../src/kernels/block_mask.ts";
import type { ReferencePosition } from "../../src/reference/index.ts";
import { link } from "../../src/shader/link.ts";

export interface Scores {
  readonly B?: number;
  readonly H?: number;
  readonly M: number;
  readonly N: number;
  /** Position of the first query. Default N - M. */
  readonly offset?: number;
}

const ROOT = `
import package::lib::position::{Position};
import package::slots::mask::{mask};

@group(0) @binding(0) var<uniform> sizes: vec4i;  // H, M, N, offset
@group(0) @binding(1) var<storage, read_write> seen: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= arrayLength(&seen)) {
    return;
  }
  let n = vec4u(sizes);
  let q_idx = id.x / n.z % n.y;
  let at = Position(id.x / n.z / n.y / n.x, id.x / n.z / n.y % n.x, q_idx, id.x % n.z, i32(q_idx) + sizes.w);
  seen[id.x] = u32(mask(at));
}
`;

export type Predicate = (at: ReferencePosition) => boolean;
export const range = (count: number): number[] =>
  Array.from({ length: count }, (_, index) => index);

/** Returns what the function says of every score: 1 if the query sees the key. */
export async function maskValues(
  device: GPUDevice,
  mask: MaskFunction,
  scores: Scores,
): Promise<number[]> {
  const { B = 1, H = 1, M, N, offset = N - M } = scores;
  const { text, captures } = mask;
  const linked = link("package::test", { ...blockMaskModules(text), "package::test": ROOT });
  const bindings = blockMaskBindings(text);
  const { pipeline, layout } = await compileKernel(device, { label: "mask", ...linked, bindings });
  const seen = tensor(device, [B * H * M * N], { dtype: "u32" });
  const made: GPUBuffer[] = [];
  const uniform = (write: (bytes: ArrayBuffer) => void) => {
    const bytes = new ArrayBuffer(16);
    write(bytes);
    const buffer = device.createBuffer({ size: 16, usage: 64 | 8 }); // UNIFORM, COPY_DST
    device.queue.writeBuffer(buffer, 0, bytes);
    made.push(buffer);
    return { buffer };
  };
  const resources = [
    uniform((bytes) => new Int32Array(bytes).set([H, M, N, offset])),
    { buffer: seen.buffer },
    ...Object.values(captures).map((value) =>
      value instanceof Tensor
        ? { buffer: value.buffer }
        : uniform((bytes) =>
            new Uint8Array(bytes).set(new Uint8Array(numberBytes(value)).subarray(0, 4)),
          ),
    ),
  ];
  const entries = resources.map((resource, index) => ({
    binding: bindings[index].binding,
    resource,
  }));
  const { done } = guarded(device, "mask", () => {
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, device.createBindGroup({ layout, entries }), [0]);
    pass.dispatchWorkgroups(Math.ceil(seen.size / 64));
    pass.end();
    device.queue.submit([encoder.finish()]);
  });
  await done;
  const values = Array.from(await seen.read());
  for (const used of [seen, ...made]) used.destroy();
  return values;
}

/** Returns the same values by a function in JavaScript. */
export function maskValuesOf(js: Predicate, scores: Scores): number[] {
  const { B = 1, H = 1, M, N, offset = N - M } = scores;
  const values: number[] = [];
  for (let batch = 0; batch < B; batch++) {
    for (let head = 0; head < H; head++) {
      for (let qIdx = 0; qIdx < M; qIdx++) {
        for (let kvIdx = 0; kvIdx < N; kvIdx++) {
          values.push(Number(js({ batch, head, qIdx, kvIdx, position: qIdx + offset })));
        }
      }
    }
  }
  return values;
}

/** Returns the kinds of blocks of the values over [B, H, M, N]. */
export function blockKindsOf(
  values: readonly number[],
  { B = 1, H = 1, M, N }: Scores,
  [rows, keys]: readonly [rows: number, keys: number],
): string[] {
  const kinds: string[] = [];
  for (let plane = 0; plane < B * H; plane++) {
    for (let q = 0; q < M; q += rows) {
      for (let kv = 0; kv < N; kv += keys) {
        const block: number[] = [];
        for (let m = q; m < Math.min(q + rows, M); m++) {
          for (let n = kv; n < Math.min(kv + keys, N); n++)
            block.push(values[(plane * M + m) * N + n]);
        }
        kinds.push(
          block.every((seen) => seen) ? "full" : block.some((seen) => seen) ? "partial" : "empty",
        );
      }
    }
  }
  return kinds;
}

/** Computes the neighborhood of a grid by counting cells, border by border. */
export function neighborhood(width: number, height: number, kernel: number): Predicate {
  const span = (at: number, size: number) => {
    const cells = range(size);
    const back = Math.floor(kernel / 2);
    while (cells.length > kernel) {
      if (at - cells[0] > back) cells.shift();
      else cells.pop();
    }
    return cells;
  };
  return ({ kvIdx, position }) =>
    position >= 0 &&
    position < width * height &&
    span(position % width, width).includes(kvIdx % width) &&
    span(Math.floor(position / width), height).includes(Math.floor(kvIdx / width));
}
