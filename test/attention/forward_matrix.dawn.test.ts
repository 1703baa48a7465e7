// The text of the matrix kernel in Tint, which checks it for all devices: Dawn's null backend
// offers every feature, and runs nothing. What the kernel computes is tested with a stand-in for
// the matrices, in forward_matrix.gpu.test.ts.

import { expect, it } from "vitest";
import { compileKernel } from "../../src/gpu/pipelines.ts";
import { planAttention, requestFoveaDevice } from "../../src/index.ts";
import {
  type Component,
  type MatrixTile,
  matrixKernel,
  matrixTile,
} from "../../src/kernels/forward_matrix.ts";
import { PLAIN, type SlotChoice } from "../../src/kernels/slots.ts";
import { overridden } from "../support/device.ts";

const FEATURE = "chromium-experimental-subgroup-matrix" as GPUFeatureName;

const opened = (async () => {
  const { create, globals } = await import("webgpu");
  Object.assign(globalThis, globals);
  const gpu = create(["backend=null", "enable-dawn-features=allow_unsafe_apis"]);
  return requestFoveaDevice({ gpu, requiredFeatures: [FEATURE] });
})();

/** Makes the tile of a configuration. */
function tileOf(
  component: Component,
  M: number,
  N: number,
  K: number,
  lanes: number,
  headDim: number,
  vDim: number,
) {
  const configs = [{ componentType: component, resultComponentType: "f32", M, N, K }];
  const limits = {
    configs,
    subgroupMinSize: lanes,
    subgroupMaxSize: lanes,
    workgroupBytes: 65536,
    invocations: 256,
  };
  return matrixTile(component, headDim, vDim, limits) as MatrixTile;
}

const F16: SlotChoice = { q: "f16", k: "f16", v: "f16", o: "f16" };
const MORE: SlotChoice = {
  ...F16,
  tables: true,
  sequence: "batch",
  lse: true,
  rowMax: true,
  softcap: true,
  alibi: true,
  sinks: true,
  maskTensor: "bytes",
  dropout: "seeded",
};

// GPUs of NVIDIA, AMD (64 lanes), Intel and Apple offer these shapes.
const SHAPES = [
  ["f16", 16, 16, 16, 32],
  ["f16", 16, 16, 16, 64],
  ["f16", 16, 8, 16, 32],
  ["f16", 16, 8, 8, 32],
  ["f16", 8, 16, 16, 32],
  ["f16", 8, 8, 8, 32],
  ["f32", 8, 8, 8, 32],
  ["f32", 16, 16, 8, 32],
] as const;

const messagesOf = async (code: string) => {
  const device = await opened;
  device.pushErrorScope("validation");
  const { messages } = await device.createShaderModule({ code }).getCompilationInfo();
  await device.popErrorScope();
  return messages.map(({ lineNum, message }) => `${lineNum}: ${message}`);
};

it.each(SHAPES)(
  "matrices of %s, %d x %d x %d, in subgroups of %d",
  async (component, M, N, K, lanes) => {
    for (const [headDim, vDim, slots] of [
      [64, 64, component === "f16" ? F16 : PLAIN],
      [128, 128, PLAIN],
      [40, 300, MORE],
    ] as const) {
      const tile = tileOf(component, M, N, K, lanes, headDim, vDim);
      expect(
        await messagesOf((await matrixKernel({ headDim, vDim, tile, ...slots })).code),
      ).toEqual([]);
    }
  },
);

// The null backend has subgroups of up to 128 lanes and 16 KiB of workgroup memory.
const SMALL = { headDim: 16, vDim: 16, tile: tileOf("f16", 16, 16, 16, 128, 16, 16), ...F16 };

it("makes a pipeline, if subgroups fill the workgroup", async () => {
  const device = await opened;
  const source = await matrixKernel(SMALL);
  await compileKernel(device, source);
  const less = source.code.replace("@workgroup_size(WG_SIZE)", "@workgroup_size(100)");
  await expect(compileKernel(device, { ...source, code: less })).rejects.toMatchObject({
    code: "shader",
  });
});

it.each([
  ["MATRIX_N, MATRIX_K>", "MATRIX_N, MATRIX_M + MATRIX_K>"],
  ["Right, col_major", "Right, columns"],
  ["enable chromium_experimental_subgroup_matrix;", ""],
  ["alias Component = f16;", "alias Component = i8;"],
])("is checked indeed: %s", async (from, to) => {
  expect(await messagesOf((await matrixKernel(SMALL)).code.replace(from, to))).not.toEqual([]);
});

it("is switched off on a device that computes nothing, and attention has its other kernels", async () => {
  const real = await opened;
  const device = overridden(real, {
    adapterInfo: {
      subgroupMinSize: 4,
      subgroupMaxSize: 64,
      subgroupMatrixConfigs: [
        { componentType: "f16", resultComponentType: "f32", M: 16, N: 16, K: 16 },
      ],
    },
  });
  const compiled: string[] = [];
  const spec = { shape: [1, 2, 100, 16], dtype: "f16" } as const;
  const watched = overridden(device, {
    createComputePipelineAsync: (descriptor: GPUComputePipelineDescriptor) => {
      compiled.push(descriptor.label ?? "");
      return real.createComputePipelineAsync(descriptor);
    },
  });
  const plans = await Promise.all(
    [1, 2].map(() => planAttention(watched, { q: spec, k: spec, v: spec })),
  );
  expect(plans.map(({ kernel }) => kernel)).toEqual(["forward 64x32-wide", "forward 64x32-wide"]);
  expect(compiled).toEqual(["forward matrix-f16", "forward 64x32-wide"]); // each compiled once
  const asked = planAttention(watched, { q: spec, k: spec, v: spec, variant: "matrix-f16" });
  await expect(asked).rejects.toMatchObject({ code: "limit" });
});
