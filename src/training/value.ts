// Symbolic values and the operations between them, while a program is recorded. A value has a shape
// and a place in some memory, and no numbers.

import { check, show } from "../errors.ts";
import type { TensorData } from "../gpu/elements.ts";
import { countOf, denseStrides, isContiguous } from "../gpu/shapes.ts";
import type { Tensor } from "../gpu/tensor.ts";
import {
  INTEGER_BITS,
  type IntegerDtype,
  type WeightQuantisation,
  wordsOf,
} from "../operations/products/weight_integers.ts";
import type { Recording } from "../plan/target.ts";
import type { Dtype } from "../types.ts";
import { viewStrides } from "./views.ts";

/** What memory of a program is there for. */
export type MemoryKind = "input" | "parameter" | "constant" | "computed";

/** Memory of a program: elements that lie one after the other. */
export interface Memory {
  readonly label: string;
  readonly dtype: Dtype;
  /** Of rows of integers, how many words there are. */
  readonly elements: number;
  /** How integers stand for the numbers of a weight, whose words these are. */
  readonly quantised?: WeightRows | undefined;
  readonly kind: MemoryKind;
  /** Whether some parameter is among what it is computed from, or it is one. */
  readonly learned: boolean;
}

/** Rows of integers of so many numbers each. */
export interface WeightRows extends WeightQuantisation {
  readonly inner: number;
}

/** Words of a row. */
export const wordsOfRow = ({ inner, dtype, groupSize }: WeightRows): number =>
  wordsOf(inner, { bits: INTEGER_BITS[dtype], group: groupSize });

/** A plan of an operation whose tensors are those that it was made with. */
export interface Step {
  readonly kernel: string;
  readonly workspaceBytes: number;
  readonly dispatchCount: number;
  prepare(bindings: object): Recording | undefined;
  destroy(): void;
}

/** Gives the tensor that stands for a value. */
export type Place = (value: Value) => Tensor;

/** What an operation is asked when gradients are recorded. */
export interface Differentiation {
  /** The gradient of an output, of its shape; undefined if nothing depends on that output. */
  of(output: Value): Value | undefined;
  /** Whether the gradient of an input is wanted. */
  wants(input: Value | undefined): input is Value;
  /** Where the gradient of an input goes: the operation that writes it has it as an output. */
  into(input: Value): Value;
  /** Says that the gradient of an input is a value that there is already. */
  give(input: Value, gradient: Value): void;
}

/** An operation of a program. */
export interface Node {
  readonly label: string;
  readonly inputs: readonly Value[];
  readonly outputs: readonly Value[];
  /** The input that may be a weight of integers. Others are refused. */
  readonly integers?: Value;
  /** Compiles it for the tensors of its values. */
  plan(device: GPUDevice, at: Place): Promise<Step>;
  /**
   * Records the gradients of the inputs that are wanted. Without it, no gradient goes through the
   * operation.
   */
  gradient?(asked: Differentiation): void;
}

/** A low-rank product beside a weight: see `withAdapters`. */
export interface Adapter {
  /** [rank, inputs] */
  readonly a: Value;
  /** [outputs, rank] */
  readonly b: Value;
  /** What is multiplied: a number, or a value [1]. */
  readonly scale: number | Value;
}

/** What operations are recorded into. */
export interface Recorder {
  /** A tensor whose elements never change. */
  constant(shape: readonly number[], data: TensorData, dtype?: Dtype): Value;
  /** Whether gradients of the loss follow the operations. */
  readonly training: boolean;
  /** @internal A number for an operation that draws, and the number of the run. */
  draw(): { readonly number: number; readonly step: Value };
  /** @internal Memory for the result of an operation. */
  computed(label: string, shape: readonly number[], from: readonly Value[], dtype?: Dtype): Value;
  /** @internal Adds an operation after all others. */
  add(node: Node): void;
}

/**
 * A value of a program that is being recorded: a tensor that will be there at each run. Views of a
 * value (`reshape`, `permute`, `slice`) share its memory and cost nothing.
 */
export class Value {
  readonly graph: Recorder;
  /** @internal */
  readonly memory: Memory;
  readonly shape: readonly number[];
  /** Elements from one index to the next along each axis. */
  readonly strides: readonly number[];
  /** Elements of the memory before the first one. */
  readonly offset: number;
  /** @internal What `linear` adds to the product with this weight. */
  readonly adapters: readonly Adapter[];
  readonly #made = true;

  /** @internal Values come from {@link Graph.input}, {@link Graph.parameter} and operations. */
  constructor(
    graph: Recorder,
    memory: Memory,
    shape: readonly number[],
    strides: readonly number[] = denseStrides(shape),
    offset = 0,
    adapters: readonly Adapter[] = [],
  ) {
    this.graph = graph;
    this.memory = memory;
    this.shape = shape;
    this.strides = strides;
    this.offset = offset;
    this.adapters = adapters;
  }

  /** @internal Makes `instanceof` ask the object itself, and never throw. */
  static [Symbol.hasInstance](value: unknown): value is Value {
    try {
      return typeof value === "object" && value !== null && #made in value;
    } catch {
      return false; // a revoked proxy
    }
  }

  /** @internal A weight, and what else `linear` adds to the product with it. */
  static withAdapter(weight: Value, adapter: Adapter): Value {
    const { graph, memory, shape, strides, offset, adapters } = weight;
    return new Value(graph, memory, shape, strides, offset, [...adapters, adapter]);
  }

  get dtype(): Dtype | IntegerDtype {
    return this.memory.quantised?.dtype ?? this.memory.dtype;
  }

  /** @internal How integers stand for its numbers, if they do. */
  get quantised(): WeightQuantisation | undefined {
    const { dtype, groupSize } = this.memory.quantised ?? {};
    return dtype && groupSize ? { dtype, groupSize } : undefined;
  }

  get label(): string {
    return this.memory.label;
  }

  /** Number of elements. */
  get size(): number {
    return countOf(this.shape);
  }

  /** Whether the elements lie one after the other in row-major order. */
  get isDense(): boolean {
    return isContiguous(this.shape, this.strides);
  }

  /** @internal Where its elements lie in its memory; of integers, the words of its rows. */
  get stored(): Pick<Value, "shape" | "strides" | "offset"> {
    const { memory, label, shape, strides, offset } = this;
    if (!memory.quantised) return { shape, strides, offset };
    const { inner } = memory.quantised;
    check(
      shape.length === 2 && shape[1] === inner && strides[0] === inner && strides[1] === 1,
      "argument",
      () =>
        `${label}: a weight of ${this.dtype} is taken as whole rows of ${inner}, got [${shape}] with strides [${strides}].`,
    );
    const words = wordsOfRow(memory.quantised);
    return { shape: [shape[0], words], strides: [words, 1], offset: (offset / inner) * words };
  }

  /** @internal Whether each element of the memory is an element of the value. */
  get isWhole(): boolean {
    return this.size === this.memory.elements;
  }

  /**
   * The same elements under another shape, in row-major order. Throws FoveaError("argument") if the
   * sizes differ, or if axes would have to be joined whose elements do not lie one after the other;
   * {@link contiguous} copies those.
   */
  reshape(...shape: readonly number[]): Value {
    this.#checkPlain("reshape");
    check(
      countOf(shape) === this.size,
      "argument",
      () => `${this.label}.reshape: [${this.shape}] has ${this.size} elements, [${shape}] not.`,
    );
    const strides = viewStrides(this.shape, this.strides, shape);
    check(
      strides !== undefined,
      "argument",
      () =>
        `${this.label}.reshape: the elements of [${this.shape}] with strides [${this.strides}] do not lie as [${shape}] needs them; take contiguous(value) first.`,
    );
    return new Value(this.graph, this.memory, shape, strides, this.offset);
  }

  /** The same elements with the axes in another order: `permute(0, 2, 1)`. */
  permute(...axes: readonly number[]): Value {
    check(
      axes.length === this.shape.length && this.shape.every((_, axis) => axes.includes(axis)),
      "argument",
      () =>
        `${this.label}.permute: expected each of the axes 0..${this.shape.length - 1} once, got ${show(axes)}.`,
    );
    const shape = axes.map((axis) => this.shape[axis]);
    const strides = axes.map((axis) => this.strides[axis]);
    // Adapters are of matrices, and the transpose of B A is that of A times that of B.
    const adapters =
      axes[0] === 0
        ? this.adapters
        : this.adapters.map(({ a, b, scale }) => {
            return { a: b.permute(1, 0), b: a.permute(1, 0), scale };
          });
    return new Value(this.graph, this.memory, shape, strides, this.offset, adapters);
  }

  /** The elements `start` up to but not including `end` of an axis. */
  slice(axis: number, start: number, end: number): Value {
    this.#checkPlain("slice");
    check(
      [axis, start, end].every(Number.isInteger) &&
        0 <= start &&
        start <= end &&
        end <= this.shape[axis],
      "argument",
      () =>
        `${this.label}.slice: no range ${show(start)}..${show(end)} of axis ${show(axis)} in shape [${this.shape}].`,
    );
    const shape = this.shape.map((size, at) => (at === axis ? end - start : size));
    const offset = this.offset + start * this.strides[axis];
    return new Value(this.graph, this.memory, shape, this.strides, offset);
  }

  #checkPlain(method: string): void {
    check(
      this.adapters.length === 0,
      "argument",
      () =>
        `${this.label}.${method}: the weight has an adapter, which only linear() takes; leave it out of the targets.`,
    );
  }
}
