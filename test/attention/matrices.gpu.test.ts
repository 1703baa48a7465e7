// Whether attention runs on subgroup matrices depends on what an adapter offers, on the problem,
// and on whether the device passes its check. A software adapter has no matrices, so a device
// pretends to, with stand-ins for the modules of matrices.

import { describe, expect, it } from "vitest";
import { assemblePlan } from "../../src/attention/assemble.ts";
import type { Kernels } from "../../src/attention/forward_kernels.ts";
import { matrixKernels } from "../../src/attention/matrices.ts";
import { resolveProblem } from "../../src/attention/resolve.ts";
import type { Taken } from "../../src/given.ts";
import { type AttentionProblem, planAttention, tensor } from "../../src/index.ts";
import { type MatrixLimits, matrixTile } from "../../src/kernels/forward_matrix.ts";
import { slotModules } from "../../src/kernels/slot_modules.ts";
import { PLAIN } from "../../src/kernels/slots.ts";
import { loadExtension } from "../../src/scores/resolve.ts";
import type { ModuleMap } from "../../src/shader/link.ts";
import { failOnGpuErrors, overridden, testDevice, withLimits } from "../support/device.ts";
import { standIns } from "../support/matrices.ts";

failOnGpuErrors();

const HALF = { componentType: "f16", resultComponentType: "f32", M: 16, N: 16, K: 16 };
const FULL = { componentType: "f32", resultComponentType: "f32", M: 8, N: 8, K: 8 };

describe("the tile of an adapter", () => {
  const NVIDIA = {
    configs: [HALF],
    subgroupMinSize: 32,
    subgroupMaxSize: 32,
    workgroupBytes: 32768,
    invocations: 1024,
  };
  const tile = (over: Partial<MatrixLimits>, D = 64, component: "f16" | "f32" = "f16") => {
    const found = matrixTile(component, D, D, { ...NVIDIA, ...over });
    return (
      found &&
      `${found.M}x${found.N}x${found.K}, ${found.strips} strips of ${found.rowBlocks}, ${found.lanes} lanes`
    );
  };
  it("is of the largest matrices with sums of f32", () => {
    expect(tile({})).toBe("16x16x16, 4 strips of 1, 32 lanes");
    const small = { ...HALF, M: 8, N: 8, K: 8 };
    const inexact = { ...HALF, N: 32, resultComponentType: "f16" };
    expect(tile({ configs: [small, inexact, HALF, small] })).toBe(
      "16x16x16, 4 strips of 1, 32 lanes",
    );
    expect(tile({ configs: [small, inexact] })).toBe("8x8x8, 4 strips of 2, 32 lanes");
    expect(tile({ configs: [FULL] }, 16, "f32")).toBe("8x8x8, 4 strips of 2, 32 lanes");
  });
  it("has fewer strips if memory or lanes are few", () => {
    expect(tile({}, 128)).toBe("16x16x16, 2 strips of 1, 32 lanes");
    expect(tile({ subgroupMaxSize: 64, invocations: 128 })).toBe(
      "16x16x16, 2 strips of 1, 64 lanes",
    );
  });
  it("is not there if nothing fits", () => {
    expect(tile({}, 64, "f32")).toBeUndefined();
    expect(tile({ configs: [] })).toBeUndefined();
    expect(tile({ configs: [{ ...HALF, resultComponentType: "f16" }] })).toBeUndefined();
    expect(tile({ configs: [{ ...HALF, K: 64 }] })).toBeUndefined(); // more than a tile has keys
    expect(tile({ configs: [{ ...HALF, M: 12 }] })).toBeUndefined();
    expect(tile({ workgroupBytes: 8192 })).toBeUndefined();
    expect(tile({ invocations: 32 })).toBeUndefined();
    expect(tile({}, 512)).toBeUndefined();
  });
  it("is of configurations for every subgroup that there may be", () => {
    const of16 = { ...HALF, minSubgroupSize: 16, maxSubgroupSize: 16 };
    const of32 = { ...FULL, ...HALF, minSubgroupSize: 8, maxSubgroupSize: 32 };
    expect(tile({ configs: [of16], subgroupMinSize: 16 })).toBeUndefined();
    expect(tile({ configs: [of16], subgroupMinSize: 8, subgroupMaxSize: 16 })).toBeUndefined();
    expect(tile({ configs: [of16, of32], subgroupMinSize: 16 })).toBe(
      "16x16x16, 4 strips of 1, 32 lanes",
    );
  });
});

/**
 * Makes a device that says that it has matrices: a new one at each call, of which nothing is known.
 */
async function pretender(configs: readonly object[] = [HALF, FULL]): Promise<GPUDevice> {
  // Stand-ins of f16 take twice the memory of f16.
  const device = withLimits(await testDevice(), { maxComputeWorkgroupStorageSize: 16384 });
  return overridden(device, {
    features: new Set([...device.features, "shader-f16", "chromium-experimental-subgroup-matrix"]),
    adapterInfo: { subgroupMatrixConfigs: configs, subgroupMinSize: 16, subgroupMaxSize: 16 },
  });
}

/**
 * Modules that stand in for matrices of f16 and, because Chromium's software adapter has no type
 * f16, for the reading of rows of f16.
 */
const packed = slotModules({ ...PLAIN, q: "f16-packed", k: "f16-packed", v: "f16-packed" });
const RIGHT: ModuleMap = {
  ...standIns("f16"),
  ...Object.fromEntries(
    Object.entries(packed).filter(([path]) => /query|key|value|half/.test(path)),
  ),
};
/** Modules that load the right matrix wrongly, as if its columns lay in another way. */
const WRONG: ModuleMap = {
  ...RIGHT,
  "package::lib::matrix": `${RIGHT["package::lib::matrix"]}`.replace(
    "Right(at, 1u, stride)",
    "Right(at, stride, 1u)",
  ),
};

// The kernel of the check has these head dims, too: it compiles once.
const spec = { shape: [1, 2, 100, 40], dtype: "f16" } as const;
const F16: Taken<AttentionProblem> = { q: spec, k: spec, v: spec };

const TABLES: Kernels = { variant: "64x32", stagesOf: () => [] };

/** Returns the variant that a problem gets on a device with stand-ins. */
async function chosen(
  device: GPUDevice,
  problem: Taken<AttentionProblem>,
  modules?: ModuleMap,
  tables = TABLES,
) {
  const resolved = resolveProblem(problem, await loadExtension(problem));
  return (await matrixKernels(device, resolved, problem.variant ? undefined : tables, modules))
    .variant;
}

/** Returns the message by which a device refuses a variant. */
const refusal = (
  device: GPUDevice,
  problem: Partial<Taken<AttentionProblem>>,
  modules?: ModuleMap,
) =>
  chosen(device, { ...F16, ...problem }, modules).then(
    () => "nothing",
    (error: { code: string; message: string }) => `${error.code}: ${error.message}`,
  );
const OFF =
  "limit: variant matrix-f16 is switched off, because a small problem came out wrong by this device's subgroup matrices; take another.";

describe("on a device whose matrices are right", () => {
  it("attention of f16 runs on them", async () => {
    const device = await pretender();
    const output = tensor(device, spec.shape);
    const problem = { ...F16, output, allowF16Products: true };
    const { plan } = await assemblePlan(device, problem, (resolved) =>
      matrixKernels(device, resolved, TABLES, RIGHT),
    );
    expect(plan.kernel).toBe("forward matrix-f16");
    plan.destroy();
    output.destroy();
    // The check runs once for the device: what goes wrong afterwards isn't noticed any more.
    expect(await chosen(device, F16, WRONG)).toBe("matrix-f16");
    expect(await chosen(device, { ...F16, variant: "matrix-f16" }, WRONG)).toBe("matrix-f16");
    // Some problems have another kernel all the same.
    const wide = { ...spec, shape: [1, 2, 100, 132] };
    expect(await chosen(device, { q: wide, k: wide, v: wide })).toBe("64x32");
    expect(await chosen(device, { ...F16, v: { ...spec, dtype: "bf16" } })).toBe("64x32");
    expect(await chosen(device, { ...F16, similarity: "cosine" })).toBe("64x32");
    expect(await chosen(device, { ...F16, output: { ...spec, dtype: "f32" } })).toBe("64x32");
    expect(await chosen(device, F16, RIGHT, { ...TABLES, variant: "decode-64" })).toBe("decode-64");
  });
});

describe("matrices that are wrong", () => {
  it("are switched off", async () => {
    const device = await pretender();
    expect(await chosen(device, F16, WRONG)).toBe("64x32");
    expect(await refusal(device, { variant: "matrix-f16" }, RIGHT)).toBe(OFF);
  });
  it("are switched off, if they don't compile", async () => {
    const device = await pretender();
    expect(await chosen(device, F16)).toBe("64x32");
    expect(await refusal(device, { variant: "matrix-f16" })).toBe(OFF);
  });
});

describe("a variant of matrices is refused", () => {
  it("on a device that has none, by every plan", async () => {
    const device = await testDevice();
    await expect(planAttention(device, { ...F16, variant: "matrix-f32" })).rejects.toMatchObject({
      code: "limit",
      message: `variant matrix-f32 needs subgroup matrices of f32 with sums of f32 (chromium-experimental-subgroup-matrix), and memory for tiles of them; the device has none, and ${device.limits.maxComputeWorkgroupStorageSize} bytes of workgroup memory; take another.`,
    });
  });
  it("if the adapter has other ones", async () => {
    expect(await refusal(await pretender([HALF]), { variant: "matrix-f32" })).toMatch(
      /^limit: variant matrix-f32 needs .*; the device has 16x16x16 of f16 to f32, and \d+ bytes of workgroup memory; take another\.$/,
    );
  });
  it("if products of the problem are not theirs", async () => {
    const device = await pretender();
    expect(await refusal(device, { variant: "matrix-f16", q: { ...spec, dtype: "f32" } })).toBe(
      "limit: variant matrix-f16 takes q, k and v of f16, and the feature shader-f16; take another.",
    );
    expect(await refusal(device, { variant: "matrix-f32", similarity: "cosine" })).toBe(
      "limit: variant matrix-f32 has dot products, and no other similarity; take another.",
    );
  });
});
