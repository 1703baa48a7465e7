// Additive attention whose keys' exponentials are taken in a pass before, against the reference and
// against the same kernel without that pass.

import { describe, expect, it } from "vitest";
import { chooseKernels, preparePlan } from "../../src/attention/plan_attention.ts";
import { resolveProblem } from "../../src/attention/resolve.ts";
import type { Taken } from "../../src/given.ts";
import { type AttentionProblem, createKvCache, planAttention, tensor } from "../../src/index.ts";
import { attention as reference } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { loadExtension } from "../../src/scores/resolve.ts";
import { type Case, runCase, title } from "../support/cases.ts";
import { expectClose } from "../support/closeness.ts";
import { failOnGpuErrors, testDevice, withLimits } from "../support/device.ts";

failOnGpuErrors();

const similarity = { kind: "additive" } as const;

// Cases of a group share their kernels. Scratch memory is a row of whole vec4s for each key.
describe("keys in a pass before", () => {
  const all = (shared: Partial<Case>, problems: readonly Partial<Case>[]) => {
    for (const problem of problems) {
      const whole = {
        variant: "8x4-quad",
        H: 4,
        Hkv: 2,
        M: 160,
        N: 230,
        D: 16,
        similarity,
        ...shared,
        ...problem,
      };
      const { B = 1, Hkv, N, D } = whole;
      const planned = async (device: GPUDevice, given: AttentionProblem) => {
        const plan = await planAttention(device, given);
        expect(plan.workspaceBytes).toBe(16 * B * Hkv * N * Math.ceil(D / 4));
        return plan;
      };
      it(title(problem as Case) || "as it is", async () =>
        runCase(await testDevice(), whole as Case, planned),
      );
    }
  };
  all({}, [
    {},
    { M: 169, N: 257, B: 2, causal: true },
    { spread: 9, seed: 2 }, // numbers beyond the range of the terms, in some rows
    { spread: 30, similarity: { kind: "additive", innerScale: -0.7 } }, // beyond it in most rows
    { layout: "bmhd", window: [90, 60], attentionChunk: 150, M: 230 },
    { maxDispatchFlops: 1e5 },
  ]);
  all(
    {
      similarity: { kind: "additive", innerBias: true, perHead: true, normalize: true },
      D: 20,
      Dv: 4,
    },
    [
      {
        B: 2,
        M: 100,
        kvLengths: [230, 101],
        poison: true,
        dtype: ["f32", "f16", "f32", "f32"],
        spread: 5,
        onGpu: true,
      },
    ],
  );
  const cuSeqlens = { cuSeqlensQ: [0, 150, 150, 290], cuSeqlensKv: [30, 300, 340, 500] };
  all({ D: 5, Dv: 7, dtype: ["f32", "bf16", "f32", "f32"] }, [
    { M: 290, N: 510, ...cuSeqlens, spread: 5 },
  ]);
  all({ variant: "64x4" }, [{ M: 700, N: 500, spread: 6, causal: true }]);
});

describe("what a key holds", () => {
  const H = 4;
  const M = 230;
  const N = 230;
  const D = 16;
  const HOSTILE = [
    Number.POSITIVE_INFINITY,
    Number.NEGATIVE_INFINITY,
    3e38,
    -20.1,
    20,
    -20,
    -1e-40,
    -0,
  ];

  it("gives the bits that it gives without the pass, whatever the scratch memory held before", async () => {
    const shared = await testDevice();
    const keys = normal(1, H * N * D);
    HOSTILE.forEach((value, i) => {
      keys[(40 + 11 * i) * D + 2 * i] = value;
    });
    keys[(N - 1) * D + 15] = Number.NaN; // in the first head, whose last query alone sees it
    const results: number[][] = [];
    for (const buffers of [6, 7]) {
      const device = withLimits(shared, { maxStorageBuffersPerShaderStage: buffers });
      const make = (rows: number, data: Float32Array) => tensor(device, [1, H, rows, D], { data });
      const q = make(M, normal(2, H * M * D));
      const k = make(N, keys);
      const v = make(N, normal(3, H * N * D));
      const output = make(M, new Float32Array(H * M * D).fill(7));
      const lse = tensor(device, [1, H, M]);
      const problem = { q, k, v, output, lse, similarity, causal: true, variant: "8x4-quad" };
      const { plan, allocated, owned } = await preparePlan(device, problem);
      await allocated;
      expect(plan.kernel).toBe("forward 8x4-quad");
      expect([plan.workspaceBytes, plan.dispatchCount]).toEqual(
        buffers === 6 ? [0, 1] : [4 * H * N * D, 2],
      );
      const workspace = owned.find(({ size }) => size === H * N * D);
      for (const poison of [0x7fc00000, 0xbf800000, 0x3f800000]) {
        if (workspace)
          device.queue.writeBuffer(
            workspace.buffer,
            0,
            new Uint32Array(workspace.size).fill(poison),
          );
        const encoder = device.createCommandEncoder();
        plan.encode(encoder);
        device.queue.submit([encoder.finish()]);
        results.push([...(await output.read()), ...(await lse.read())]);
      }
      plan.destroy();
      for (const one of [q, k, v, output, lse]) one.destroy();
    }
    const cpu = (data: Float32Array, rows: number) => ({ data, shape: [1, H, rows, D] });
    const inputs = [
      cpu(normal(2, H * M * D), M),
      cpu(keys, N),
      cpu(normal(3, H * N * D), N),
    ] as const;
    const [f64, plain] = (["f64", "f32"] as const).map((precision) => {
      return reference(...inputs, { similarity, causal: true, precision }).output;
    });
    const seeing = (all: ArrayLike<number>) =>
      Array.from(all).filter((_, i) => Math.floor(i / D) !== M - 1);
    const output = results[0].slice(0, H * M * D);
    expectClose("output", seeing(output), { f64: seeing(f64), plain: seeing(plain) }, [
      H * M - 1,
      D,
    ]);
    for (const other of results.slice(1)) {
      expect(other.findIndex((value, i) => !Object.is(value, results[0][i]))).toBe(-1);
    }
  });
});

describe("scratch memory", () => {
  const floats = async (over: object, device?: GPUDevice, length = 512) => {
    const on = device ?? withLimits(await testDevice(), {});
    const rows = { shape: [2, 4, length, 30] };
    const problem = {
      q: rows,
      k: rows,
      v: rows,
      similarity,
      variant: "16x4-quad",
      ...over,
    } as Taken<AttentionProblem>;
    return (await chooseKernels(on, resolveProblem(problem, await loadExtension(problem))))
      .workspace;
  };
  it("is as large as dense keys of f32", async () => {
    expect(await floats({})).toEqual([2 * 4 * 512 * 32]);
    expect(await floats({}, undefined, 1024)).toEqual([2 * 4 * 1024 * 32]);
    expect(await floats({ variant: "64x4" })).toEqual([2 * 4 * 512 * 32]);
  });
  it("is not taken if few queries look at a key, nor by tiles, nor for a cache", async () => {
    expect(await floats({ q: { shape: [2, 4, 32, 30] } })).toBeUndefined();
    expect(await floats({ window: [8, 8] })).toBeUndefined();
    expect(await floats({}, undefined, 40)).toBeUndefined();
    expect(await floats({}, undefined, 0)).toBeUndefined();
    expect(await floats({ variant: "64x32" })).toBeUndefined();
    const device = await testDevice();
    const cache = await createKvCache(device, { batch: 2, kvHeads: 4, headDim: 30, capacity: 512 });
    expect(await floats({ k: undefined, v: undefined, cache })).toBeUndefined();
    cache.destroy();
  });
  it("is not taken if the device can't bind it", async () => {
    const device = await testDevice();
    const options = { lse: true, rowMax: true, bias: { shape: [512, 512] } };
    const bytes = 2 * 4 * 512 * 32 * 4;
    const limited = (limits: Partial<Record<keyof GPUSupportedLimits, number>>) =>
      withLimits(device, limits);
    expect(await floats(options, limited({ maxStorageBuffersPerShaderStage: 9 }))).toBeDefined();
    expect(await floats(options, limited({ maxStorageBuffersPerShaderStage: 8 }))).toBeUndefined();
    expect(await floats({}, limited({ maxStorageBufferBindingSize: bytes }))).toBeDefined();
    expect(await floats({}, limited({ maxStorageBufferBindingSize: bytes - 1 }))).toBeUndefined();
    expect(await floats({}, limited({ maxBufferSize: bytes - 1 }))).toBeUndefined();
  });
});
