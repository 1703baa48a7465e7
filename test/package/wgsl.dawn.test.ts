// Uses the exported WGSL as a foreign engine would, with plain WebGPU, the manifest, and not one
// line of our TypeScript.

import { readdirSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { describe, expect, it } from "vitest";
import {
  mergeAttention,
  project,
  attention as reference,
  worstElement,
} from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { failOnGpuErrors, plainDevice } from "../support/device.ts";

failOnGpuErrors();

const folder = resolve(import.meta.dirname, "../../dist/wgsl");
const manifest = JSON.parse(readFileSync(`${folder}/manifest.json`, "utf8"));

interface Exported {
  file: string;
  headDim: number;
  workgroupBytes: number;
  entryPoint: string;
  bindings: { binding: number; name: string; type: string }[];
  grid: { qTile: number; vSplits: number };
}
const kernels: Exported[] = manifest.kernels;
const chosen = [
  "forward_d64_64x32_lse.wgsl",
  "forward_d256_32x32.wgsl",
  "forward_d32_64x4_lse.wgsl",
];

describe("dist/wgsl", () => {
  it("lists every file once", () => {
    const { decode, merge, cache, matmul } = manifest;
    const lists = [kernels, decode.kernels, decode.combine, cache.append.kernels, matmul.kernels];
    const files: string[] = [...lists.flat(), merge, cache.advance].map(
      ({ file }: Exported) => file,
    );
    expect(new Set(files).size).toBe(files.length);
    expect(readdirSync(folder).sort()).toEqual([...files, "manifest.json"].sort());
    for (const file of files)
      expect(readFileSync(`${folder}/${file}`, "utf8")).toContain("fn main(");
  });

  it.each(chosen)("%s runs from its manifest alone", async (file) => {
    const kernel = kernels.find((entry) => entry.file === file) as Exported;
    const foreign = await foreignEngine(kernel.workgroupBytes, { M: 70, N: 50, D: kernel.headDim });
    const q_tiles = Math.ceil(70 / kernel.grid.qTile);
    const workgroups = q_tiles * kernel.grid.vSplits * H * B;
    await foreign.dispatch(kernel, { q_tiles, v_splits: kernel.grid.vSplits }, workgroups);
    await foreign.expectRight();
  });

  it("decode_d64_rows4.wgsl and combine_d64_lse.wgsl run from their manifest alone", async () => {
    const { kernels: decoders, combine: ends } = manifest.decode;
    const decode = decoders.find(({ file }: Exported) => file === "decode_d64_rows4.wgsl");
    const end = ends.find(({ file }: Exported) => file === "combine_d64_lse.wgsl");
    const M = 3;
    const kv_splits = 2;
    const size = end.recordBytes * B * H * M * kv_splits;
    const foreign = await foreignEngine(decode.workgroupBytes, { M, N: 150, D: 64 }, size);
    const q_tiles = Math.ceil(((H / Hkv) * M) / decode.rows);
    const v_splits = decode.grid.vSplits * kv_splits;
    await foreign.dispatch(decode, { kv_splits, q_tiles, v_splits }, q_tiles * v_splits * Hkv * B);
    const columns = Math.ceil((M * 16) / 64);
    await foreign.dispatch(end, { kv_splits, q_tiles: columns, v_splits: 1 }, columns * H * B);
    await foreign.expectRight();
  });

  it("matmul_32x32.wgsl multiplies by a weight and adds a bias, from its manifest alone", async () => {
    const kernel = manifest.matmul.kernels.find(
      ({ variant }: { variant: string }) => variant === "32x32",
    );
    const device = await plainDevice();
    const B = 2;
    const M = 35;
    const N = 40;
    const K = 20;
    const tiles = [Math.ceil(M / kernel.grid.rows), Math.ceil(N / kernel.grid.columns)];
    const workgroups = B * tiles[0] * tiles[1];
    const values: Record<string, number> = {
      rows: M,
      columns: N,
      inner: K,
      n_heads: 1,
      row_tiles: tiles[0],
      column_tiles: tiles[1],
      grid_x: 3,
      end_workgroup: workgroups,
      source_stride_b: (M * K) / 4,
      source_stride_n: K / 4,
      weight_stride_n: K / 4,
      o_stride_b: (M * N) / 4,
      o_stride_m: N / 4,
    };
    const { bytes, members } = manifest.matmul.params;
    const params = new DataView(new ArrayBuffer(bytes));
    for (const { name, offset } of members) params.setUint32(offset, values[name] ?? 0, true);
    const x = normal(1, B * M * K);
    const weight = normal(2, N * K);
    const bias = normal(3, N);
    const upload = (data: Float32Array<ArrayBuffer> | ArrayBuffer, usage: number) => {
      const buffer = device.createBuffer({ size: data.byteLength, usage: usage | 8 });
      device.queue.writeBuffer(buffer, 0, data);
      return buffer;
    };
    const o = upload(new Float32Array(B * M * N).fill(Number.NaN), 128 | 4);
    const memory: Record<string, GPUBuffer> = { params: upload(params.buffer, 64), o };
    memory.source = upload(x, 128);
    memory.weight = upload(weight, 128);
    memory.bias = upload(bias, 128);
    const code = readFileSync(`${folder}/${kernel.file}`, "utf8");
    const compute = { module: device.createShaderModule({ code }), entryPoint: "main" };
    const pipeline = await device.createComputePipelineAsync({ layout: "auto", compute });
    const entries = kernel.bindings.map(({ binding, name }: { binding: number; name: string }) => ({
      binding,
      resource: { buffer: memory[name] },
    }));
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(
      0,
      device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }),
    );
    pass.dispatchWorkgroups(3, Math.ceil(workgroups / 3));
    pass.end();
    const staging = device.createBuffer({ size: o.size, usage: 1 | 8 });
    encoder.copyBufferToBuffer(o, 0, staging, 0, staging.size);
    device.queue.submit([encoder.finish()]);
    await staging.mapAsync(1);
    const output = new Float32Array(staging.getMappedRange().slice(0));
    const expected = project(
      { data: x, shape: [B, M, K] },
      { data: weight, shape: [N, K] },
      { data: bias, shape: [N] },
    );
    expect(worstElement(output, expected, [B, M, N]).error).toBeLessThan(1e-5);
    device.destroy();
  });

  it("merge.wgsl merges three partial results, from its manifest alone", async () => {
    const { file, bindings, params: struct } = manifest.merge;
    const device = await plainDevice();
    const H = 2;
    const M = 5;
    const Dv = 6;
    const parts = [1, 2, 3].map((seed) => ({
      output: normal(seed, H * M * Dv),
      lse: normal(seed + 3, H * M),
    }));
    const buffer = (
      size: number,
      usage: number,
      data?: ArrayBuffer | Float32Array<ArrayBuffer>,
    ) => {
      const made = device.createBuffer({ size, usage: usage | 8 });
      if (data) device.queue.writeBuffer(made, 0, data);
      return made;
    };
    const uploaded = parts.map(({ output, lse }) => ({
      o: buffer(output.byteLength, 128, output),
      lse: buffer(lse.byteLength, 128, lse),
    }));
    const kept = {
      o: buffer(4 * H * M * Dv, 128 | 4),
      lse: buffer(4 * H * M, 128),
      workspace: buffer(4 * H * M, 128),
    };
    const code = readFileSync(`${folder}/${file}`, "utf8");
    const compute = { module: device.createShaderModule({ code }), entryPoint: "main" };
    const pipeline = await device.createComputePipelineAsync({ layout: "auto", compute });
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    for (const [index, pair] of [uploaded.slice(0, 2), uploaded.slice(2)].entries()) {
      const values: Record<string, number | number[]> = {
        n_heads: H,
        seq_q: M,
        v_dim: Dv,
        rows: H * M,
        grid_x: 2,
      };
      for (const name of ["o", "o_0", "o_1"])
        values[`${name}_strides`] = [H * M * Dv, M * Dv, Dv, 1];
      for (const name of ["lse", "lse_0", "lse_1"]) values[`${name}_strides`] = [H * M, M, 1, 0];
      Object.assign(values, { partials: pair.length, first: 1 - index, last: index });
      const params = new DataView(new ArrayBuffer(struct.bytes));
      for (const { name, offset } of struct.members) {
        [values[name] ?? 0].flat().forEach((value, word) => {
          params.setUint32(offset + 4 * word, value, true);
        });
      }
      const [a, b = a] = pair;
      const uniform = buffer(struct.bytes, 64, params.buffer);
      const memory: Record<string, GPUBuffer> = {
        params: uniform,
        o_0: a.o,
        lse_0: a.lse,
        o_1: b.o,
        lse_1: b.lse,
      };
      Object.assign(memory, kept);
      const entries = bindings.map(({ binding, name }: { binding: number; name: string }) => ({
        binding,
        resource: { buffer: memory[name] },
      }));
      pass.setBindGroup(
        0,
        device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }),
      );
      pass.dispatchWorkgroups(2, 2); // 10 rows are 3 workgroups
    }
    pass.end();
    const staging = device.createBuffer({ size: kept.o.size, usage: 1 | 8 });
    encoder.copyBufferToBuffer(kept.o, 0, staging, 0, staging.size);
    device.queue.submit([encoder.finish()]);
    await staging.mapAsync(1);
    const output = new Float32Array(staging.getMappedRange().slice(0));
    expect(worstElement(output, mergeAttention(parts).output, [1, H, M, Dv]).error).toBeLessThan(
      1e-6,
    );
    device.destroy();
  });

  it("cache_append_d64_f32.wgsl and cache_advance.wgsl append twice, from their manifest alone", async () => {
    const { append, advance } = manifest.cache;
    const [kernel] = append.kernels;
    const device = await plainDevice();
    const B = 2;
    const Hkv = 2;
    const D = 64;
    const rows = 5;
    const buffer = (
      size: number,
      usage: number,
      data?: ArrayBuffer | Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer>,
    ) => {
      const made = device.createBuffer({ size, usage: usage | 8 });
      if (data) device.queue.writeBuffer(made, 0, data);
      return made;
    };
    const packed = (
      bytes: number,
      members: { name: string; offset: number }[],
      values: Record<string, number>,
    ) => {
      const view = new DataView(new ArrayBuffer(bytes));
      for (const { name, offset } of members) view.setUint32(offset, values[name] ?? 0, true);
      return buffer(bytes, 64, view.buffer);
    };
    const pipelineOf = async (file: string) => {
      const code = readFileSync(`${folder}/${file}`, "utf8");
      const compute = { module: device.createShaderModule({ code }), entryPoint: "main" };
      return device.createComputePipelineAsync({ layout: "auto", compute });
    };
    const appending = await pipelineOf(kernel.file);
    const advancing = await pipelineOf(advance.file);
    const memory: Record<string, GPUBuffer> = {
      kv_state: buffer(4 * (1 + 2 * B), 128, new Int32Array([1, 0, 0, 0, 0])),
      cache_k: buffer(4 * B * Hkv * rows * D, 128 | 4),
      cache_v: buffer(4 * B * Hkv * rows * D, 128 | 4),
      append: packed(append.append.bytes[D], append.append.members, {
        batch: B,
        kv_heads: Hkv,
        cache_rows: rows,
      }),
    };
    const expected = new Float32Array(B * Hkv * rows * D);
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    const run = (
      pipeline: GPUComputePipeline,
      bindings: Exported["bindings"],
      params: GPUBuffer,
      x: number,
    ) => {
      const bound: Record<string, GPUBuffer> = { ...memory, params };
      const entries = bindings.map(({ binding, name }) => ({
        binding,
        resource: { buffer: bound[name] },
      }));
      pass.setPipeline(pipeline);
      pass.setBindGroup(
        0,
        device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }),
      );
      pass.dispatchWorkgroups(x);
    };
    for (const [length, M] of [
      [0, 3],
      [3, 1],
    ]) {
      const k = normal(20 + M, B * Hkv * M * D);
      for (let head = 0; head < B * Hkv; head++) {
        expected.set(k.subarray(head * M * D, (head + 1) * M * D), (head * rows + length) * D);
      }
      Object.assign(memory, { k: buffer(k.byteLength, 128, k), v: buffer(k.byteLength, 128, k) });
      const workgroups = Math.ceil((2 * B * Hkv * M) / kernel.rows);
      const strides = Object.fromEntries(
        ["k", "v"].flatMap((name) => [
          [`${name}_stride_b`, (Hkv * M * D) / 4],
          [`${name}_stride_h`, (M * D) / 4],
          [`${name}_stride_n`, D / 4],
        ]),
      );
      const sizes = { rows: M, grid_x: workgroups, counts_at: 0xffffffff };
      const { bytes, members } = append.params;
      run(appending, kernel.bindings, packed(bytes, members, { ...strides, ...sizes }), workgroups);
      const step = { operation: 0, batch: B, counts_at: 1 + B, rows: M };
      run(
        advancing,
        advance.bindings,
        packed(advance.params.bytes, advance.params.members, step),
        1,
      );
    }
    pass.end();
    const staging = device.createBuffer({ size: memory.cache_k.size, usage: 1 | 8 });
    encoder.copyBufferToBuffer(memory.cache_k, 0, staging, 0, staging.size);
    device.queue.submit([encoder.finish()]);
    await staging.mapAsync(1);
    expect(new Float32Array(staging.getMappedRange())).toEqual(expected);
    device.destroy();
  });
});

const B = 2;
const H = 4;
const Hkv = 2;

/** Runs a causal problem at some offset as an engine would that knows nothing but the manifest. */
async function foreignEngine(
  workgroupBytes: number,
  { M, N, D }: { M: number; N: number; D: number },
  workspaceBytes = 4,
) {
  const device = await plainDevice({
    requiredLimits: { maxComputeWorkgroupStorageSize: Math.max(16384, workgroupBytes) },
  });
  const inputs = {
    q: normal(1, B * H * M * D),
    k: normal(2, B * Hkv * N * D),
    v: normal(3, B * Hkv * N * D),
  };
  const shared: Record<string, number> = {
    seq_q: M,
    seq_kv: N,
    n_heads: H,
    group_size: H / Hkv,
    total_q: M,
    total_kv: N,
    window_left: -1,
    window_right: 0,
    q_offset: N - M - 3,
    align_end: 0,
    grid_x: 5,
    scale_log2: Math.LOG2E / Math.sqrt(D),
    lse_stride_b: H * M,
    lse_stride_h: M,
    lse_stride_m: 1,
  };
  for (const [name, heads, row, rows] of [
    ["q", H, "m", M],
    ["k", Hkv, "n", N],
    ["v", Hkv, "n", N],
    ["o", H, "m", M],
  ] as const) {
    shared[`${name}_stride_b`] = (heads * rows * D) / 4;
    shared[`${name}_stride_h`] = (rows * D) / 4;
    shared[`${name}_stride_${row}`] = D / 4;
  }
  const upload = (data: Float32Array<ArrayBuffer> | Uint8Array<ArrayBuffer>, usage: number) => {
    const buffer = device.createBuffer({ size: data.byteLength, usage: usage | 8 });
    device.queue.writeBuffer(buffer, 0, data);
    return buffer;
  };
  const poison = (size: number) => upload(new Float32Array(size).fill(Number.NaN), 128 | 4);
  const buffers: Record<string, GPUBuffer> = {
    q: upload(inputs.q, 128),
    k: upload(inputs.k, 128),
    v: upload(inputs.v, 128),
    o: poison(B * H * M * D),
    lse: poison(B * H * M),
    workspace: poison(workspaceBytes / 4),
  };

  async function dispatch(
    { file, bindings }: Pick<Exported, "file" | "bindings">,
    own: object,
    workgroups: number,
  ) {
    const values: Record<string, number> = {
      ...shared,
      ...own,
      first_workgroup: 0,
      end_workgroup: workgroups,
    };
    const params = new DataView(new ArrayBuffer(manifest.params.bytes));
    for (const { name, type, offset } of manifest.params.members) {
      if (type === "f32") params.setFloat32(offset, values[name] ?? 0, true);
      else params.setInt32(offset, values[name] ?? 0, true);
    }
    const module = device.createShaderModule({ code: readFileSync(`${folder}/${file}`, "utf8") });
    const compute = { module, entryPoint: "main" };
    const pipeline = await device.createComputePipelineAsync({ layout: "auto", compute });
    const memory = { ...buffers, params: upload(new Uint8Array(params.buffer), 64) };
    const entries = bindings.map(({ binding, name }) => ({
      binding,
      resource: { buffer: memory[name as keyof typeof memory] as GPUBuffer },
    }));
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(
      0,
      device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }),
    );
    pass.dispatchWorkgroups(5, Math.ceil(workgroups / 5));
    pass.end();
    device.queue.submit([encoder.finish()]);
  }

  async function expectRight() {
    const staging = device.createBuffer({ size: buffers.o.size, usage: 1 | 8 });
    const encoder = device.createCommandEncoder();
    encoder.copyBufferToBuffer(buffers.o, 0, staging, 0, staging.size);
    device.queue.submit([encoder.finish()]);
    await staging.mapAsync(1);
    const output = new Float32Array(staging.getMappedRange().slice(0));
    const expected = reference(
      { data: inputs.q, shape: [B, H, M, D] },
      { data: inputs.k, shape: [B, Hkv, N, D] },
      { data: inputs.v, shape: [B, Hkv, N, D] },
      { causal: true, queryOffset: shared.q_offset },
    ).output;
    expect(worstElement(output, expected, [B, H, M, D]).error).toBeLessThan(1e-5);
    device.destroy();
  }
  return { dispatch, expectRight };
}
