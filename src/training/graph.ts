// What a program is recorded into: its memories, and the operations between them in their order.

import { check, show } from "../errors.ts";
import { elementsOfList } from "../given.ts";
import type { TensorData } from "../gpu/elements.ts";
import { countOf } from "../gpu/shapes.ts";
import {
  checkedIntegers,
  groupSizeFor,
  INTEGER_BITS,
  type IntegerDtype,
} from "../operations/products/weight_integers.ts";
import type { Dtype, FloatDtype } from "../types.ts";
import {
  type Memory,
  type MemoryKind,
  type Node,
  type Recorder,
  Value,
  type WeightRows,
  wordsOfRow,
} from "./value.ts";

/** A memory with elements that are known when the program is made. */
export interface Given {
  readonly value: Value;
  readonly data: TensorData | undefined;
}

/** Options of {@link Graph.parameter}. */
export interface ParameterOptions {
  /** Whether it gets no gradient and keeps its elements, as the base of an adapter. Default false. */
  readonly frozen?: boolean;
  /**
   * Default f32; others are for frozen ones. Weights [N, K] of int8 and int4 are integers with
   * scales, for `linear` and `embedding`; their first elements are floats all the same.
   */
  readonly dtype?: FloatDtype | IntegerDtype;
  /**
   * Channels of a row that share a scale, of int8 and int4: a multiple of 8 that divides K.
   * Default: the largest up to 128 (int8) or 32 (int4).
   */
  readonly groupSize?: number;
}

/** Throws FoveaError("argument") for what is no shape: a list of whole numbers from 1 up. */
export function checkShape(label: string, shape: readonly number[]): void {
  const sizes = elementsOfList<number>(shape);
  check(
    sizes?.every((size) => Number.isSafeInteger(size) && size > 0) ?? false,
    "argument",
    () => `${label}: a shape is a list of whole numbers from 1 up, got ${show(shape)}.`,
  );
}

const isInteger = (dtype: string): dtype is IntegerDtype => Object.hasOwn(INTEGER_BITS, dtype);

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
   * Whether gradients of the loss follow the operations. Without them it is inference, and dropout
   * keeps everything.
   */
  readonly training: boolean;
  /** @internal The number of the run, u32 [1], if an operation draws others in each. */
  step: Value | undefined;
  /** @internal Draws that operations were numbered for. */
  draws = 0;

  /** @internal `recordProgram` makes it. */
  constructor(training = false) {
    this.training = training;
  }

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
  parameter(
    name: string,
    shape: readonly number[],
    data?: TensorData,
    { frozen = false, dtype = "f32", groupSize }: ParameterOptions = {},
  ): Value {
    this.#checkName(name, this.parameters);
    check(
      dtype === "f32" || frozen,
      "argument",
      () =>
        `${name}: what is learned is f32, got ${show(dtype)}; only frozen parameters have other dtypes.`,
    );
    check(
      groupSize === undefined || isInteger(dtype),
      "argument",
      () => `${name}: groupSize is for int8 and int4; ${show(dtype)} has no scales.`,
    );
    const value = isInteger(dtype)
      ? this.#integers(name, shape, { dtype, groupSize })
      : this.#value(name, shape, dtype, "parameter", !frozen);
    this.parameters.set(name, { value, data });
    return value;
  }

  /** A tensor whose elements never change. */
  constant(shape: readonly number[], data: TensorData, dtype: Dtype = "f32"): Value {
    const value = this.#value("constant", shape, dtype, "constant", false);
    this.constants.push({ value, data });
    return value;
  }

  /**
   * @internal A number for an operation that draws, and the number of the run: the same draws again
   * for the same two.
   */
  draw(): { readonly number: number; readonly step: Value } {
    this.step ??= this.#value("step", [1], "u32", "input", false);
    return { number: this.draws++, step: this.step };
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
    const adapted = node.inputs.find(({ adapters }) => adapters.length > 0);
    check(
      !adapted,
      "argument",
      () =>
        `${node.label}: ${adapted?.label} has an adapter, which only linear() takes; leave it out of the targets.`,
    );
    const integers = node.inputs.find((one) => one.quantised && one !== node.integers);
    check(
      !integers,
      "argument",
      () =>
        `${node.label}: ${integers?.label} is ${integers?.dtype}, which only linear() and embedding() take, as their weight.`,
    );
    this.nodes.push(node);
  }

  /** A frozen parameter whose rows are integers with scales. */
  #integers(
    label: string,
    shape: readonly number[],
    { dtype, groupSize }: { dtype: IntegerDtype; groupSize: number | undefined },
  ): Value {
    checkShape(label, shape);
    const [rows, inner] = shape;
    check(
      shape.length === 2 && inner % 8 === 0,
      "argument",
      () => `${label}: a weight of ${dtype} is [N, K] with a multiple of 8 for K, got [${shape}].`,
    );
    const size = groupSize ?? (groupSizeFor(dtype, inner) as number);
    checkedIntegers(label, { dtype, groupSize: size }, inner);
    const quantised: WeightRows = { dtype, groupSize: size, inner };
    const elements = rows * wordsOfRow(quantised);
    const kind = "parameter";
    const memory: Memory = { label, dtype: "u32", elements, quantised, kind, learned: false };
    return new Value(this, memory, [...shape]);
  }

  #value(
    label: string,
    shape: readonly number[],
    dtype: Dtype,
    kind: MemoryKind,
    learned: boolean,
  ): Value {
    checkShape(label, shape);
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
