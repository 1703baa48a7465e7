// Which weights of a model adapters can stand beside: those of its linear layers.

import { Graph } from "../../training/graph.ts";
import type { Definition, Weight } from "../definition.ts";
import { LEAST } from "../weights.ts";

/** A weight that linear layers alone multiply by. */
export interface LinearWeight {
  readonly inputs: number;
  readonly outputs: number;
  /** Whether it is stored as [inputs, outputs], as GPT-2's are. */
  readonly transposed: boolean;
}

/** The weights of linear layers, by the names that a definition gives them. */
export function linearsOf(definition: Definition): ReadonlyMap<string, LinearWeight> {
  const graph = new Graph();
  const weight: Weight = (name, shape) =>
    graph.parameters.get(name)?.value ?? graph.parameter(name, shape, undefined, { frozen: true });
  definition.define(graph, weight, LEAST, {});
  const names = new Map([...graph.parameters].map(([name, { value }]) => [value.memory, name]));
  const found = new Map<string, LinearWeight>();
  const others = new Set<string>();
  for (const { label, inputs } of graph.nodes) {
    for (const [at, value] of inputs.entries()) {
      const name = names.get(value.memory);
      if (name === undefined) continue;
      if (label !== "linear" || at !== 1 || value.shape.length !== 2) others.add(name);
      const [outputs, width] = value.shape;
      found.set(name, { inputs: width, outputs, transposed: value.strides[1] !== 1 });
    }
  }
  for (const name of others) found.delete(name);
  return found;
}
