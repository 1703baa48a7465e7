// Recording: from a definition to a program, with the gradients of its loss, memory and compiled
// kernels.

import { check, FoveaError } from "../errors.ts";
import { checkDevice, settle } from "../gpu/buffers.ts";
import type { TensorData } from "../gpu/elements.ts";
import { tensor } from "../gpu/make_tensor.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { recordBackward } from "./backward.ts";
import { Graph } from "./graph.ts";
import { bytesOf, neededNodes, planMemory } from "./memory.ts";
import { Program } from "./program.ts";
import type { Memory, Place, Step, Value } from "./value.ts";

/** What a definition gives. */
export interface Results {
  /** One number, which a run gives back. With it there are gradients. */
  readonly loss?: Value;
  /** Values that can be read after a run, by their names. */
  readonly outputs?: Readonly<Record<string, Value>>;
}

/** Makes the last step of a run, which changes the parameters by their gradients. */
export type Optimizer = (
  device: GPUDevice,
  parameters: ReadonlyMap<string, Tensor>,
  gradients: ReadonlyMap<string, Tensor>,
) => Promise<Step>;

/** Options of {@link recordProgram}. */
export interface ProgramOptions {
  /** Changes the parameters at the end of each run. Default: nothing does. */
  readonly optimizer?: Optimizer;
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
  const { label = "program", optimizer, inFlight = 4 } = options;
  const graph = new Graph();
  const { loss, outputs = {} } = define(graph);
  const wantsGradients = options.gradients ?? optimizer !== undefined;
  check(
    !wantsGradients || loss !== undefined,
    "argument",
    () => `${label}: gradients need a loss; the definition has to give one.`,
  );
  const gradients = wantsGradients && loss ? recordBackward(graph, loss) : new Map<string, Value>();
  const results = [...Object.values(outputs), ...gradients.values(), ...(loss ? [loss] : [])];
  const kept = new Set(results.map(({ memory }) => memory));
  const nodes = neededNodes(graph.nodes, kept);
  const plan = planMemory(nodes, kept);
  const owned: Tensor[] = [];
  const steps: Step[] = [];
  let update: Step | undefined;
  const roots = new Map<Memory, Tensor>();
  const allocate = (memory: Memory, data?: TensorData) => {
    const shape = [memory.elements];
    const settings = { dtype: memory.dtype, label: `${label} ${memory.label}` };
    const made = tensor(device, shape, data === undefined ? settings : { ...settings, data });
    owned.push(made);
    roots.set(memory, made);
    return made;
  };
  try {
    const buffers = plan.buffers.map((bytes) => {
      const made = tensor(device, [bytes / 4], { label: `${label} memory` });
      owned.push(made);
      return made;
    });
    for (const { value, data } of graph.constants) allocate(value.memory, data);
    for (const { memory } of graph.inputs.values()) allocate(memory);
    for (const [name, { value, data }] of graph.parameters) {
      const shared = options.parameters?.get(name);
      if (shared) roots.set(value.memory, sharedParameter(label, name, value, shared));
      else allocate(value.memory, flatten(data));
    }
    const rootOf = (memory: Memory): Tensor => {
      const known = roots.get(memory);
      if (known) return known;
      const { buffer } = buffers[plan.placeOf.get(memory) as number];
      const { dtype, elements } = memory;
      const made = tensor(device, [elements], { buffer, dtype, label: memory.label });
      roots.set(memory, made);
      return made;
    };
    const at: Place = ({ memory, shape, strides, offset }) =>
      rootOf(memory).view({ shape, strides, offset, label: memory.label });
    const tensorsOf = (values: Iterable<readonly [string, Value]>) =>
      new Map([...values].map(([name, value]) => [name, at(value)] as const));
    const parameters = tensorsOf(
      [...graph.parameters].map(([name, { value }]) => [name, value] as const),
    );
    const ofParameters = tensorsOf(gradients);
    const plans = await Promise.allSettled(nodes.map((node) => node.plan(device, at)));
    for (const one of plans) if (one.status === "fulfilled") steps.push(one.value);
    for (const one of plans) if (one.status === "rejected") throw one.reason;
    update = await optimizer?.(device, parameters, ofParameters);
    await settle(owned.map(({ allocated }) => allocated));
    const bytes = (values: Iterable<Value>) =>
      [...values].reduce((sum, { memory }) => sum + bytesOf(memory), 0);
    return new Program(
      {
        device,
        label,
        steps,
        update,
        owned,
        inputs: tensorsOf(graph.inputs),
        loss: loss && at(loss),
        inFlight,
      },
      {
        parameters,
        gradients: ofParameters,
        outputs: Object.fromEntries(tensorsOf(Object.entries(outputs))),
        bytes: {
          parameters: bytes([...graph.parameters.values()].map(({ value }) => value)),
          inputs: bytes(graph.inputs.values()),
          computed: plan.buffers.reduce((sum, one) => sum + one, 0),
          unshared: [...plan.placeOf.keys()].reduce((sum, memory) => sum + bytesOf(memory), 0),
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

/** Elements in one list, as a memory has them. */
const flatten = (data: TensorData | undefined): TensorData | undefined =>
  Array.isArray(data) ? (data.flat(Number.POSITIVE_INFINITY) as number[]) : data;

function sharedParameter(label: string, name: string, value: Value, given: Tensor): Tensor {
  const { shape, dtype } = given;
  if (dtype === "f32" && String(shape) === String(value.shape) && given.offset === 0)
    return given.view({ shape: [value.size] });
  throw new FoveaError(
    "argument",
    `${label}: the parameter ${name} is ${dtype} [${shape}], and the program's is f32 [${value.shape}].`,
  );
}
