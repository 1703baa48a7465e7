// The memory that the forward kernel reads and writes: strides, views, padding and poison. It
// touches nothing that is not its own.

import { describe, expect, it } from "vitest";
import { assemblePlan } from "../../src/attention/assemble.ts";
import { attention, planAttention, type Tensor, tensor, unpackQkv } from "../../src/index.ts";
import { forwardGrid, forwardKernel, forwardModules } from "../../src/kernels/forward.ts";
import { chooseForwardTile } from "../../src/kernels/forward_tiles.ts";
import type { SlotChoice } from "../../src/kernels/slots.ts";
import { attention as reference, worstElement } from "../../src/reference/index.ts";
import { integers, normal } from "../../src/reference/random.ts";
import { link } from "../../src/shader/link.ts";
import { product } from "../support/cases.ts";
import { expectClose } from "../support/closeness.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectSameUnrolled } from "../support/expansion.ts";

failOnGpuErrors();

const LIMITS = { workgroupBytes: 16384, software: true, subgroups: true };

/** The tile that compiles fastest, for tests in which the tile does not matter. */
const small = { variant: "8x32" } as const;

/** Makes random data under a tensor spec, with a reference view of the same memory. */
function strided(
  device: GPUDevice,
  seed: number,
  elements: number,
  shape: number[],
  strides: number[],
  offset: number,
) {
  const data = normal(seed, elements);
  const memory = tensor(device, [elements], { data });
  return { gpu: memory.view({ shape, strides, offset }), cpu: { data, shape, strides, offset } };
}

type Strided = ReturnType<typeof strided>;

async function expectAttention(q: Strided, k: Strided, v: Strided, output?: Tensor): Promise<void> {
  const options = { causal: true } as const;
  const result = await attention(q.gpu, k.gpu, v.gpu, {
    ...options,
    ...small,
    ...(output && { output }),
  });
  const f64 = reference(q.cpu, k.cpu, v.cpu, options).output;
  const plain = reference(q.cpu, k.cpu, v.cpu, { ...options, precision: "f32" }).output;
  expectClose("output", await result.output.read(), { f64, plain }, result.output.shape);
}

describe("strides", () => {
  it("of a packed projection with grouped heads", async () => {
    const device = await testDevice();
    const sizes = { heads: 4, kvHeads: 2, headDim: 16, vDim: 8 };
    const B = 2;
    const M = 37;
    const width = 4 * 16 + 2 * 16 + 2 * 8;
    const data = normal(1, B * M * width);
    const packed = tensor(device, [B, M, width], { data });
    const views = unpackQkv(packed, sizes);
    const as = (gpu: Strided["gpu"]): Strided => ({
      gpu,
      cpu: { data, shape: [...gpu.shape], strides: [...gpu.strides], offset: gpu.offset },
    });
    expect(views.v.shape).toEqual([2, 2, 37, 8]);
    await expectAttention(as(views.q), as(views.k), as(views.v));
  });
  it("that keep rows apart, run along other axes, and start anywhere", async () => {
    const device = await testDevice();
    const shape = [2, 2, 33, 8];
    // Heads inside rows; D along the slow axis; an odd offset; rows padded to 9 and 12 elements.
    const q = strided(device, 1, 3000, shape, [33 * 16, 8, 16, 1], 4);
    const k = strided(device, 2, 3000, shape, [33 * 16, 33 * 8, 1, 33], 7);
    const v = strided(device, 3, 3000, shape, [33 * 18, 33 * 9, 9, 1], 1);
    await expectAttention(q, k, v);
    const padded = strided(device, 4, 3000, shape, [33 * 24, 33 * 12, 12, 1], 8);
    await expectAttention(padded, padded, padded);
  });
  it("of 0: one head and one batch entry for all", async () => {
    const device = await testDevice();
    const q = strided(device, 1, 2000, [3, 2, 5, 8], [80, 40, 8, 1], 0);
    const kv = strided(device, 2, 2000, [3, 2, 40, 8], [0, 0, 8, 1], 0);
    await expectAttention(q, kv, kv);
  });
  it("of the output, which leaves everything between its elements alone", async () => {
    const device = await testDevice();
    const shape = [2, 2, 33, 8];
    const input = (seed: number) =>
      strided(device, seed, 2 * 2 * 33 * 8, shape, [528, 264, 8, 1], 0);
    for (const [strides, offset] of [
      [[33 * 24, 33 * 12, 12, 1], 16],
      [[33 * 18, 9, 18, 1], 3],
      [[33 * 16, 33 * 8, 1, 33], 0],
    ] as const) {
      const memory = tensor(device, [3000], { data: new Float32Array(3000).fill(-777) });
      const output = memory.view({ shape, strides, offset });
      await expectAttention(input(1), input(2), input(3), output);
      const left = (await memory.read()).filter((value) => value === -777).length;
      expect(left).toBe(3000 - product(shape));
    }
  });
});

describe("a buffer of the caller's", () => {
  it("is used where it is, from an offset that binding does not allow, and is never destroyed", async () => {
    const device = await testDevice();
    const data = normal(3, 3 * 40 * 4 + 5);
    const buffer = device.createBuffer({ size: data.byteLength, usage: 128 | 8 });
    device.queue.writeBuffer(buffer, 0, data);
    const cpu = (offset: number) => ({ data, shape: [1, 1, 40, 4], offset });
    const part = (offset: number): Strided => {
      const gpu = tensor(device, [1, 1, 40, 4], { buffer, offset });
      return { gpu, cpu: { ...cpu(offset), strides: [160, 160, 4, 1] } };
    };
    const q = part(5);
    const k = part(165);
    const v = part(325);
    await expectAttention(q, k, v);
    q.gpu.destroy();
    await expectAttention(part(5), k, v);
    buffer.destroy();
  });
});

describe("keys that a query does not see", () => {
  const poisons = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 3e38];

  // With head dim 5 the vec4s at the end of a row would reach into the next one.
  it.each([
    { D: 8, ...small },
    { D: 5, variant: "64x32" },
  ])("never reach its output, whatever they hold, at head dim $D", async ({ D, variant }) => {
    const device = await testDevice();
    const B = 2;
    const H = 1;
    const M = 70;
    const N = 100;
    const kvLengths = [61, 100];
    const queryOffset = [-5, 20];
    const clean = [normal(1, B * M * D), normal(2, B * N * D), normal(3, B * N * D)];
    const expected = reference(
      { data: clean[0], shape: [B, H, M, D] },
      { data: clean[1], shape: [B, H, N, D] },
      { data: clean[2], shape: [B, H, N, D] },
      { kvLengths, causal: true, queryOffset },
    );
    // Batch entry 0 sees keys up to 60, by its length; entry 1 up to 89, by the position of its
    // last query.
    for (const poison of poisons) {
      const k = clean[1].slice();
      const v = clean[2].slice();
      for (const part of [k, v]) {
        part.fill(poison, 61 * D, N * D);
        part.fill(poison, N * D + 90 * D);
      }
      const { output } = await attention(
        tensor(device, [B, H, M, D], { data: clean[0] }),
        tensor(device, [B, H, N, D], { data: k }),
        tensor(device, [B, H, N, D], { data: v }),
        { kvLengths, causal: true, queryOffset, variant },
      );
      expect(worstElement(await output.read(), expected.output, [B, H, M, D]).error).toBeLessThan(
        1e-5,
      );
    }
  });

  it("may be poisoned in the very tile that other queries see", async () => {
    const device = await testDevice();
    const M = 40;
    const D = 4;
    const data = [normal(1, M * D), normal(2, M * D), normal(3, M * D)];
    const at = (part: number) => ({ data: data[part], shape: [1, 1, M, D] });
    const expected = reference(at(0), at(1), at(2), { causal: true });
    for (const poison of poisons) {
      const k = data[1].slice();
      const v = data[2].slice();
      for (const part of [k, v]) part.fill(poison, 20 * D, 21 * D); // seen by rows 20 and on
      const { output } = await attention(
        tensor(device, [1, 1, M, D], { data: data[0] }),
        tensor(device, [1, 1, M, D], { data: k }),
        tensor(device, [1, 1, M, D], { data: v }),
        { causal: true, ...small },
      );
      const before = (await output.read()).slice(0, 20 * D);
      expect(worstElement(before, expected.output.slice(0, 20 * D), [20, D]).error).toBeLessThan(
        1e-5,
      );
    }
  });

  it("are not even read, when a whole tile of them is unseen", async () => {
    // The slots of k and v are replaced by modules that note every key that they are asked for.
    const device = await testDevice();
    const notingKey = `
import package::lib::params::{params};
@group(0) @binding(2) var<storage, read> k: array<vec4f>;
@group(0) @binding(8) var<storage, read_write> workspace: array<atomic<u32>>;
fn note(row: u32) {
  atomicMax(&workspace[row], 1u);
}
fn load_k(batch: u32, head: u32, row: u32, d4: u32) -> vec4f {
  note(row);
  return k[row * params.k_stride_n + d4];
}`;
    const notingValue = `
import package::lib::params::{params};
import package::slots::key::{note};
@group(0) @binding(3) var<storage, read> v: array<vec4f>;
fn load_v(batch: u32, head: u32, row: u32, d4: u32) -> vec4f {
  note(row);
  return v[row * params.v_stride_n + d4];
}`;
    const noting = { "package::slots::key": notingKey, "package::slots::value": notingValue };
    const M = 64;
    const N = 200;
    const D = 8;
    const read = async (options: object) => {
      const notes = new Uint32Array(N);
      const make = (seed: number, rows: number) =>
        tensor(device, [1, 1, rows, D], { data: normal(seed, rows * D) });
      const q = make(1, M);
      const k = make(2, N);
      const v = make(3, N);
      const output = make(4, M);
      const { plan, owned } = await assemblePlan(
        device,
        { q, k, v, output, ...options },
        ({ headDim, vDim, seqQ }) => {
          const tile = chooseForwardTile({ headDim, vDim, seqQ, variant: "8x32" }, LIMITS);
          const stagesOf = async (slots: SlotChoice) => {
            const modules = {
              ...(await forwardModules({ headDim, vDim, tile, ...slots })),
              ...noting,
            };
            const { code, locate } = link("package::forward", modules);
            const { bindings } = await forwardKernel({ headDim, vDim, tile, ...slots });
            const source = {
              label: "noting",
              code,
              locate,
              bindings: [...bindings, { binding: 8, name: "workspace", type: "storage" as const }],
            };
            return [{ source, grid: forwardGrid(tile, headDim, vDim, seqQ) }];
          };
          return { stagesOf, workspace: [N] };
        },
      );
      const encoder = device.createCommandEncoder();
      plan.encode(encoder);
      device.queue.submit([encoder.finish()]);
      const bits = new Uint32Array(((await owned[owned.length - 1].read()) as Float32Array).buffer);
      notes.set(bits);
      plan.destroy();
      return notes.lastIndexOf(1) + 1;
    };
    expect(await read({})).toBe(200);
    expect(await read({ causal: "top-left" })).toBe(64); // two tiles of 32
    // the last query sees keys 0..33
    expect(await read({ causal: true, queryOffset: -30 })).toBe(34);
    expect(await read({ causal: true, queryOffset: -64 })).toBe(0);
    expect(await read({ kvLengths: [70] })).toBe(70);
    expect(await read({ kvLengths: [70], causal: "top-left" })).toBe(64);
  });
});

describe("order", () => {
  it("of the keys does not matter", async () => {
    const device = await testDevice();
    const N = 90;
    const D = 16;
    const q = normal(1, N * D);
    const k = normal(2, N * D);
    const v = normal(3, N * D);
    const order = integers(4, N, 0, 1e6)
      .map((weight, index) => ({ weight, index }))
      .sort((a, b) => a.weight - b.weight)
      .map(({ index }) => index);
    const shuffle = (data: Float32Array) =>
      Float32Array.from(data, (_, i) => data[order[Math.floor(i / D)] * D + (i % D)]);
    const run = async (keys: Float32Array, values: Float32Array) => {
      const make = (data: Float32Array) => tensor(device, [1, 1, N, D], { data });
      return (await attention(make(q), make(keys), make(values), small)).output.read();
    };
    const straight = await run(k, v);
    const shuffled = await run(shuffle(k), shuffle(v));
    expect(worstElement(shuffled, straight, [N, D]).error).toBeLessThan(1e-6);
  });
});

describe("loop expansion", () => {
  it("changes no bit of the result", () => expectSameUnrolled("32x32", [1, 2, 45, 40]));
});

describe("plans", () => {
  it("serve several layers in one pass of the caller's", async () => {
    const device = await testDevice();
    const shape = [1, 2, 33, 16];
    const layer = (seed: number) => {
      const data = [0, 1, 2].map((part) => normal(10 * seed + part, product(shape)));
      const [q, k, v] = data.map((values) => tensor(device, shape, { data: values }));
      return {
        data,
        q,
        k,
        v,
        output: tensor(device, shape, { data: new Float32Array(product(shape)).fill(NaN) }),
      };
    };
    const layers = [1, 2, 3].map(layer);
    const plan = await planAttention(device, {
      q: { shape },
      k: { shape },
      v: { shape },
      causal: true,
      ...small,
    });
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (const { q, k, v, output } of layers) plan.encode(pass, { q, k, v, output });
    pass.end();
    device.queue.submit([encoder.finish()]);
    for (const { data, output } of layers) {
      const [q, k, v] = data.map((values) => ({ data: values, shape }));
      const expected = reference(q, k, v, { causal: true }).output;
      expect(worstElement(await output.read(), expected, shape).error).toBeLessThan(1e-5);
    }
    plan.destroy();
  });
  it("read lengths and positions that change on the GPU", async () => {
    const device = await testDevice();
    const B = 2;
    const M = 3;
    const N = 60;
    const D = 8;
    const dq = normal(1, B * M * D);
    const dk = normal(2, B * N * D);
    const dv = normal(3, B * N * D);
    const q = tensor(device, [B, 1, M, D], { data: dq });
    const k = tensor(device, [B, 1, N, D], { data: dk });
    const v = tensor(device, [B, 1, N, D], { data: dv });
    const output = tensor(device, [B, 1, M, D]);
    // Both tensors are in one buffer, at places at which no binding can start.
    const both = tensor(device, [8], { dtype: "i32", data: [9, 9, 9, 9, 9, 9, 9, 9] });
    const lengths = both.view({ shape: [B], offset: 1 });
    const offsets = both.view({ shape: [B], offset: 5 });
    const cpu = [
      { data: dq, shape: [B, 1, M, D] },
      { data: dk, shape: [B, 1, N, D] },
      { data: dv, shape: [B, 1, N, D] },
    ] as const;
    const plan = await planAttention(device, {
      q,
      k,
      v,
      output,
      causal: true,
      kvLengths: lengths,
      queryOffset: offsets,
      ...small,
    });
    for (const [kvLengths, queryOffset] of [
      [
        [5, 40],
        [2, 37],
      ],
      [
        [60, 0],
        [57, 10],
      ],
      [
        [-3, 1000],
        [0, 0],
      ], // nobody checked these, so they count as 0 and 60
    ]) {
      device.queue.writeBuffer(lengths.buffer, 4 * lengths.offset, new Int32Array(kvLengths));
      device.queue.writeBuffer(offsets.buffer, 4 * offsets.offset, new Int32Array(queryOffset));
      const encoder = device.createCommandEncoder();
      plan.encode(encoder);
      device.queue.submit([encoder.finish()]);
      const expected = reference(...cpu, { causal: true, kvLengths, queryOffset }).output;
      expect(worstElement(await output.read(), expected, [B, 1, M, D]).error).toBeLessThan(1e-5);
    }
    plan.destroy();
  });
});
