// The adapters of a model, and which of them are used.

import { check, FoveaError, show } from "../../errors.ts";
import { isRecord } from "../../given.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import type { Graph } from "../../training/graph.ts";
import { Value } from "../../training/value.ts";
import type { FloatDtype } from "../../types.ts";
import type { Definition, Weight } from "../definition.ts";
import type { FileSource } from "../source.ts";
import { type LoadedAdapter, loadAdapter } from "./load.ts";

/** An adapter with how much of it is used. */
interface Part {
  readonly adapter: LoadedAdapter;
  readonly weight: number;
}

/** Adapters that are used together. It never changes. */
export class AdapterMix {
  /** What programs are recorded for. */
  readonly names: readonly string[];
  readonly #parts: readonly Part[];

  constructor(parts: readonly Part[]) {
    this.#parts = parts;
    this.names = parts.map(({ adapter }) => adapter.name);
  }

  /** The adapters by their names, with how much of each is used. */
  get weights(): Readonly<Record<string, number>> {
    return Object.fromEntries(this.#parts.map(({ adapter, weight }) => [adapter.name, weight]));
  }

  /** The tensors of a model, and those of the adapters. */
  with(tensors: ReadonlyMap<string, Tensor>): ReadonlyMap<string, Tensor> {
    if (this.#parts.length === 0) return tensors;
    return new Map(
      [tensors, ...this.#parts.map(({ adapter }) => adapter.tensors)].flatMap(entries),
    );
  }

  /** The weights of a graph, with adapters beside them. */
  over(graph: Graph, weight: Weight): Weight {
    if (this.#parts.length === 0) return weight;
    const made = new Map<string, Value>();
    return (name, shape, plus) => {
      const known = made.get(name);
      if (known) return known;
      let value = weight(name, shape, plus);
      for (const { adapter } of this.#parts) value = beside(graph, adapter, name, value);
      made.set(name, value);
      return value;
    };
  }

  /**
   * Gives the adapters their weights, for what is submitted next. Programs of the same adapters
   * share these numbers, so each submission is preceded by its own.
   */
  weigh(): void {
    for (const { adapter, weight } of this.#parts) adapter.weigh(weight);
  }
}

const entries = (map: ReadonlyMap<string, Tensor>) => [...map];

/** A weight with an adapter beside it, if the adapter has something for it. */
function beside(graph: Graph, adapter: LoadedAdapter, name: string, weight: Value): Value {
  const own = adapter.modules.get(name);
  if (!own) return weight;
  const parameter = (tensorName: string) => {
    const known = graph.parameters.get(tensorName);
    if (known) return known.value;
    const { shape, dtype } = adapter.tensors.get(tensorName) as Tensor;
    const settings = { frozen: true, dtype: dtype as FloatDtype };
    return graph.parameter(tensorName, shape, undefined, settings);
  };
  const a = parameter(own.a);
  const b = parameter(own.b);
  const scale = parameter(own.scale);
  return Value.withAdapter(
    weight,
    own.transposed ? { a: b.permute(1, 0), b: a.permute(1, 0), scale } : { a, b, scale },
  );
}

/** The adapters of a model. */
export class Adapters {
  readonly #device: GPUDevice;
  readonly #definition: Definition;
  /** With where each came from; undefined while it is loaded. */
  readonly #added = new Map<string, { adapter?: LoadedAdapter; readonly source: FileSource }>();
  #mix = new AdapterMix([]);
  #destroyed = false;

  constructor(device: GPUDevice, definition: Definition) {
    this.#device = device;
    this.#definition = definition;
  }

  /** What is used now. */
  get mix(): AdapterMix {
    return this.#mix;
  }

  /** Bytes of GPU memory. */
  get bytes(): number {
    return [...this.#added.values()].reduce((sum, { adapter }) => sum + (adapter?.bytes ?? 0), 0);
  }

  async add(name: string, source: FileSource): Promise<void> {
    const { family } = this.#definition;
    check(
      typeof name === "string" && name !== "",
      "argument",
      () => `${family}: the name of an adapter is a text, got ${show(name)}.`,
    );
    check(
      !this.#added.has(name),
      "argument",
      () => `${family}: there is already an adapter named ${show(name)}.`,
    );
    const added: { adapter?: LoadedAdapter; readonly source: FileSource } = { source };
    this.#added.set(name, added);
    try {
      const adapter = await loadAdapter(this.#device, name, source, this.#definition);
      added.adapter = adapter;
      if (!this.#destroyed) return;
      adapter.destroy();
      throw new FoveaError("destroyed", `${family}: the model was destroyed.`);
    } catch (error) {
      this.#added.delete(name);
      throw error;
    }
  }

  use(weights: Readonly<Record<string, number>>): void {
    const { family } = this.#definition;
    check(
      isRecord(weights),
      "argument",
      () => `${family}: adapters are used as { name: weight }, got ${show(weights)}.`,
    );
    const parts = Object.entries(weights).map(([name, weight]) => {
      const adapter = this.#added.get(name)?.adapter;
      check(
        adapter !== undefined,
        "argument",
        () => `${family}: there is no adapter ${show(name)}; ${this.#told()}.`,
      );
      check(
        typeof weight === "number" && Number.isFinite(Math.fround(weight)),
        "argument",
        () => `${family}: the weight of an adapter is a number, got ${show(weight)} for ${name}.`,
      );
      return { adapter, weight };
    });
    const used = parts.filter(({ weight }) => weight !== 0);
    used.sort((one, other) => (one.adapter.name < other.adapter.name ? -1 : 1));
    const mix = new AdapterMix(used);
    // What is the same leaves sessions as they are.
    if (JSON.stringify(mix.weights) !== JSON.stringify(this.#mix.weights)) this.#mix = mix;
  }

  /** Loads the adapters of another model, and uses them as it does. */
  async take(others: Adapters): Promise<void> {
    for (const [name, { source }] of others.#added) await this.add(name, source);
    this.use(others.#mix.weights);
  }

  destroy(): void {
    this.#destroyed = true;
    for (const { adapter } of this.#added.values()) adapter?.destroy();
  }

  #told(): string {
    const names = [...this.#added].filter(([, { adapter }]) => adapter).map(([name]) => show(name));
    return names.length > 0 ? `there are ${names.join(", ")}` : "none was added";
  }
}
