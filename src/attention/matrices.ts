// Decides for which problems and on which devices attention runs by subgroup matrices. Loaded by
// the first plan on a device that has such matrices.

import { check, FoveaError } from "../errors.ts";
import { keptFor } from "../gpu/buffers.ts";
import { MATRIX_FEATURE } from "../gpu/device.ts";
import { compileKernel } from "../gpu/pipelines.ts";
import { isDecodeVariant } from "../kernels/decode.ts";
import {
  type Component,
  MAX_HEAD_DIM,
  type MatrixLimits,
  type MatrixTile,
  matrixGrid,
  matrixKernel,
  matrixTile,
} from "../kernels/forward_matrix.ts";
import type { ModuleMap } from "../shader/link.ts";
import { type Kernels, keysOf } from "./forward_kernels.ts";
import { areRight } from "./matrix_probe.ts";
import { isLargeScale } from "./resolve.ts";
import type { ResolvedProblem } from "./resolved.ts";

/**
 * The kernels of a problem by subgroup matrices, if it asks for them. Without being asked for, they
 * are taken if q, k and v are f16, the device multiplies f16 into sums of f32, and `plain` doesn't
 * decode. A problem whose output is f32, which would show that probabilities are rounded, must also
 * allow products in f16. All other problems get `plain`. Matrices of f32 are taken by name only,
 * until some hardware has shown that they are worth it. Throws FoveaError for a variant that can't
 * run here.
 *
 * `standIns`: modules in place of the device's own, for tests.
 */
export async function matrixKernels(
  device: GPUDevice,
  problem: ResolvedProblem,
  plain: Kernels | undefined,
  standIns?: ModuleMap,
): Promise<Kernels> {
  const { variant, headDim, vDim, output, allowF16Products } = problem;
  const isPrecise = output.dtype === "f32" && !allowF16Products;
  if (plain && (headDim > MAX_HEAD_DIM || isPrecise || isDecodeVariant(plain.variant)))
    return plain;
  const component = plain || variant === "matrix-f16" ? "f16" : "f32";
  const isAble = (able: boolean, otherwise: string) => {
    check(
      able || plain !== undefined,
      "limit",
      () => `variant ${variant} ${otherwise}; take another.`,
    );
    return able;
  };
  const limits = matrixLimits(device);
  const tile = matrixTile(component, headDim, vDim, limits);
  const able =
    isAble(problem.similarity === undefined, "has dot products, and no other similarity") &&
    isAble(!isLargeScale(problem), "has scales up to 2^64") &&
    isAble(tile !== undefined, `needs ${needs(component)}; the device has ${listed(limits)}`) &&
    isAble(
      component === "f32" || isF16(device, problem),
      "takes q, k and v of f16, and the feature shader-f16",
    ) &&
    isAble(
      await isProven(device, component, limits, standIns),
      "is switched off, because a small problem came out wrong by this device's subgroup matrices",
    );
  return able && tile ? kernelsOn(device, tile, problem, plain, standIns) : (plain as Kernels);
}

/** The kernels of a tile, or `plain` if the device does not compile them. */
function kernelsOn(
  device: GPUDevice,
  tile: MatrixTile,
  problem: ResolvedProblem,
  plain?: Kernels,
  standIns?: ModuleMap,
): Kernels {
  const { headDim, vDim, seqQ } = problem;
  const grid = matrixGrid(tile, headDim, vDim, seqQ);
  const flops = 2 * grid.qTile * keysOf(problem, grid.qTile) * (headDim + vDim / grid.vSplits);
  const stagesOf: Kernels["stagesOf"] = async (slots) => {
    const source = await matrixKernel({ headDim, vDim, tile, ...slots }, standIns);
    const compiles = !plain || (await compileKernel(device, source).then(Boolean, () => false));
    return compiles ? [{ source, grid: { ...grid, flops } }] : plain.stagesOf(slots);
  };
  return { variant: `matrix-${tile.component}`, stagesOf };
}

/** The adapter's description of its matrices, which WebGPU's types don't have yet. */
type MatrixInfo = GPUAdapterInfo & {
  readonly subgroupMatrixConfigs?: Iterable<MatrixLimits["configs"][number]>;
};

function matrixLimits({ adapterInfo, features, limits }: GPUDevice): MatrixLimits {
  const info: Partial<MatrixInfo> = adapterInfo ?? {};
  const { subgroupMatrixConfigs = [], subgroupMinSize = 4, subgroupMaxSize = 128 } = info;
  return {
    configs: features.has(MATRIX_FEATURE) ? [...subgroupMatrixConfigs] : [],
    subgroupMinSize,
    subgroupMaxSize,
    workgroupBytes: limits.maxComputeWorkgroupStorageSize,
    invocations: limits.maxComputeInvocationsPerWorkgroup,
  };
}

const needs = (component: Component) =>
  `subgroup matrices of ${component} with sums of f32 (${MATRIX_FEATURE}), and memory for tiles of them`;

const listed = ({ configs, workgroupBytes }: MatrixLimits) => {
  const texts = configs.map(
    (one) => `${one.M}x${one.N}x${one.K} of ${one.componentType} to ${one.resultComponentType}`,
  );
  return `${texts.join(", ") || "none"}, and ${workgroupBytes} bytes of workgroup memory`;
};

/** Whether q, k and v are f16, so that rounding to f16 changes nothing. */
function isF16(device: GPUDevice, { q, k, v, cache }: ResolvedProblem): boolean {
  const dtypes = [q, cache?.k ?? k, cache?.v ?? v].map(({ dtype }) => dtype);
  return device.features.has("shader-f16") && dtypes.every((dtype) => dtype === "f16");
}

/**
 * Whether a device's matrices are right. This is found out once; matrices that don't compile or run
 * are not right.
 */
function isProven(
  device: GPUDevice,
  component: Component,
  limits: MatrixLimits,
  standIns?: ModuleMap,
) {
  const known = keptFor(device, "proofs of matrices", () => new Map<Component, Promise<boolean>>());
  const proof =
    known.get(component) ??
    areRight(device, component, (problem) => {
      const tile = matrixTile(component, problem.headDim, problem.vDim, limits);
      check(tile !== undefined, "limit", () => needs(component));
      return kernelsOn(device, tile, problem, undefined, standIns);
    }).catch((error) => {
      // The next time there may be memory, so the answer is not kept.
      if (error instanceof FoveaError && error.code === "out-of-memory") known.delete(component);
      return false;
    });
  known.set(component, proof);
  return proof;
}
