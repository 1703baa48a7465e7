// Products are in f16 if the caller, the device and the problem allow it. Their values are tested
// in test/portability, for software adapters of browsers have no shader-f16.

import { describe, expect, it } from "vitest";
import { type AttentionProblem, planAttention } from "../../src/index.ts";
import { chooseForwardTile } from "../../src/kernels/forward_tiles.ts";
import { failOnGpuErrors, overridden, testDevice } from "../support/device.ts";

failOnGpuErrors();

const spec = (dtype: "f16" | "f32" = "f16", width = 64) => ({ shape: [1, 2, 100, width], dtype });
const F16 = { q: spec(), k: spec(), v: spec() };

describe("the tile table", () => {
  const gpu = { workgroupBytes: 32768, software: false };
  const half = {
    headDim: 64,
    vDim: 64,
    seqQ: 100,
    allowF16Products: true,
    f16Rows: true,
    plainScores: true,
  };
  const chosen = (problem: object, device: object = {}) =>
    chooseForwardTile({ ...half, ...problem }, { ...gpu, ...device }).name;
  it("has products in f16 for rows of f16 and plain scores, by head dim", () => {
    expect(chosen({})).toBe("64x64-f16");
    expect(chosen({ headDim: 40, vDim: 8 })).toBe("64x64-f16");
    expect(chosen({ vDim: 68 })).toBe("64x32-f16");
    expect(chosen({ headDim: 128, vDim: 128 })).toBe("64x32-f16");
  });
  it("has none if one requirement is missing", () => {
    for (const missing of ["allowF16Products", "f16Rows", "plainScores"]) {
      expect(chosen({ [missing]: false }), missing).toBe("64x64");
    }
    expect(chosen({ headDim: 132, vDim: 132 })).toBe("32x32");
    expect(chosen({}, { workgroupBytes: 16384 })).toBe("64x32");
    expect(chosen({}, { software: true })).toBe("64x64");
    expect(chosen({}, { software: true, subgroups: true })).toBe("16x4-quad");
  });
});

describe("a plan", () => {
  const refused = async (
    problem: Partial<AttentionProblem>,
    features = ["shader-f16"],
    variant = "64x64-f16",
  ) => {
    const device = overridden(await testDevice(), {
      features: new Set(features),
      limits: { ...limitsOf(await testDevice()), maxComputeWorkgroupStorageSize: 32768 },
    });
    const plan = planAttention(device, { ...F16, ...problem, variant });
    return plan.then(
      () => "nothing",
      (error: { code: string; message: string }) => `${error.code}: ${error.message}`,
    );
  };
  const rows =
    "limit: variant 64x64-f16 takes q, k and v of f16, with strides that are multiples of 4, and the feature shader-f16; take another.";
  const scores =
    "limit: variant 64x64-f16 has scale, causality, windows, lengths and sinks, but no other scores or masks, dropout, lse or rowMax; take another.";
  it("is refused a variant that reads other rows", async () => {
    expect(await refused({}, [])).toBe(rows);
    expect(await refused({ v: spec("f32") })).toBe(rows);
    expect(await refused({ q: spec("f16", 62), k: spec("f16", 62) })).toBe(rows);
  });
  it.each<Partial<AttentionProblem>>([
    { softcap: 5 },
    { similarity: "cosine" },
    { alibiSlopes: [0.5, 0.25] },
    { bias: { shape: [100, 100] } },
    { mask: { shape: [100, 100], dtype: "u8" } },
    { dropout: { p: 0.5, seed: 1 } },
    { lse: true },
    { rowMax: true },
  ])("is refused one that has no %o", async (more) => {
    expect(await refused(more)).toBe(scores);
  });
  it("changes nothing on a device without f16", async () => {
    const device = await testDevice();
    const [plan, usual] = await Promise.all(
      [true, false].map((allowF16Products) => planAttention(device, { ...F16, allowF16Products })),
    );
    expect(plan.kernel).toBe(usual.kernel);
    plan.destroy();
    usual.destroy();
  });
  it("says what is wrong with the option", async () => {
    const problem = { ...F16, allowF16Products: "yes" } as unknown as AttentionProblem;
    await expect(planAttention(await testDevice(), problem)).rejects.toMatchObject({
      code: "argument",
      message: 'attention: allowF16Products must be a boolean, got "yes".',
    });
  });
});

/** Copies limits into a plain object, since those of a device are getters of its prototype. */
function limitsOf({ limits }: GPUDevice): Record<string, number> {
  const copy: Record<string, number> = {};
  for (const name in limits) copy[name] = limits[name as keyof GPUSupportedLimits] as number;
  return copy;
}
