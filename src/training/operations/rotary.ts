// Rotary position embeddings.

import type { OptionNames } from "../../given.ts";
import { planRotary } from "../../positions/rotary.ts";
import { planRotaryBackward } from "../../positions/rotary_backward.ts";
import { ROTARY_OPTIONS, type RotaryOptions } from "../../positions/rotary_options.ts";
import { graphOf, takeSettings } from "../arguments.ts";
import type { Place, Value } from "../value.ts";

/** Options of {@link rotary}: those of the engine's function, with values in place of tensors. */
export interface RotarySettings extends Omit<RotaryOptions, "sections"> {
  /** [B, M] i32: the position of each row. Default 0, 1, 2, ... */
  readonly positions?: Value;
}

const { sections: _, ...OWN } = ROTARY_OPTIONS;
const SETTINGS: OptionNames<RotarySettings> = { ...OWN, positions: "any" };

/**
 * Turns pairs of channels of x [B, H, M, D] by angles that grow with the position, as the engine's
 * `rotary`. The gradient is turned back.
 */
export function rotary(x: Value, given: RotarySettings = {}): Value {
  const { positions, ...settings } = takeSettings("rotary", given, SETTINGS);
  const graph = graphOf("rotary", { x }, { positions });
  const inputs = positions ? [x, positions] : [x];
  const places = (at: Place) => (positions ? { positionIds: at(positions) } : {});
  const output = graph.computed("rotary", x.shape, [x]);
  graph.add({
    label: "rotary",
    inputs,
    outputs: [output],
    plan: (device, at) =>
      planRotary(device, { ...settings, ...places(at), x: at(x), output: at(output) }),
    gradient({ of, into }) {
      const dOutput = of(output);
      if (!dOutput) return;
      const dX = into(x);
      graph.add({
        label: "rotary backward",
        inputs: [dOutput, ...inputs.slice(1)],
        outputs: [dX],
        plan: (device, at) =>
          planRotaryBackward(device, {
            ...settings,
            ...places(at),
            dOutput: at(dOutput),
            dX: at(dX),
          }),
      });
    },
  });
  return output;
}
