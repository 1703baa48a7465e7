// Dropout of rows: other elements at each update, and the same ones in its gradient.

import { check, show } from "../../errors.ts";
import type { OptionNames } from "../../given.ts";
import { planDropout } from "../../operations/dropout.ts";
import { graphOf, takeSettings } from "../arguments.ts";
import type { Recorder, Value } from "../value.ts";

/** Options of {@link dropout}. */
export interface DropoutSettings {
  /** The key of the generator: a whole number from 0 up. Default: the place of the operation. */
  readonly seed?: number;
}

const DROPOUT_SETTINGS: OptionNames<DropoutSettings> = { seed: "number" };

/**
 * Drops elements with probability p, and divides the others by 1 - p. In a program without
 * gradients it is x. Which elements are dropped depends on the seed and on `program.step` alone, so
 * a run that is repeated, or resumed from a checkpoint, drops the same ones, and no mask is kept.
 *
 * Throws FoveaError("argument") for a p that is not from 0 up to below 1.
 */
export function dropout(x: Value, p: number, settings: DropoutSettings = {}): Value {
  const graph = graphOf("dropout", { x });
  const { seed: key } = takeSettings("dropout", settings, DROPOUT_SETTINGS);
  const drops = droppedBy(graph, "dropout", { p, ...(key !== undefined && { seed: key }) });
  if (!drops) return x;
  const { seed, step } = drops;
  const dropped = (from: Value, into: Value) =>
    graph.add({
      label: "dropout",
      inputs: [from, step],
      outputs: [into],
      plan: (device, at) =>
        planDropout(device, { x: at(from), p, seed, step: at(step), output: at(into) }),
      gradient({ of, into: gradientOf }) {
        const dOutput = of(into);
        if (dOutput) dropped(dOutput, gradientOf(from));
      },
    });
  const output = graph.computed("dropout", x.shape, [x]);
  dropped(x, output);
  return output;
}

/** How a dropout is drawn: its key, and the value that counts runs. */
interface Drawn {
  readonly p: number;
  readonly seed: number;
  readonly step: Value;
}

/** @internal How a dropout is drawn. Undefined if nothing is dropped. */
export function droppedBy(
  graph: Recorder,
  label: string,
  { p, seed }: DropoutSettings & { readonly p: number },
): Drawn | undefined {
  check(
    typeof p === "number" && p >= 0 && p < 1,
    "argument",
    () => `${label}: p must be a probability from 0 up to below 1, got ${show(p)}.`,
  );
  check(
    seed === undefined || (Number.isSafeInteger(seed) && seed >= 0),
    "argument",
    () => `${label}: seed must be a whole number from 0 up, got ${show(seed)}.`,
  );
  if (!graph.training || p === 0) return undefined;
  const { number, step } = graph.draw();
  return { p, seed: seed ?? number, step };
}
