// How often a product of one row reads each word of its weight, counted in the kernel itself.

import { expect, it } from "vitest";
import { tensor } from "../../../src/index.ts";
import { MATMUL_PARAMS } from "../../../src/kernels/matmul.ts";
import { matvecKernel, matvecShape, matvecTile } from "../../../src/kernels/products/matvec.ts";
import { quantisedWords } from "../../../src/reference/index.ts";
import { normal } from "../../../src/reference/random.ts";
import { failOnGpuErrors, testDevice } from "../../support/device.ts";

failOnGpuErrors();

const N = 32; // whole tiles, so that no row stands in for one past the end

// The kernel's own text, in which each read of the weight goes through a function that counts it.
it.each([
  ["int8", 8, 128, 1024, true],
  ["int8", 8, 128, 1024, false],
  ["int4", 4, 32, 1024, true],
  ["int4", 4, 32, 1024, false],
] as const)(
  "of %s: %i bits, a scale for each %i of %i, on a software adapter: %s",
  async (_, bits, group, K, software) => {
    const device = await testDevice();
    const shape = matvecShape({ rows: 1, columnsAdjacent: false }, { software });
    const kernel = matvecKernel({
      shape,
      x: "dense",
      weight: "words",
      quantised: { bits, group },
      bias: undefined,
      y: "dense",
      oddColumns: undefined,
      endsWithinVec4: false,
    });
    const counting = `
@group(0) @binding(7) var<storage, read_write> reads: array<atomic<u32>>;
fn read_weight(at: u32) -> u32 {
  atomicAdd(&reads[at], 1u);
  return weight[at];
}
`;
    let sites = 0;
    const code =
      kernel.code.replace(/\bweight\[([^\]]+)\]/g, (_all, at) => {
        sites++;
        return `read_weight(${at})`;
      }) + counting;
    expect(sites).toBeGreaterThanOrEqual(2);
    const w = normal(1, N * K);
    const rows = Array.from({ length: N }, (_, n) => w.subarray(n * K, (n + 1) * K));
    const words = rows.flatMap((row) => Array.from(quantisedWords(row, { bits, group })));
    const scales = K / group;
    const perRow = words.length / N;
    const tile = matvecTile(shape);
    const tensors = {
      source: tensor(device, [K], { data: normal(2, K) }),
      weight: tensor(device, [words.length], { data: words, dtype: "u32" }),
      o: tensor(device, [N]),
      reads: tensor(device, [words.length], { dtype: "u32" }),
    };
    const params = new ArrayBuffer(MATMUL_PARAMS.bytes);
    const columnTiles = N / tile.columns;
    const values: Record<string, number> = Object.fromEntries(
      MATMUL_PARAMS.members.map(({ name }) => [name, 0]),
    );
    Object.assign(values, { rows: 1, columns: N, inner: K, n_heads: 1, row_tiles: 1 });
    Object.assign(values, { column_tiles: columnTiles, grid_x: columnTiles });
    Object.assign(values, { end_workgroup: columnTiles, weight_stride_n: perRow });
    MATMUL_PARAMS.pack(values, params);
    const uniform = device.createBuffer({ size: params.byteLength, usage: 0x40 | 0x8 });
    device.queue.writeBuffer(uniform, 0, params);
    const module = device.createShaderModule({ code });
    const pipeline = await device.createComputePipelineAsync({
      layout: "auto",
      compute: { module },
    });
    const buffers = { 0: uniform, 1: tensors.source.buffer, 2: tensors.weight.buffer };
    const written = { 6: tensors.o.buffer, 7: tensors.reads.buffer };
    const entries = Object.entries({ ...buffers, ...written }).map(([binding, buffer]) => ({
      binding: Number(binding),
      resource: { buffer },
    }));
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(
      0,
      device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }),
    );
    pass.dispatchWorkgroups(columnTiles);
    pass.end();
    device.queue.submit([encoder.finish()]);
    const reads = await tensors.reads.read();
    // Lanes whose blocks share a scale read it side by side, in one instruction of their group.
    const together = Math.min(shape.lanes, group / (bits === 8 ? 4 : 8));
    let bytes = 0;
    for (let n = 0; n < N; n++) {
      const own = reads.subarray(n * perRow, (n + 1) * perRow);
      expect(new Set(own.subarray(0, scales))).toEqual(new Set([together]));
      expect(new Set(own.subarray(scales))).toEqual(new Set([1]));
      bytes += 4 * own.subarray(scales).length;
      for (const count of own.subarray(0, scales)) bytes += (4 * count) / together;
    }
    expect(bytes).toBeLessThanOrEqual(1.05 * 4 * words.length);
    for (const one of Object.values(tensors)) one.destroy();
    uniform.destroy();
  },
);
