// cos and sin of rotary embedding from the tables of angles, at positions near and far.

import { expect, it } from "vitest";
import { compileKernel } from "../../src/gpu/pipelines.ts";
import { tensor } from "../../src/index.ts";
import {
  ANGLE_POSITIONS,
  angleTables,
  angleTablesShape,
  rotaryBindings,
  rotaryModules,
} from "../../src/kernels/rotary_angles.ts";
import { rotaryFrequencies } from "../../src/positions/rotary_options.ts";
import { integers } from "../../src/reference/random.ts";
import { link } from "../../src/shader/link.ts";
import type { Binding } from "../../src/types.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";

failOnGpuErrors();

const PAIRS = 8;
const CHOICE = { rotaryDim: 2 * PAIRS, interleaved: false, angles: "tables" } as const;
const PROBE = `
import package::slots::angles::{rotary_angle};
@group(0) @binding(1) var<storage, read> positions: array<i32>;
@group(0) @binding(2) var<storage, read_write> found: array<vec2f>;
const PAIRS = ${PAIRS + 1}u;
@compute @workgroup_size(PAIRS)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) pair: u32) {
  found[id.x * PAIRS + pair] = rotary_angle(vec3i(positions[id.x], 0, 0), pair);
}`;
const BINDINGS: readonly Binding[] = [
  { binding: 1, name: "positions", type: "read-only-storage" },
  { binding: 2, name: "found", type: "storage" },
  ...rotaryBindings(CHOICE),
];

/** Returns (cos, sin) on the GPU by position and pair, with one pair more than there are. */
async function anglesAt(
  positions: readonly number[],
  frequencies: Float64Array,
  factor: number,
): Promise<Float32Array> {
  const device = await testDevice();
  const linked = link("package::probe", { "package::probe": PROBE, ...rotaryModules(CHOICE) });
  const { pipeline, layout } = await compileKernel(device, {
    label: "probe",
    ...linked,
    bindings: BINDINGS,
  });
  const places = tensor(device, [positions.length], { dtype: "i32", data: positions });
  const found = tensor(device, [positions.length, PAIRS + 1, 2]);
  const tables = tensor(device, angleTablesShape(PAIRS), {
    data: angleTables(frequencies, factor),
  });
  const used = [places, found, tables];
  const entries = used.map(({ buffer }, index) => ({
    binding: BINDINGS[index].binding,
    resource: { buffer },
  }));
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, device.createBindGroup({ layout, entries }));
  pass.dispatchWorkgroups(positions.length);
  pass.end();
  device.queue.submit([encoder.finish()]);
  const values = (await found.read()) as Float32Array;
  for (const one of used) one.destroy();
  return values;
}

const NEAR = [
  0, 1, 2, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 100_000, 131_071, 131_072, 1_000_003,
];
const FAR = [ANGLE_POSITIONS - 1, -1, -2, -256, -257, -65_536, -65_537, -100_000, -ANGLE_POSITIONS];

it.each([
  [
    "of Llama 3.1",
    { base: 500_000, scaling: { type: "llama3", factor: 8, originalMaxPositions: 8192 } },
    1,
  ],
  [
    "that turn half around at every position, and an attention factor",
    { frequencies: new Array(8).fill(3.1) },
    1.4,
  ],
] as const)(
  "angles of frequencies %s are right to 3e-7 at every position",
  async (_, options, factor) => {
    const { frequencies } = rotaryFrequencies(2 * PAIRS, options);
    const positions = [...NEAR, ...FAR, ...integers(1, 500, -ANGLE_POSITIONS, ANGLE_POSITIONS - 1)];
    const found = await anglesAt(positions, frequencies, factor);
    positions.forEach((position, row) => {
      for (let pair = 0; pair <= PAIRS; pair++) {
        const at = 2 * (row * (PAIRS + 1) + pair);
        const [cos, sin] = found.subarray(at, at + 2);
        if (pair === PAIRS) {
          expect([cos, sin], "a pair that there is not").toEqual([1, 0]);
          continue;
        }
        const angle = position * frequencies[pair];
        const error = Math.max(
          Math.abs(cos - factor * Math.cos(angle)),
          Math.abs(sin - factor * Math.sin(angle)),
        );
        expect(error, `position ${position}, pair ${pair}`).toBeLessThan(3e-7 * factor);
      }
    });
  },
);

it("angles beyond the tables are those of the position modulo 2^24", async () => {
  const { frequencies } = rotaryFrequencies(2 * PAIRS);
  const within = await anglesAt([5, -ANGLE_POSITIONS], frequencies, 1);
  expect(await anglesAt([5 + 2 ** 24, ANGLE_POSITIONS], frequencies, 1)).toEqual(within);
});
