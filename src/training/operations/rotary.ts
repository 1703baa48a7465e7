// Rotary position embeddings.

import { planRotary } from "../../positions/rotary.ts";
import { planRotaryBackward } from "../../positions/rotary_backward.ts";
import { ROTARY_OPTIONS, type RotaryOptions } from "../../positions/rotary_options.ts";
import { graphOf, takeSettings } from "../arguments.ts";
import type { Value } from "../value.ts";

const { sections: _, ...SETTINGS } = ROTARY_OPTIONS;

/**
 * Turns pairs of channels of x [B, H, M, D] by angles that grow with the row, as the engine's
 * `rotary`. The gradient is turned back.
 */
export function rotary(x: Value, given: Omit<RotaryOptions, "sections"> = {}): Value {
  const graph = graphOf("rotary", { x });
  const settings = takeSettings("rotary", given, SETTINGS);
  const output = graph.computed("rotary", x.shape, [x]);
  graph.add({
    label: "rotary",
    inputs: [x],
    outputs: [output],
    plan: (device, at) => planRotary(device, { ...settings, x: at(x), output: at(output) }),
    gradient({ of, into }) {
      const dOutput = of(output);
      if (!dOutput) return;
      const dX = into(x);
      graph.add({
        label: "rotary backward",
        inputs: [dOutput],
        outputs: [dX],
        plan: (device, at) =>
          planRotaryBackward(device, { ...settings, dOutput: at(dOutput), dX: at(dX) }),
      });
    },
  });
  return output;
}
