// What is kept for a device is bounded, and gone with the device or on request. The device here
// only counts. And nobody has to wait for errors that come late.

import { describe, expect, it, vi } from "vitest";
import { guarded, settle, toldOfLoss } from "../../src/gpu/buffers.ts";
import { compileKernel } from "../../src/gpu/pipelines.ts";
import { storageOf, waitFor } from "../../src/gpu/storage.ts";
import { FoveaError, release } from "../../src/index.ts";
import { KernelCache } from "../../src/kernels/kernel_cache.ts";
import type { KernelSource } from "../../src/types.ts";
import { expectError } from "../support/errors.ts";

/** A device that makes nothing, counts compilations, and can be lost. */
function stub() {
  const count = { pipelines: 0 };
  let fails = false;
  let lose: (info: GPUDeviceLostInfo) => void = () => {};
  const lost = new Promise<GPUDeviceLostInfo>((resolve) => {
    lose = resolve;
  });
  const device = {
    lost,
    createBuffer() {},
    pushErrorScope() {},
    popErrorScope: async () => null,
    createShaderModule: () => ({ getCompilationInfo: async () => ({ messages: [] }) }),
    createBindGroupLayout: () => ({}),
    createPipelineLayout: () => ({}),
    createComputePipelineAsync: async () => {
      count.pipelines++;
      if (fails) throw new Error("no");
      return {};
    },
  } as unknown as GPUDevice;
  const info = { reason: "unknown", message: "gone" } as GPUDeviceLostInfo;
  return {
    device,
    count,
    lose: () => lose(info),
    fail: (whether: boolean) => {
      fails = whether;
    },
  };
}

const kernel = (code: string): KernelSource => ({
  label: "k",
  code,
  locate: (line) => ({ module: "k", line }),
  bindings: [],
});

describe("pipelines of a device", () => {
  it("are the last 256 texts' that were used", async () => {
    const { device, count } = stub();
    for (let n = 0; n < 1000; n++) {
      await compileKernel(device, kernel("always"));
      await compileKernel(device, kernel(`text ${n}`));
    }
    expect(count.pipelines).toBe(1001);
    await compileKernel(device, kernel(`text ${1000 - 255}`));
    expect(count.pipelines).toBe(1001);
    await compileKernel(device, kernel("text 0"));
    expect(count.pipelines).toBe(1002);
  });
  it("are dropped by release, and that of another device are not", async () => {
    const one = stub();
    const other = stub();
    for (const { device } of [one, other]) await compileKernel(device, kernel("text"));
    release(one.device);
    for (const { device } of [one, other]) await compileKernel(device, kernel("text"));
    expect([one.count.pipelines, other.count.pipelines]).toEqual([2, 1]);
    await expectError(() => release({} as GPUDevice), "device", /^expected a GPUDevice, got \{/);
  });
  it("do not keep a text that did not compile", async () => {
    const { device, count, fail } = stub();
    fail(true);
    await expectError(
      () => compileKernel(device, kernel("text")),
      "shader",
      "k does not compile:\nno",
    );
    fail(false);
    await compileKernel(device, kernel("text"));
    expect(count.pipelines).toBe(2);
  });
  it("of a kernel are linked again after 64 others, and a failed load is tried again", async () => {
    const cache = new KernelCache<number>();
    let made = 0;
    const get = (n: number) =>
      cache.get(n, () => {
        made++;
        return kernel(`${n}`);
      });
    for (let n = 0; n <= 64; n++) get(n);
    expect(made).toBe(65);
    get(1);
    get(64);
    expect(made).toBe(65);
    get(0);
    expect(made).toBe(66);
    const loaded = new KernelCache<number, Promise<KernelSource>>();
    await expect(loaded.get(1, () => Promise.reject(new Error("no network")))).rejects.toThrow(
      "no network",
    );
    expect((await loaded.get(1, async () => kernel("1"))).code).toBe("1");
  });
});

describe("a device that is lost in flight", () => {
  it("rejects what was under way, though its scopes say nothing", async () => {
    const { device, lose } = stub();
    const { done } = guarded(device, "work", () => {});
    lose();
    await expectError(() => done, "device-lost", /^the GPU device was lost \(unknown: gone\)/);
    await expectError(() => guarded(device, "more", () => {}), "device-lost", /lost/);
    await expectError(() => compileKernel(device, kernel("text")), "device-lost", /lost/);
    release(device);
    await expectError(() => guarded(device, "more", () => {}), "device-lost", /lost/);
  });
  it("is waited for by as many as like to, and the device keeps none of them", async () => {
    const { device, lose } = stub();
    const waits = vi.spyOn(device.lost, "then");
    await Promise.all(Array.from({ length: 20 }, () => toldOfLoss(device)));
    expect(waits.mock.calls.length).toBeLessThan(2);
    const started = performance.now();
    const told = Array.from({ length: 20 }, () => toldOfLoss(device));
    lose();
    await Promise.all(told);
    await toldOfLoss(device);
    expect(performance.now() - started).toBeLessThan(40); // not the 50 ms that the other calls wait
    await expectError(() => guarded(device, "more", () => {}), "device-lost", /lost/);
  });
  it("is not an unhandled rejection if nobody waits", async () => {
    const unhandled: unknown[] = [];
    const listen = (reason: unknown) => unhandled.push(reason);
    process.on("unhandledRejection", listen);
    const { device, lose } = stub();
    guarded(device, "dropped", () => {});
    expect(() =>
      guarded(device, "thrown", () => {
        throw new Error("in between");
      }),
    ).toThrow("in between");
    lose();
    await new Promise((resolve) => setTimeout(resolve, 20));
    process.off("unhandledRejection", listen);
    expect(unhandled).toEqual([]);
  });
});

describe("settle", () => {
  it("waits for all, and rejects with the error that explains the others", async () => {
    const error = (code: "validation" | "out-of-memory" | "device-lost") =>
      new FoveaError(code, code);
    const late = new Promise<void>((_, reject) =>
      setTimeout(() => reject(error("out-of-memory")), 5),
    );
    await expectError(
      () => settle([Promise.reject(error("validation")), late]),
      "out-of-memory",
      "out-of-memory",
    );
    const both = [Promise.reject(error("out-of-memory")), Promise.reject(error("device-lost"))];
    await expectError(() => settle(both), "device-lost", "device-lost");
    await expect(settle([Promise.resolve(), undefined])).resolves.toBeUndefined();
  });
});

describe("what the content of a memory waits for", () => {
  it("is of all that failed the first, and the allocation whatever else failed", async () => {
    const refused = Promise.reject(new FoveaError("out-of-memory", "no memory"));
    const allocated = new Promise<void>((_, reject) =>
      setTimeout(() => reject(new Error("late")), 5),
    );
    const storage = storageOf({} as GPUBuffer, true, allocated);
    waitFor(storage, refused);
    for (let again = 0; again < 20; again++) {
      waitFor(storage, Promise.reject(new Error(`${again}`)));
      waitFor(storage, Promise.resolve());
    }
    await allocated.catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect([...storage.open]).toEqual([allocated, refused]);
  });
});
