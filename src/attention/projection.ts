// Linear projections, y = x W^T + b: the plan, and the one-liner on top of it.

import { check } from "../errors.ts";
import { checkDevice, guarded, USAGE } from "../gpu/buffers.ts";
import { isSoftware } from "../gpu/device.ts";
import { compileKernel } from "../gpu/pipelines.ts";
import { Tensor } from "../gpu/tensor.ts";
import { chooseMatmulTile, type MatmulSpecialisation, matmulKernel, matmulTileSize } from "../kernels/matmul.ts";
import { PARAMS, type Params, packParams } from "../kernels/params.ts";
import { isAligned } from "../kernels/slots.ts";
import { accessOf } from "./build.ts";
import { addresses, cutWork, UNIFORM_STRIDE } from "./dispatch.ts";
import { checkOperand } from "./operand_checks.ts";
import type { AttentionBindings, Operand, OperandName } from "./operands.ts";
import { AttentionPlan, type Recording } from "./plan.ts";
import {
  type ProjectionBindings,
  type ProjectionProblem,
  type ResolvedProjection,
  resolveProjection,
} from "./projection_problem.ts";
import { runOnce } from "./run.ts";
import { bindingBase, checkBindingLimit } from "./specs.ts";

/** A compiled projection. Make one with {@link planProjection}; encode it as often as you like. */
export class ProjectionPlan {
  /** Kernel and variant that the tile table chose: `matmul 64x64`. */
  readonly kernel: string;
  readonly #plan: AttentionPlan;

  private constructor(plan: AttentionPlan) {
    this.kernel = plan.kernel;
    this.#plan = plan;
  }

  /** @internal Use {@link planProjection}. */
  static make(plan: AttentionPlan): ProjectionPlan {
    return new ProjectionPlan(plan);
  }

  /**
   * Records the projection into a compute pass, or into a pass of its own on a command encoder. Allocates no GPU memory
   * and submits nothing. In a caller's pass it sets the pipeline and bind group 0.
   *
   * Throws FoveaError, with nothing recorded, if a tensor does not fit the plan, was destroyed or belongs to another
   * device, or if the output shares its buffer with an input.
   *
   * @example
   * const pass = encoder.beginComputePass();
   * projection.encode(pass, { x, output });
   * pass.end();
   */
  encode(target: GPUComputePassEncoder | GPUCommandEncoder, bindings: ProjectionBindings = {}): void {
    this.#plan.encode(target, bindings as AttentionBindings);
  }

  /** @internal As {@link AttentionPlan.prepare}. */
  prepare(bindings: ProjectionBindings): Recording | undefined {
    return this.#plan.prepare(bindings as AttentionBindings);
  }

  /** Frees the plan's own small buffers. Work that was submitted before still runs. */
  destroy(): void {
    this.#plan.destroy();
  }
}

/**
 * Compiles a linear projection: a matrix product with a bias, the layer that transformers have before and after
 * attention.
 *
 * ```
 * y[..., n] = sum_k x[..., k] weight[n, k] + bias[n]
 * ```
 *
 * Each tensor is f32, f16 or bf16 and has strides of its own; products and sums are f32, in the order of k. So heads
 * are taken apart and joined, and weights are stored either way round, without copies. K may be 0: y is then the bias.
 * Sizes and strides compile nothing, but for rows of y that are no multiple of 4 long. The same inputs on the same device
 * give the same bits.
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const projection = await planProjection(device, { x: { shape: [2, 128, 512] }, weight, bias });
 */
export async function planProjection(device: GPUDevice, problem: ProjectionProblem): Promise<ProjectionPlan> {
  const { plan, allocated } = await prepareProjection(device, problem);
  await allocated;
  return ProjectionPlan.make(plan);
}

/** A plan, and a promise that rejects if its buffers could not be had: for callers with more to wait for. */
export async function prepareProjection(device: GPUDevice, problem: ProjectionProblem) {
  checkDevice(device);
  const resolved = resolveProjection(problem);
  const { label } = resolved;
  const operands = operandsOf(device, problem, resolved);
  const { spec, dispatches, bytes } = layout(device, resolved);
  const source = matmulKernel(spec);
  const compiled = await compileKernel(device, source);
  const { value: params, done } = guarded(device, label, () => {
    const usage = USAGE.UNIFORM | USAGE.STORAGE | USAGE.COPY_DST;
    const buffer = device.createBuffer({ label: `${label} params`, size: bytes.byteLength, usage });
    device.queue.writeBuffer(buffer, 0, bytes);
    return buffer;
  });
  const names = { q: "x", k: "weight", v: "bias" } as const;
  const stages = [{ source, compiled, names, dispatches }];
  const plan = AttentionPlan.make({ device, label, operands, stages, params, numbers: new Map(), owned: [] });
  done.catch(() => plan.destroy());
  return { plan, allocated: done, resolved };
}

function operandsOf(device: GPUDevice, problem: ProjectionProblem, { label, given }: ResolvedProjection) {
  const operands = new Map<OperandName, Operand>();
  for (const name of ["x", "weight", "bias", "output"] as const) {
    const spec = given[name];
    if (!spec) continue;
    const tensor = problem[name];
    const fallback = tensor instanceof Tensor ? tensor : undefined;
    const operand = { spec, base: bindingBase(device, spec), fallback, written: name === "output" };
    checkBindingLimit(label, name, device, spec);
    if (fallback) checkOperand(`${label}: ${name}`, device, operand, fallback);
    operands.set(name, operand);
  }
  return operands;
}

/** What is compiled, and the uniform of each dispatch. */
function layout(device: GPUDevice, { folded, maxDispatchFlops, variant }: ResolvedProjection) {
  const [batch, heads, rows, inner] = folded.x.shape;
  const columns = folded.output.shape[3];
  const tile = chooseMatmulTile(batch * heads * rows, columns, isSoftware(device), variant);
  const size = matmulTileSize(tile);
  const at = <T extends ResolvedProjection["given"]["bias"]>(tensor: T) =>
    (tensor && { spec: tensor, base: bindingBase(device, tensor) }) as { spec: NonNullable<T>; base: number };
  const [x, weight, output] = [at(folded.x), at(folded.weight), at(folded.output)];
  const bias = folded.bias && at(folded.bias);
  const [, , byColumn, byInner] = folded.weight.strides;
  const spec: MatmulSpecialisation = {
    ...{ tile, x: accessOf(device, x), weight: accessOf(device, weight), y: accessOf(device, output) },
    bias: bias && accessOf(device, bias),
    columnsAdjacent: byColumn === 1 && byInner !== 1,
    oddColumns: columns % 4 === 0 ? undefined : columns,
  };
  const bhmd = { layout: "bhmd" } as const;
  const [rowTiles, columnTiles] = [Math.ceil(rows / size.rows), Math.ceil(columns / size.columns)];
  const params = {
    ...(Object.fromEntries(PARAMS.map(([name]) => [name, 0])) as Params),
    ...{ seq_q: rows, seq_kv: columns, n_heads: heads, group_size: 1, inner },
    ...{ q_tiles: rowTiles, v_splits: columnTiles },
    ...addresses("q", "m", x, isAligned(spec.x), bhmd),
    ...addresses("k", "n", weight, isAligned(spec.weight), bhmd),
    ...addresses("v", "n", bias, isAligned(spec.bias ?? "dense"), bhmd),
    ...addresses("o", "m", output, isAligned(spec.y), bhmd),
  };
  const total = batch * heads * rowTiles * columnTiles;
  const parts = cutWork(device, total, Math.max(1, 2 * size.rows * size.columns * inner), maxDispatchFlops);
  const bytes = new ArrayBuffer(Math.max(1, parts.length) * UNIFORM_STRIDE);
  const dispatches = parts.map(({ x, y, ...range }, index) => {
    packParams({ ...params, ...range }, bytes, index * UNIFORM_STRIDE);
    return { x, y, paramsOffset: index * UNIFORM_STRIDE };
  });
  return { spec, dispatches, bytes };
}

/** Options of {@link project}. */
export interface ProjectionOptions extends Pick<ProjectionProblem, "maxDispatchFlops" | "variant" | "label"> {
  /** [N], added to each row. Default: none. */
  readonly bias?: Tensor;
  /** Where the result goes. Default: a new dense tensor of the dtype of x, which is the caller's to destroy. */
  readonly output?: Tensor;
}

/**
 * y = x W^T + b on the GPU. See {@link planProjection} for the formula, the rules and the shapes.
 *
 * Resolves once the GPU has accepted the work; `output.read()` waits for the result itself.
 *
 * @param x [..., K]
 * @param weight [N, K]; one that is stored [K, N] as `weight.permute(1, 0)`
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @example
 * const { output } = await project(x, weight, { bias });
 */
export async function project(
  x: Tensor,
  weight: Tensor,
  options: ProjectionOptions = {},
): Promise<{ readonly output: Tensor }> {
  const { label = "project" } = options;
  for (const [name, given] of Object.entries({ x, weight })) {
    check(given instanceof Tensor, "argument", () => `${label}: ${name} must be a Tensor; make one with tensor().`);
  }
  const { plan, allocated, resolved } = await prepareProjection(x.device, { ...options, x, weight });
  const inputs = [x, weight, ...(options.bias ? [options.bias] : [])];
  return runOnce(x.device, label, { plan, allocated }, inputs, (make) => {
    const { shape, dtype } = resolved.given.output;
    return { output: options.output ?? make("output", shape, dtype) };
  });
}
