// Gradients of a program: the operations that compute them, recorded after its own, from the loss
// back to the parameters.

import { check } from "../errors.ts";
import type { Graph } from "./graph.ts";
import { copyInto, padInto, sumOf } from "./operations/elements.ts";
import { type Memory, type Node, Value } from "./value.ts";
import { areTiles } from "./views.ts";

/** A part of the gradient of a memory: that of a view of it. */
interface Part {
  readonly view: Value;
  readonly gradient: Value;
}

/**
 * Records the gradients of a loss by all parameters.
 *
 * Throws FoveaError("argument") if the loss has more than one element or depends on no parameter.
 *
 * @returns The gradient of each parameter, by its name. A parameter that the loss does not depend
 *   on has none.
 */
export function recordBackward(graph: Graph, loss: Value): Map<string, Value> {
  check(
    loss.size === 1 && loss.memory.learned,
    "argument",
    () =>
      `the loss must be one number that depends on a parameter, got ${loss.label} [${loss.shape}].`,
  );
  const backward = new Backward(graph);
  const one = graph.constant(loss.shape, new Float32Array(1).fill(1));
  backward.parts(loss.memory).push({ view: loss, gradient: one });
  for (const node of [...graph.nodes].reverse()) backward.through(node);
  const gradients = new Map<string, Value>();
  for (const [name, { value }] of graph.parameters) {
    const gradient = backward.gradientOf(value);
    if (gradient) gradients.set(name, gradient);
  }
  return gradients;
}

class Backward {
  readonly #graph: Graph;
  readonly #parts = new Map<Memory, Part[]>();
  readonly #sums = new Map<Memory, Value>();

  constructor(graph: Graph) {
    this.#graph = graph;
  }

  parts(memory: Memory): Part[] {
    const known = this.#parts.get(memory) ?? [];
    this.#parts.set(memory, known);
    return known;
  }

  /** Records the gradients of a node's inputs, if its outputs have some. */
  through({ outputs, inputs, gradient, label }: Node): void {
    if (!outputs.some(({ memory }) => this.#parts.has(memory))) return;
    if (!inputs.some(({ memory }) => memory.learned)) return;
    check(
      gradient !== undefined,
      "argument",
      () => `${label} has no gradient, and the loss depends on parameters through it.`,
    );
    gradient({
      of: (output) => this.gradientOf(output),
      wants: (input): input is Value => Boolean(input?.memory.learned),
      into: (input) => this.#into(input),
      give: (input, given) => this.#give(input, given),
    });
  }

  /** The gradient of a value: a view of that of its memory. */
  gradientOf({ memory, shape, strides, offset }: Value): Value | undefined {
    const sum = this.#sums.get(memory) ?? this.#sum(memory);
    return sum && new Value(this.#graph, sum.memory, shape, strides, offset);
  }

  /**
   * A view of a new memory, as the value is one of its own, if it has all of that; otherwise dense.
   */
  #into(view: Value): Value {
    const { memory, shape, strides, offset, isWhole } = view;
    const label = `gradient of ${memory.label}`;
    const dense = this.#graph.computed(label, shape, []);
    const gradient = isWhole ? new Value(this.#graph, dense.memory, shape, strides, offset) : dense;
    this.parts(memory).push({ view, gradient });
    return gradient;
  }

  /** Takes a gradient that there is, without a copy if it lies as the memory does. */
  #give(view: Value, gradient: Value): void {
    const isShared = [view, gradient].every(({ isWhole, isDense }) => isWhole && isDense);
    if (isShared) this.parts(view.memory).push({ view, gradient });
    else copyInto(gradient, this.#into(view));
  }

  /** Adds up the parts of the gradient of a memory, once all of them are known. */
  #sum(memory: Memory): Value | undefined {
    const parts = this.#parts.get(memory);
    if (!parts) return undefined;
    const whole = parts.filter(({ view }) => view.isWhole).map(({ gradient }) => flat(gradient));
    const partial = parts.filter(({ view }) => !view.isWhole);
    if (partial.length) {
      const views = partial.map(({ view }) => view);
      const tiles = areTiles(memory.elements, views);
      for (const some of tiles ? [partial] : partial.map((part) => [part])) {
        const sum = this.#graph.computed(`gradient of ${memory.label}`, [memory.elements], []);
        const placed = some.map(({ view: { shape, strides, offset }, gradient }) => ({
          gradient,
          place: new Value(this.#graph, sum.memory, shape, strides, offset),
        }));
        if (!tiles) padInto(sum, placed[0].place);
        for (const { gradient, place } of placed) copyInto(gradient, place);
        whole.push(sum);
      }
    }
    const sum = sumOf(whole);
    this.#sums.set(memory, sum);
    return sum;
  }
}

/** All elements of a value's memory, in their order. */
const flat = ({ graph, memory }: Value) => new Value(graph, memory, [memory.elements]);
