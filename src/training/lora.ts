// Low-rank adapters: a small matrix product beside a weight that stays as it is.

import { check, show } from "../errors.ts";
import type { OptionNames } from "../given.ts";
import { checkParameters, takeSettings, withoutFunction } from "./arguments.ts";
import { byInputs } from "./initial.ts";
import type { Parameters } from "./layers.ts";
import { Value } from "./value.ts";

/** Options of {@link withAdapters}. */
export interface AdapterSettings {
  /** Rows of `lora_A`, columns of `lora_B`: a whole number from 1 up. */
  readonly rank: number;
  /** What the adapter adds is multiplied by alpha / rank. Default: the rank, so by 1. */
  readonly alpha?: number;
  /** Which weights get one, by their names. Each has to be the weight of a `linear`. */
  readonly targets: (name: string) => boolean;
}

const SIZES: OptionNames<Omit<AdapterSettings, "targets">> = { rank: "number", alpha: "number" };

/** Whether a parameter belongs to an adapter, by its name: what is learned, and what is saved. */
export const isAdapter = (name: string): boolean => /\.lora_[AB]\.weight$/.test(name);

/**
 * Parameters of which some weights W [N, K] have an adapter beside them, so that `linear` gives
 *
 *     x W^T + alpha / rank (x A^T) B^T.
 *
 * For `path.weight` its parameters are `path.lora_A.weight` [rank, K] and `path.lora_B.weight`
 * [N, rank]; B begins at 0, and A as a Linear's weight. Freeze the others, and only the adapters
 * are learned. Source: Hu et al., LoRA (arXiv 2106.09685), equation 3.
 *
 * Throws FoveaError("argument") for a rank that is no whole number from 1 up.
 *
 * @example
 * const program = await recordProgram(device, (graph) => {
 *   const base = parametersOf(graph, drawn(1), (name) => !isAdapter(name));
 *   const parameters = withAdapters(base, { rank: 8, targets: (name) => name === "weight" });
 *   return { outputs: { y: linearLayer(graph.input("x", [8, 4]), parameters, 2) } };
 * });
 */
export function withAdapters(parameters: Parameters, settings: AdapterSettings): Parameters {
  checkParameters("adapters", parameters);
  const [targets, sizes] = withoutFunction("adapters", settings, "targets");
  const { rank, alpha = rank } = takeSettings("adapters", sizes, SIZES);
  check(
    typeof targets === "function",
    "argument",
    () => `adapters: targets must be a function of names, got ${show(targets)}.`,
  );
  check(
    Number.isInteger(rank) && rank > 0,
    "argument",
    () => `adapters: rank must be a whole number from 1 up, got ${show(rank)}.`,
  );
  const adapted = new Map<string, Value>();
  return (name, shape, initial) => {
    const weight = parameters(name, shape, initial);
    if (isAdapter(name) || !targets(name)) return weight;
    const known = adapted.get(name);
    if (known) return known;
    check(
      shape.length === 2,
      "argument",
      () => `adapters: ${name} [${shape}] is no matrix; targets has to leave it out.`,
    );
    const [outputs, inputs] = shape;
    const path = name.replace(/\.weight$/, "");
    const made = Value.withAdapter(weight, {
      a: parameters(`${path}.lora_A.weight`, [rank, inputs], byInputs(inputs)),
      b: parameters(`${path}.lora_B.weight`, [outputs, rank], { constant: 0 }),
      scale: alpha / rank,
    });
    adapted.set(name, made);
    return made;
  };
}
