// State dicts: a model's weights by their names. An operation takes the entries under a prefix.

import { check, reading, show } from "../errors.ts";
import type { WeightSource } from "./multi_head_weights.ts";

/**
 * A model's weights by their names: a plain object or a Map. Names that are not asked for may have
 * any value.
 */
export type StateDict = Readonly<Record<string, WeightSource>> | ReadonlyMap<string, WeightSource>;

/** The most names in a message. */
const LISTED = 12;

/** The entries under a prefix, by the names that follow it. */
export class Entries {
  readonly prefix: string;
  /** Names of the whole state. */
  readonly all: readonly string[];
  /** Names under the prefix, without it. */
  readonly names: ReadonlySet<string>;
  readonly #state: unknown;

  constructor(state: unknown, prefix: string) {
    check(
      typeof state === "object" &&
        state !== null &&
        !Array.isArray(state) &&
        !ArrayBuffer.isView(state),
      "argument",
      () => `multiHeadWeights: a state is an object { name: weight } or a Map, got ${show(state)}.`,
    );
    this.prefix = prefix === "" || prefix.endsWith(".") ? prefix : `${prefix}.`;
    this.#state = state;
    const keys: unknown[] = state instanceof Map ? [...state.keys()] : Object.keys(state);
    this.all = keys.filter((key) => typeof key === "string");
    const under = this.all.filter((key) => key.startsWith(this.prefix));
    this.names = new Set(under.map((key) => key.slice(this.prefix.length)));
  }

  /** Gives a weight; undefined if there is none of this name, or null. */
  get(name: string): WeightSource | undefined {
    if (!this.names.has(name)) return undefined;
    const key = this.prefix + name;
    return reading(`multiHeadWeights: ${show(key)}`, () => {
      const state = this.#state as StateDict;
      return (
        (state instanceof Map ? state.get(key) : (state as Record<string, WeightSource>)[key]) ??
        undefined
      );
    });
  }

  has(name: string): boolean {
    return this.get(name) !== undefined;
  }

  /** Gives a weight that must be there. Throws FoveaError if it isn't. */
  needed(name: string): WeightSource {
    const source = this.get(name);
    check(
      source !== undefined,
      "argument",
      () =>
        `multiHeadWeights: ${show(this.prefix + name)} is missing. The state has ${this.listed()}.`,
    );
    return source;
  }

  /**
   * Throws FoveaError if a linear layer has more than weight and bias, because adapters and
   * quantised weights would be left out silently.
   */
  checkLinear(name: string): void {
    for (const other of this.names) {
      check(
        !other.startsWith(`${name}.`) || other === `${name}.weight` || other === `${name}.bias`,
        "argument",
        () =>
          `multiHeadWeights: ${show(this.prefix + other)} is neither weight nor bias of ${name}; adapters must be merged and quantised weights unpacked first.`,
      );
    }
  }

  /** The names that there are, for messages. */
  listed(): string {
    const names =
      this.names.size > 0 ? [...this.names].map((name) => this.prefix + name) : this.all;
    const where =
      this.names.size > 0 || this.prefix === "" ? "" : `nothing under ${show(this.prefix)}, but `;
    const more = names.length > LISTED ? ` and ${names.length - LISTED} more` : "";
    return `${where}${
      names
        .slice(0, LISTED)
        .map((name) => show(name))
        .join(", ") || "nothing"
    }${more}`;
  }
}
