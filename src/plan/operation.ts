// An operation, declared once: its problem, what its tensors look like, which kernels compute it
// and what its results are. Its plan function and its one-line functions follow from that.

import { type AnyNames, type OptionNames, readOptions, type Taken } from "../given.ts";
import { checkDevice, paramsBuffer, settle } from "../gpu/buffers.ts";
import { compileKernel } from "../gpu/pipelines.ts";
import type { UniformStruct, UniformValues } from "../kernels/uniform.ts";
import type { KernelSource } from "../types.ts";
import type { Operands } from "./operand.ts";
import { memoryOf } from "./operand_checks.ts";
import { Plan, type PlanHooks, plainHooks } from "./plan.ts";
import { RUN_OPTIONS, type RunOptions, runOnce } from "./run.ts";
import type { ResolvedSpec } from "./specs.ts";
import { type PlanTensors, planTensors } from "./tensors.ts";
import { cutWork, wholeGrid } from "./work.ts";

/**
 * Names the caller of a plan: the label of its errors and GPU objects, and the device that it will
 * run on.
 */
export interface Caller {
  readonly label: string;
  readonly device: GPUDevice;
}

/** A kernel that runs once over the whole output. */
export interface Stage {
  readonly source: KernelSource;
  /** The plan's names for the shader's bindings, if the two differ. */
  readonly names: Readonly<Record<string, string>>;
  /**
   * The values of the uniform, without the members that say the grid and the share of a dispatch.
   */
  readonly params: { readonly struct: UniformStruct; readonly values: UniformValues };
  readonly workgroups: number;
  /**
   * Operations of a workgroup, and the most that one dispatch may have. Default: the work is little
   * and is never cut.
   */
  readonly flops?: readonly [each: number, most: number];
  /** A stage before it, by its index, that binds the same tensors to the same kernel. */
  readonly boundLike?: number | undefined;
}

/** How an operation is declared. */
export interface OperationDefinition<Problem, Bindings, Resolved, Results> {
  /** The label of a plan if its problem has none. */
  readonly name: string;
  /** The names of all members of a problem. */
  readonly problem: OptionNames<Problem>;
  /** Checks a problem and fills in its defaults. Throws FoveaError that names what is wrong. */
  resolve(problem: Taken<Problem>, caller: Caller): Resolved;
  /** Adds the tensors of a plan. */
  tensors(into: PlanTensors, resolved: Resolved, problem: Taken<Problem>, caller: Caller): void;
  /**
   * Gives what is compiled, and how it covers the output: one stage, or several after each other.
   */
  kernel(resolved: Resolved, caller: Caller, operands: Operands): Stage | readonly Stage[];
  /** Gives the layout of each result, by the name of its operand. */
  results(resolved: Resolved): { readonly [Name in keyof Results]?: ResolvedSpec | undefined };
  /** What it does with bindings. Default: it takes each tensor by its name. */
  hooks?(resolved: Resolved, made: Caller & Pick<PlanTensors, "owned">): PlanHooks<Bindings>;
}

/** A one-line call: one run of a problem, whose plan isn't kept. */
export interface Once<Problem, Results> {
  readonly device: GPUDevice;
  /** The name of the function that is called; it is the label if the problem has none. */
  readonly name: string;
  readonly problem: Taken<Problem>;
  /**
   * The options of the call: a result goes into the tensor that the option of its name gives, if
   * there is one.
   */
  readonly options: RunOptions & { readonly [Name in keyof Results]?: unknown };
}

/** The functions that follow from a definition. */
export interface Operation<Problem, Bindings extends object, Resolved, Results> {
  /** The plan function. */
  plan(device: GPUDevice, problem: Problem): Promise<Plan<Bindings>>;
  /** Plans a problem that was read, for callers with more to wait for than the plan's memory. */
  prepare(
    device: GPUDevice,
    problem: Taken<Problem>,
    name?: string,
  ): Promise<Prepared<Bindings, Resolved>>;
  /** Runs a one-line call; every one-line function ends with it. */
  run(once: Once<Problem, Results>): Promise<Results>;
}

/** A plan, and a promise that rejects if its buffers could not be had. */
export interface Prepared<Bindings extends object, Resolved> {
  readonly plan: Plan<Bindings>;
  readonly allocated: Promise<unknown>;
  readonly resolved: Resolved;
}

/** Declares an operation. */
export function operation<
  Problem extends { readonly label?: string },
  Bindings extends object,
  Resolved,
  Results extends object,
>(
  definition: OperationDefinition<Problem, Bindings, Resolved, Results>,
): Operation<Problem, Bindings, Resolved, Results> {
  const prepare = async (
    device: GPUDevice,
    problem: Taken<Problem>,
    name = definition.name,
  ): Promise<Prepared<Bindings, Resolved>> => {
    const { label = name } = problem as { label?: string };
    const caller = { label, device };
    checkDevice(device);
    const resolved = definition.resolve(problem, caller);
    const { operands, owned } = planTensors(device, label, (into) =>
      definition.tensors(into, resolved, problem, caller),
    );
    // Whatever fails from here on, the memory that the plan owns is freed.
    try {
      const hooks = definition.hooks?.(resolved, { ...caller, owned }) ?? plainHooks(operands);
      const stages = [definition.kernel(resolved, caller, operands)].flat();
      // Kernels that write no element never run, and those of no row or column need not compile.
      const writes = [...operands].some(
        ([name, { written, spec }]) =>
          written && hooks.bindable.has(name) && !spec.shape.includes(0),
      );
      const compiled = await Promise.all(
        writes ? stages.map(({ source }) => compileKernel(device, source)) : [],
      );
      const { bytes, laid } = layUniforms(device, stages);
      const { value: params, done } = paramsBuffer(device, label, [bytes]);
      const plan = Plan.make<Bindings>({
        device,
        label,
        operands,
        stages: compiled.map((kernel, index) => ({ ...laid[index], compiled: kernel })),
        params,
        numbers: new Map(),
        owned,
        hooks,
      });
      const allocated = settle([done, ...memoryOf(operands)]);
      allocated.catch(() => plan.destroy());
      return { plan, allocated, resolved };
    } catch (error) {
      for (const one of owned) one.destroy();
      throw error;
    }
  };
  return {
    async plan(device, problem) {
      const taken = await readOptions(definition.name, problem, definition.problem);
      const { plan, allocated } = await prepare(device, taken);
      await allocated;
      return plan;
    },
    prepare,
    async run({ device, name, problem, options }) {
      const { label = name } = problem as { label?: string };
      const prepared = await prepare(device, problem, name);
      const specs = Object.entries<ResolvedSpec | undefined>(definition.results(prepared.resolved));
      const results = await runOnce<Bindings>(device, label, prepared, options, (make) => {
        const all: Record<string, unknown> = {};
        for (const [name, spec] of specs) {
          const into = (options as Readonly<Record<string, unknown>>)[name];
          const isGiven = typeof into === "object" && into !== null;
          if (spec) all[name] = isGiven ? into : make(name, spec.shape, spec.dtype);
        }
        return all as Bindings;
      });
      return results as object as Results;
    },
  };
}

/**
 * The names of a one-line call's options: those of the problem without the ones that are arguments,
 * and the options that every call has.
 */
export function optionsBeside<Names extends AnyNames, Argument extends keyof Names>(
  problem: Names,
  ...given: readonly Argument[]
): Omit<Names, Argument> & OptionNames<RunOptions> {
  const names: Record<string, unknown> = { ...problem, ...RUN_OPTIONS };
  for (const name of given) delete names[name as string];
  return names as ReturnType<typeof optionsBeside<Names, Argument>>;
}

/** What each stage binds and dispatches, and the uniforms of all dispatches. */
function layUniforms(device: GPUDevice, stages: readonly Stage[]) {
  let end = 0;
  const laid = stages.map(({ source, names, params, workgroups, flops, boundLike }) => {
    const { struct } = params;
    const parts = struct.has("first_workgroup")
      ? cutWork(device, workgroups, ...(flops ?? [1, Infinity]))
      : wholeGrid(device, workgroups);
    const dispatches = parts.map(({ x, y, ...share }) => {
      const paramsOffset = end;
      end += struct.stride;
      return { x, y, share, paramsOffset };
    });
    return { source, names, boundLike, dispatches, uniformBytes: struct.bytes };
  });
  // A stage that dispatches nothing binds its uniform all the same.
  const bytes = new ArrayBuffer(Math.max(end, ...stages.map(({ params }) => params.struct.stride)));
  for (const [index, { source, dispatches }] of laid.entries()) {
    const { struct, values } = stages[index].params;
    for (const { share, paramsOffset } of dispatches) {
      const known = Object.entries(share).filter(([name]) => struct.has(name));
      struct.pack({ ...values, ...Object.fromEntries(known) }, bytes, paramsOffset, source);
    }
  }
  return { bytes, laid };
}
