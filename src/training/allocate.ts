// The tensors of a program: one buffer for all parameters, one for their gradients, and what is
// computed where the plan of its memory says.

import { check, FoveaError } from "../errors.ts";
import type { TensorData } from "../gpu/elements.ts";
import { tensor } from "../gpu/make_tensor.ts";
import { BYTES } from "../gpu/shapes.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { quantiseInto } from "../operations/products/quantise.ts";
import type { Given, Graph } from "./graph.ts";
import type { MemoryPlan } from "./memory.ts";
import { type Memory, type Node, type Place, type Value, wordsOfRow } from "./value.ts";

/** Elements between the places where a binding can start on any device: 256 bytes of f32. */
const STEP = 64;

/** What memory is made for. */
export interface AllocationOrder {
  readonly label: string;
  readonly graph: Graph;
  readonly plan: MemoryPlan;
  /** Memories of gradients that nothing of the program reads: they may lie in one buffer. */
  readonly together: readonly Memory[];
  /** Parameters of another program, by their names. */
  readonly shared: ReadonlyMap<string, Tensor>;
}

/**
 * Makes the tensors of a program. Parameters lie in one buffer, and so do their gradients, so that
 * an optimiser updates all of them in one dispatch.
 */
export async function allocate(
  device: GPUDevice,
  { label, graph, plan, together, shared }: AllocationOrder,
  owned: Tensor[],
): Promise<Place> {
  const roots = new Map<Memory, Tensor>();
  const own = (shape: readonly number[], options: { dtype?: Memory["dtype"]; label: string }) => {
    const made = tensor(device, shape, options);
    owned.push(made);
    return made;
  };
  const single = async ({ value: { memory }, data }: Given) => {
    const { dtype, elements } = memory;
    const made = own([elements], { dtype, label: `${label} ${memory.label}` });
    roots.set(memory, made);
    if (data !== undefined) await made.write(flatten(data));
  };
  /** Puts memories into as few buffers as the device binds. */
  const pack = (memories: readonly Memory[], name: string) => {
    for (const group of groupsOf(device, memories)) {
      const elements = group.reduce((sum, memory) => sum + placeSize(memory), 0);
      const whole = own([elements], { label: `${label} ${name}` });
      let offset = 0;
      for (const memory of group) {
        const shape = [memory.elements];
        roots.set(memory, whole.view({ shape, offset, label: `${label} ${memory.label}` }));
        offset += placeSize(memory);
      }
    }
  };
  const buffers = plan.buffers.map((bytes) => own([bytes / 4], { label: `${label} memory` }));
  pack(together, "gradients");
  const parameters = [...graph.parameters];
  for (const [name, { value }] of parameters) {
    const given = shared.get(name);
    if (given) roots.set(value.memory, sharedParameter(label, name, value, given));
  }
  const made = parameters.filter(([name]) => !shared.has(name)).map(([, given]) => given);
  const memories = made.map(({ value: { memory } }) => memory);
  pack(
    memories.filter(({ learned }) => learned),
    "parameters",
  );
  const frozen = memories.filter(({ learned }) => !learned);
  pack(
    frozen.filter(({ dtype }) => dtype === "f32"),
    "frozen parameters",
  );
  for (const memory of frozen.filter(({ dtype }) => dtype !== "f32")) {
    const { dtype, elements } = memory;
    roots.set(memory, own([elements], { dtype, label: `${label} ${memory.label}` }));
  }
  const written = made.map(async ({ value, data }) => {
    const root = roots.get(value.memory) as Tensor;
    if (data === undefined) return;
    if (value.quantised) await writeIntegers(root, value, flatten(data));
    else await root.write(flatten(data));
  });
  const inputs = [...graph.inputs.values(), ...(graph.step ? [graph.step] : [])];
  const alone = inputs.map((value): Given => ({ value, data: undefined }));
  const waits = [...written, ...[...graph.constants, ...alone].map(single)];
  const results = await Promise.allSettled(waits);
  for (const one of results) if (one.status === "rejected") throw one.reason;
  const rootOf = (memory: Memory): Tensor => {
    const known = roots.get(memory);
    if (known) return known;
    const { buffer } = buffers[plan.placeOf.get(memory) as number];
    const { dtype, elements } = memory;
    const view = tensor(device, [elements], { buffer, dtype, label: memory.label });
    roots.set(memory, view);
    return view;
  };
  return ({ memory, stored: { shape, strides, offset } }) =>
    rootOf(memory).view({ shape, strides, offset, label: memory.label });
}

/** Gives a weight of integers its first elements. */
async function writeIntegers(root: Tensor, value: Value, data: TensorData): Promise<void> {
  const { memory, shape, quantised } = value;
  if (!memory.quantised || !quantised) return;
  const floats = tensor(root.device, shape, { label: value.label });
  try {
    await floats.write(data);
    const words = [shape[0], wordsOfRow(memory.quantised)];
    await quantiseInto(floats, root.view({ shape: words, label: value.label }), quantised);
  } finally {
    floats.destroy();
  }
}

/** Memories of gradients that are all of their memory, and that no operation reads. */
export function unread(gradients: Iterable<Value>, nodes: readonly Node[]): Memory[] {
  const read = new Set(nodes.flatMap(({ inputs }) => inputs.map(({ memory }) => memory)));
  const memories = [...gradients]
    .filter(({ isWhole }) => isWhole)
    .map(({ memory }) => memory)
    .filter((memory) => memory.kind === "computed" && !read.has(memory));
  return [...new Set(memories)];
}

/** Elements up to the place of the next memory. */
const placeSize = ({ elements }: Memory) => Math.ceil(elements / STEP) * STEP;

/** Memories in their order, in groups that a buffer holds and a kernel binds. */
function groupsOf(device: GPUDevice, memories: readonly Memory[]): Memory[][] {
  const { maxBufferSize, maxStorageBufferBindingSize } = device.limits;
  const most = Math.min(maxBufferSize, maxStorageBufferBindingSize) / BYTES.f32;
  const groups: Memory[][] = [];
  let elements = Number.POSITIVE_INFINITY;
  for (const memory of memories) {
    elements += placeSize(memory);
    if (elements > most) {
      groups.push([]);
      elements = placeSize(memory);
    }
    groups[groups.length - 1].push(memory);
  }
  return groups;
}

/** Elements in one list, as a memory has them. */
const flatten = (data: TensorData): TensorData =>
  Array.isArray(data) ? (data.flat(Number.POSITIVE_INFINITY) as number[]) : data;

function sharedParameter(label: string, name: string, value: Value, given: Tensor): Tensor {
  const { shape, dtype } = given;
  check(!given.destroyed, "destroyed", () => `${label}: the parameter ${name} was destroyed.`);
  const { memory, stored } = value;
  if (dtype === memory.dtype && String(shape) === String(stored.shape))
    return given.view({ shape: [memory.elements] });
  throw new FoveaError(
    "argument",
    `${label}: the parameter ${name} is ${dtype} [${shape}], and the program's is ${memory.dtype} [${stored.shape}].`,
  );
}
