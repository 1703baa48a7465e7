// The tensors of a recurrent network's plan: what a caller gives, and where parts of the plan find
// their rows in them.

import { check, reading } from "../../errors.ts";
import { isRecord } from "../../given.ts";
import { denseStrides } from "../../gpu/tensor.ts";
import { checkTensors } from "../../plan/run.ts";
import type { ResolvedSpec } from "../../plan/specs.ts";
import type { PlanTensors } from "../../plan/tensors.ts";
import type { Place, RecurrentParts } from "./plan.ts";
import type { GruProblem, ResolvedNetwork } from "./problem.ts";

/** Adds x, the weights and the lengths, which are the plan's own if they are numbers. */
export function addInputs(
  { add, own }: Pick<PlanTensors, "add" | "own">,
  { x, weights, lengths, batch }: ResolvedNetwork,
  problem: Pick<GruProblem, "x" | "weights" | "lengths">,
  isRead: (name: string) => boolean = () => true,
): void {
  if (isRead("x")) add("x", x, problem.x);
  const given = problem.weights as Readonly<Record<string, unknown>>;
  for (const [name, spec] of weights)
    if (isRead(`weights.${name}`)) add(`weights.${name}`, spec, given[name]);
  if (lengths === undefined) return;
  if ("shape" in lengths) add("lengths", lengths, problem.lengths);
  else own("lengths", [batch], { dtype: "i32", data: Int32Array.from(lengths) });
}

/**
 * A copy of the tensors of weights, as they are at the call. Throws FoveaError for something among
 * them that isn't a tensor.
 */
export function takeWeights<Weights>(label: string, group: string, weights: Weights): Weights {
  if (!isRecord(weights)) return weights; // the problem's check says what they have to be
  const copy = reading(`${label}: ${group}`, () => ({ ...weights }));
  const named = Object.entries(copy).filter(([, one]) => one !== undefined);
  checkTensors(label, Object.fromEntries(named.map(([name, one]) => [`${group}.${name}`, one])));
  return copy;
}

/** Throws FoveaError unless the elements lie one after the other. */
export function expectDense(label: string, name: string, { shape, strides }: ResolvedSpec): void {
  const dense = denseStrides(shape);
  check(
    shape.every((size, axis) => size <= 1 || strides[axis] === dense[axis]),
    "argument",
    () => `${label}: ${name} must be dense, got strides [${strides.join(", ")}].`,
  );
}

/** Throws FoveaError for memory that is given for what is not kept. */
export function expectNothingKept(
  label: string,
  { gates, states }: Pick<GruProblem, "gates" | "states">,
): void {
  check(
    gates === undefined && states === undefined,
    "argument",
    () =>
      `${label}: ${gates ? "gates" : "states"} is given, and keep is false; leave one of them out.`,
  );
}

/** Where rows of a network lie in the operands of its plan. */
export class NetworkMemory {
  readonly #network: ResolvedNetwork;
  readonly #parts: RecurrentParts;

  constructor(network: ResolvedNetwork, parts: RecurrentParts) {
    this.#network = network;
    this.#parts = parts;
  }

  /** Rows of the caller's, [B, T, columns]. `offset` and `columns` choose some of their columns. */
  rows(name: string, columns?: { readonly first: number; readonly count: number }): Place {
    const { shape, strides } = this.#parts.spec(name);
    const turned = ([a, b, c]: readonly number[]) =>
      this.#network.batchFirst ? [a, b, c] : [b, a, c];
    const [batch, steps, width] = turned(shape);
    const view = {
      shape: [batch, steps, columns?.count ?? width],
      strides: turned(strides),
      offset: (columns?.first ?? 0) * strides[2],
    };
    return { of: name, view };
  }

  /** The gates [B, T, G H] of a layer in a direction. */
  gates(slot: number, of = "gates"): Place {
    const [, batch, steps, width] = this.#parts.spec(of).shape;
    const view = {
      shape: [batch, steps, width],
      strides: [steps * width, width, 1],
      offset: slot * batch * steps * width,
    };
    return { of, view };
  }

  /** The states h_t [B, T, D H] of a layer, which the layer above takes as its x. */
  hidden(slot: number): Place {
    const { planes, steps, width, plane, batch } = this.#sizes();
    const view = {
      shape: [batch, steps, width],
      strides: [steps * width, width, 1],
      offset: slot * planes * plane,
    };
    return { of: "states", view };
  }

  /** The states h_t-1 [B, T, H] that the steps of a layer in a direction began with. */
  previous(slot: number, direction: number): Place {
    const { hidden } = this.#network;
    const { planes, steps, width, plane, batch } = this.#sizes();
    const view = {
      shape: [batch, steps, hidden],
      strides: [steps * width, width, 1],
      offset: (slot * planes + 1) * plane + direction * hidden,
    };
    return { of: "states", view };
  }

  /** All states [planes, B, T, H] of a layer in a direction. */
  states(slot: number, direction: number): Place {
    const { hidden } = this.#network;
    const { planes, steps, width, plane, batch } = this.#sizes();
    const view = {
      shape: [planes, batch, steps, hidden],
      strides: [plane, steps * width, width, 1],
      offset: slot * planes * plane + direction * hidden,
    };
    return { of: "states", view };
  }

  /** Of a tensor [L D, B, H], the part [B, H] of a layer in a direction. */
  end(name: string, index: number): Place {
    const { shape, strides } = this.#parts.spec(name);
    const view = {
      shape: shape.slice(1),
      strides: strides.slice(1),
      offset: index * strides[0],
    };
    return { of: name, view };
  }

  #sizes() {
    const [, planes, batch, steps, width] = this.#parts.spec("states").shape;
    return { planes, batch, steps, width, plane: batch * steps * width };
  }
}
