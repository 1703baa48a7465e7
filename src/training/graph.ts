// What a program is recorded into: its memories, and the operations between them in their order.

import { check, show } from "../errors.ts";
import type { TensorData } from "../gpu/elements.ts";
import { countOf } from "../gpu/shapes.ts";
import type { Dtype } from "../types.ts";
import { type Memory, type MemoryKind, type Node, type Recorder, Value } from "./value.ts";

/** A memory with elements that are known when the program is made. */
export interface Given {
  readonly value: Value;
  readonly data: TensorData | undefined;
}

/** A program while it is recorded. */
export class Graph implements Recorder {
  /** @internal */
  readonly nodes: Node[] = [];
  /** @internal */
  readonly inputs = new Map<string, Value>();
  /** @internal */
  readonly parameters = new Map<string, Given>();
  /** @internal */
  readonly constants: Given[] = [];

  /**
   * What each run is given: a tensor of this shape, f32 by default.
   *
   * Throws FoveaError("argument") for a name that there is already.
   */
  input(name: string, shape: readonly number[], dtype: Dtype = "f32"): Value {
    this.#checkName(name, this.inputs);
    const value = this.#value(name, shape, dtype, "input", false);
    this.inputs.set(name, value);
    return value;
  }

  /**
   * What is learned: an f32 tensor of this shape that keeps its elements from run to run. `data` are
   * the first ones; default zeros.
   *
   * Throws FoveaError("argument") for a name that there is already.
   */
  parameter(name: string, shape: readonly number[], data?: TensorData): Value {
    this.#checkName(name, this.parameters);
    const value = this.#value(name, shape, "f32", "parameter", true);
    this.parameters.set(name, { value, data });
    return value;
  }

  /** A tensor whose elements never change. */
  constant(shape: readonly number[], data: TensorData, dtype: Dtype = "f32"): Value {
    const value = this.#value("constant", shape, dtype, "constant", false);
    this.constants.push({ value, data });
    return value;
  }

  /** @internal Memory for the result of an operation. */
  computed(label: string, shape: readonly number[], from: readonly Value[], dtype?: Dtype): Value {
    const learned = from.some(({ memory }) => memory.learned);
    return this.#value(label, shape, dtype ?? "f32", "computed", learned);
  }

  /** @internal Adds an operation after all others. */
  add(node: Node): void {
    for (const { graph, label } of [...node.inputs, ...node.outputs]) {
      check(
        graph === this,
        "argument",
        () => `${node.label}: ${label} belongs to another program.`,
      );
    }
    this.nodes.push(node);
  }

  #value(
    label: string,
    shape: readonly number[],
    dtype: Dtype,
    kind: MemoryKind,
    learned: boolean,
  ): Value {
    check(
      Array.isArray(shape) && shape.every((size) => Number.isSafeInteger(size) && size > 0),
      "argument",
      () => `${label}: a shape is a list of whole numbers from 1 up, got ${show(shape)}.`,
    );
    const memory: Memory = { label, dtype, elements: countOf(shape), kind, learned };
    return new Value(this, memory, [...shape]);
  }

  #checkName(name: string, known: ReadonlyMap<string, unknown>): void {
    check(
      typeof name === "string" && name !== "",
      "argument",
      () => `a name is text, got ${show(name)}.`,
    );
    check(!known.has(name), "argument", () => `there is already a value named ${name}.`);
  }
}
