// Recording: from a definition to a program, with the gradients of its loss, memory and compiled
// kernels.

import { check, reading, show } from "../errors.ts";
import { isRecord, type OptionNames, readOptions } from "../given.ts";
import { checkDevice, settle } from "../gpu/buffers.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { allocate, unread } from "./allocate.ts";
import { recordBackward } from "./backward.ts";
import { Graph } from "./graph.ts";
import { bytesOf, neededNodes, planMemory } from "./memory.ts";
import { type ProgramOptimizer, planByName } from "./optimizers/by_name.ts";
import type { OptimizerPlan } from "./optimizers/plan.ts";
import { Program } from "./program.ts";
import type { Memory, Step, Value } from "./value.ts";

/** What a definition gives. */
export interface Results {
  /** One number, which a run gives back. With it there are gradients. */
  readonly loss?: Value;
  /** Values that can be read after a run, by their names. */
  readonly outputs?: Readonly<Record<string, Value>>;
}

/** Options of {@link recordProgram}. */
export interface ProgramOptions {
  /** Changes the parameters at the end of each run. Default: nothing does. */
  readonly optimizer?: ProgramOptimizer;
  /**
   * Whether gradients of the loss by all parameters are computed. Default: if there is an
   * optimizer.
   */
  readonly gradients?: boolean;
  /** Parameters that another program has, by their names: this one shares their memory. */
  readonly parameters?: ReadonlyMap<string, Tensor>;
  /** Runs whose losses may be on their way back at a time. Default 4. */
  readonly inFlight?: number;
  /** Name of the program's GPU objects in errors and captures. Default `"program"`. */
  readonly label?: string;
}

const PROGRAM_OPTIONS: OptionNames<Omit<ProgramOptions, "optimizer">> = {
  gradients: "boolean",
  parameters: "any",
  inFlight: "number",
  label: "string",
};

/**
 * Records a program for given shapes: its operations, and with a loss those of all gradients,
 * become one list of dispatches. All pipelines are compiled and all memory is there when it
 * resolves; a run allocates none.
 *
 * Rejects with FoveaError for shapes that do not fit, and as the plans of the operations do.
 *
 * @example
 * const program = await recordProgram(device, (graph) => {
 *   const x = graph.input("x", [8, 4]);
 *   const y = linear(x, graph.parameter("weight", [2, 4], weights));
 *   return { outputs: { y } };
 * });
 * await program.run({ x: batch });
 * await program.outputs.y.read();
 */
export async function recordProgram(
  device: GPUDevice,
  define: (graph: Graph) => Results,
  options: ProgramOptions = {},
): Promise<Program> {
  checkDevice(device);
  check(
    isRecord(options),
    "argument",
    () => `program: options are an object { name: value }, got ${show(options)}.`,
  );
  // The optimizer holds functions, which tell its groups.
  const { optimizer, ...others } = reading("program: an option", () => ({ ...options }));
  const taken = await readOptions("program", others, PROGRAM_OPTIONS);
  const { label = "program", inFlight = 4 } = taken;
  const { parameters: shared = new Map() } = taken as ProgramOptions;
  const wantsGradients = taken.gradients ?? optimizer !== undefined;
  check(
    typeof define === "function",
    "argument",
    () => `${label}: a definition is a function of a graph, got ${show(define)}.`,
  );
  check(
    Number.isInteger(inFlight) && inFlight > 0,
    "argument",
    () => `${label}: inFlight must be a whole number from 1 up, got ${show(inFlight)}.`,
  );
  check(
    shared instanceof Map,
    "argument",
    () => `${label}: parameters must be a Map of tensors by name, got ${show(shared)}.`,
  );
  const graph = new Graph(wantsGradients);
  const { loss, outputs = {} } = define(graph);
  check(
    !wantsGradients || loss !== undefined,
    "argument",
    () => `${label}: gradients need a loss; the definition has to give one.`,
  );
  const gradients = wantsGradients && loss ? recordBackward(graph, loss) : new Map<string, Value>();
  const results = [...Object.values(outputs), ...gradients.values(), ...(loss ? [loss] : [])];
  const kept = new Set(results.map(({ memory }) => memory));
  const nodes = neededNodes(graph.nodes, kept);
  const together = unread(gradients.values(), nodes);
  const plan = planMemory(nodes, kept, new Set(together));
  const owned: Tensor[] = [];
  const steps: Step[] = [];
  let update: OptimizerPlan | undefined;
  try {
    const order = { label, graph, plan, together, shared };
    const at = await allocate(device, order, owned);
    const tensorsOf = (values: Iterable<readonly [string, Value]>) =>
      new Map([...values].map(([name, value]) => [name, at(value)] as const));
    const valuesOf = [...graph.parameters].map(([name, { value }]) => [name, value] as const);
    const tensors = { parameters: tensorsOf(valuesOf), gradients: tensorsOf(gradients) };
    const plans = await Promise.allSettled(nodes.map((node) => node.plan(device, at)));
    for (const one of plans) if (one.status === "fulfilled") steps.push(one.value);
    for (const one of plans) if (one.status === "rejected") throw one.reason;
    update = optimizer && (await planByName(device, label, optimizer, tensors));
    await settle(owned.map(({ allocated }) => allocated));
    const bytes = (memories: Iterable<Memory>) =>
      [...memories].reduce((sum, memory) => sum + bytesOf(memory), 0);
    const memories = (values: Iterable<Value>) => [...values].map(({ memory }) => memory);
    return new Program(
      {
        device,
        label,
        steps,
        update,
        owned,
        inputs: tensorsOf(graph.inputs),
        step: graph.step && at(graph.step),
        loss: loss && at(loss),
        inFlight,
        traced: nodes.map((node) => ({ label: node.label, results: node.outputs.map(at) })),
      },
      {
        ...tensors,
        outputs: Object.fromEntries(tensorsOf(Object.entries(outputs))),
        bytes: {
          parameters: bytes(memories(valuesOf.map(([, value]) => value))),
          inputs: bytes(memories(graph.inputs.values())),
          computed: plan.buffers.reduce((sum, one) => sum + one, 0) + bytes(together),
          unshared: bytes([...plan.placeOf.keys(), ...together]),
          workspace: (update ? [...steps, update] : steps).reduce(
            (sum, { workspaceBytes }) => sum + workspaceBytes,
            0,
          ),
        },
      },
    );
  } catch (error) {
    for (const step of steps) step.destroy();
    update?.destroy();
    for (const one of owned) one.destroy();
    throw error;
  }
}
