// Plans of one kernel that has no keys: their tensors, and the way from those to a plan.

import { paramsBuffer, settle } from "../gpu/buffers.ts";
import { tensor } from "../gpu/make_tensor.ts";
import { compileKernel } from "../gpu/pipelines.ts";
import { Tensor, type TensorOptions } from "../gpu/tensor.ts";
import { PARAMS, type Params } from "../kernels/params.ts";
import type { UniformStruct, UniformValues } from "../kernels/uniform.ts";
import type { KernelSource } from "../types.ts";
import type { Operand } from "./operand.ts";
import { checkOperand, memoryOf } from "./operand_checks.ts";
import { Plan } from "./plan.ts";
import { bindingBase, checkBindingLimit, type ResolvedSpec } from "./specs.ts";
import { cutWork, UNIFORM_STRIDE } from "./work.ts";

/** The tensors of a plan. */
export interface PlanTensors {
  readonly operands: Map<string, Operand>;
  /** Those that the plan owns. */
  readonly owned: Tensor[];
  /**
   * Adds a tensor that the caller binds, and checks the one that is given for it, if there is one.
   */
  add(name: string, spec: ResolvedSpec, given: unknown, written?: boolean): void;
  /** Adds a tensor that the plan allocates. */
  own(name: string, shape: readonly number[], options: TensorOptions, written?: boolean): void;
}

/**
 * Collects the tensors of a plan. Where `collect` throws, what the plan owns by then is freed; it
 * allocates last, when nothing of the caller's is wrong.
 */
export function planTensors<T>(
  device: GPUDevice,
  label: string,
  collect: (tensors: PlanTensors) => T,
) {
  const operands = new Map<string, Operand>();
  const owned: Tensor[] = [];
  const add: PlanTensors["add"] = (name, spec, given, written = false) => {
    const fallback = given instanceof Tensor ? given : undefined;
    const operand = { spec, base: bindingBase(device, spec), fallback, written };
    checkBindingLimit(label, name, device, spec);
    if (fallback) checkOperand(`${label}: ${name}`, device, operand, fallback);
    operands.set(name, operand);
  };
  const own: PlanTensors["own"] = (name, shape, options, written) => {
    const made = tensor(device, shape, { ...options, label: `${label} ${name}` });
    owned.push(made);
    add(name, made, made, written);
  };
  try {
    return { operands, owned, collected: collect({ operands, owned, add, own }) };
  } catch (error) {
    for (const one of owned) one.destroy();
    throw error;
  }
}

/** The params of a kernel, by the struct that it shares with its family. */
export interface KernelParams {
  readonly struct: UniformStruct;
  readonly values: UniformValues;
}

/** A kernel that runs once over all there is. */
export interface OneKernel {
  readonly source: KernelSource;
  /** Our names of the shader's bindings, where they differ. */
  readonly names: Readonly<Record<string, string>>;
  /** Those of attention; or those of another family, of which none has a longer struct. */
  readonly params: Partial<Params> | KernelParams;
  readonly workgroups: number;
  /**
   * Operations of a workgroup, and after how many a dispatch is cut in two. Default: little work,
   * never cut.
   */
  readonly flops?: readonly [each: number, most: number];
}

/**
 * Compiles the kernel and lays out its uniform. Whatever fails, the memory that the plan owns is
 * freed.
 */
export async function planOneKernel<Bindings extends object>(
  device: GPUDevice,
  label: string,
  { operands, owned }: Pick<PlanTensors, "operands" | "owned">,
  kernelOf: () => OneKernel,
): Promise<{ plan: Plan<Bindings>; allocated: Promise<unknown> }> {
  try {
    const {
      source,
      names,
      params: some,
      workgroups,
      flops = [1, Number.POSITIVE_INFINITY],
    } = kernelOf();
    // Where there is no output element nothing runs, and kernels of no row or column need not
    // compile.
    const [output] = [...operands.values()].filter(({ written }) => written);
    const isEmpty = output.spec.shape.includes(0);
    const compiled = isEmpty ? undefined : await compileKernel(device, source);
    const { struct, values } =
      "struct" in some ? some : { struct: PARAMS, values: { ...NO_TILES, ...some } };
    const shareOf = (range: object) =>
      Object.fromEntries(Object.entries(range).filter(([name]) => struct.has(name)));
    const parts = cutWork(device, workgroups, ...flops);
    const bytes = new ArrayBuffer(Math.max(1, parts.length) * UNIFORM_STRIDE);
    const dispatches = parts.map(({ x, y, ...range }, index) => {
      struct.pack({ ...values, ...shareOf(range) }, bytes, index * UNIFORM_STRIDE, source);
      return { x, y, paramsOffset: index * UNIFORM_STRIDE };
    });
    const { value: params, done } = paramsBuffer(device, label, [bytes]);
    const stages = compiled ? [{ source, compiled, names, dispatches }] : [];
    const plan = Plan.make<Bindings>({
      device,
      label,
      operands,
      stages,
      params,
      numbers: new Map(),
      owned,
    });
    const allocated = settle([done, ...memoryOf(operands)]);
    allocated.catch(() => plan.destroy());
    return { plan, allocated };
  } catch (error) {
    for (const one of owned) one.destroy();
    throw error;
  }
}

/**
 * Tiles of heads and rows that share keys, as attention has them: the code is there, and kernels
 * without keys never run it.
 */
const NO_TILES = {
  group_size: 1,
  n_heads: 1,
  q_tiles: 1,
  v_splits: 1,
  rows_per_batch: 0,
  total_q: 0,
};
