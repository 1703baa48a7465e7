// An operation, declared once: its problem, what its tensors look like, which kernels compute it
// and what its results are. Its plan function and its one-line functions follow from that.

import { type AnyNames, type OptionNames, readOptions, type Taken } from "../given.ts";
import { checkDevice, paramsBuffer, settle } from "../gpu/buffers.ts";
import { compileKernel } from "../gpu/pipelines.ts";
import type { UniformStruct, UniformValues } from "../kernels/uniform.ts";
import type { KernelSource } from "../types.ts";
import type { Operands } from "./operand.ts";
import { bindableOf, memoryOf } from "./operand_checks.ts";
import { Plan, type PlanFacts, type PlanHooks } from "./plan.ts";
import { RUN_OPTIONS, type RunOptions, runOnce } from "./run.ts";
import type { ResolvedSpec } from "./specs.ts";
import { type PlanTensors, planTensors } from "./tensors.ts";
import { cutWork, type Dispatch, UNIFORM_STRIDE, wholeGrid } from "./work.ts";

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
  /** Gives what the operation does with bindings beyond taking each tensor by its name. */
  hooks?(resolved: Resolved, caller: Caller): PlanHooks<Bindings>;
  /** Gives what its plan tells of itself, if that isn't what plans tell by default. */
  facts?(resolved: Resolved, owned: PlanTensors["owned"]): PlanFacts;
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
    const tensors = planTensors(device, label, (into) =>
      definition.tensors(into, resolved, problem, caller),
    );
    const { operands, owned } = tensors;
    const planned = await planStages<Bindings>(caller, tensors, () => ({
      stages: [definition.kernel(resolved, caller, operands)].flat(),
      hooks: definition.hooks?.(resolved, caller),
      facts: definition.facts?.(resolved, owned),
    }));
    return { ...planned, resolved };
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
      const specs = definition.results(prepared.resolved);
      const results = await runOnce<Bindings>(device, label, prepared, options, (make) => {
        const all = Object.entries<ResolvedSpec | undefined>(specs).flatMap(([name, spec]) => {
          if (!spec) return [];
          const into = (options as Readonly<Record<string, unknown>>)[name];
          const isGiven = typeof into === "object" && into !== null;
          return [[name, isGiven ? into : make(name, spec.shape, spec.dtype)]];
        });
        return Object.fromEntries(all) as Bindings;
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

/**
 * Compiles the stages of a plan and lays out their uniforms. Whatever fails, the memory that the
 * plan owns is freed.
 */
async function planStages<Bindings extends object>(
  { device, label }: Caller,
  { operands, owned }: Pick<PlanTensors, "operands" | "owned">,
  planned: () => {
    readonly stages: readonly Stage[];
    readonly hooks?: PlanHooks<Bindings> | undefined;
    readonly facts?: PlanFacts | undefined;
  },
): Promise<Omit<Prepared<Bindings, unknown>, "resolved">> {
  try {
    const { stages: all, hooks, facts } = planned();
    // If the plan writes no element, no kernel runs, and none has to compile: not for outputs
    // without rows or columns, say.
    const bindable = hooks?.bindable ?? bindableOf(operands);
    const isEmpty = ![...operands].some(
      ([name, { written, spec }]) => written && bindable.has(name) && !spec.shape.includes(0),
    );
    const stages = isEmpty ? [] : all;
    const compiled = await Promise.all(stages.map(({ source }) => compileKernel(device, source)));
    const { bytes, dispatches } = layUniforms(device, all);
    const boundLike = firstsAlike(stages);
    const { value: params, done } = paramsBuffer(device, label, [bytes]);
    const plan = Plan.make<Bindings>({
      device,
      label,
      operands,
      stages: stages.map(({ source, names, params: { struct } }, index) => ({
        source,
        names,
        compiled: compiled[index],
        dispatches: dispatches[index],
        uniformBytes: struct.bytes,
        boundLike: boundLike[index],
      })),
      params,
      numbers: new Map(),
      owned,
      hooks,
      facts,
    });
    const allocated = settle([done, ...memoryOf(operands)]);
    allocated.catch(() => plan.destroy());
    return { plan, allocated };
  } catch (error) {
    for (const one of owned) one.destroy();
    throw error;
  }
}

/** The uniforms of all dispatches, one after the other. */
function layUniforms(device: GPUDevice, stages: readonly Stage[]) {
  let end = 0;
  const laid = stages.map(({ params: { struct }, workgroups, flops = [1, Infinity] }) => {
    const parts = struct.has("first_workgroup")
      ? cutWork(device, workgroups, ...flops)
      : wholeGrid(device, workgroups);
    return parts.map((part) => {
      const paramsOffset = end;
      end += struct.stride;
      return { ...part, paramsOffset };
    });
  });
  const bytes = new ArrayBuffer(Math.max(end, UNIFORM_STRIDE));
  const dispatches = stages.map(({ source, params: { struct, values } }, index) =>
    laid[index].map(({ x, y, paramsOffset, ...range }): Dispatch => {
      const known = Object.entries(range).filter(([name]) => struct.has(name));
      const all = { ...values, ...Object.fromEntries(known) };
      struct.pack(all, bytes, paramsOffset, source);
      return { x, y, paramsOffset };
    }),
  );
  return { bytes, dispatches };
}

/**
 * For each stage, the index of the first one with the same kernel and bindings, if that isn't the
 * stage itself.
 */
function firstsAlike(stages: readonly Stage[]): (number | undefined)[] {
  const firsts = new Map<KernelSource, Map<string, number>>();
  return stages.map(({ source, names }, index) => {
    const ofSource = firsts.get(source) ?? new Map<string, number>();
    firsts.set(source, ofSource);
    const key = JSON.stringify(names);
    const first = ofSource.get(key);
    if (first === undefined) ofSource.set(key, index);
    return first;
  });
}
