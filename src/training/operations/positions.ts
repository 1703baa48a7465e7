// Positions: what is added to rows by their place.

import type { OptionNames } from "../../given.ts";
import { planPositionEncoding } from "../../positions/encoding.ts";
import { planPositionEncodingBackward } from "../../positions/encoding_backward.ts";
import type { PositionEncodingGradient } from "../../positions/encoding_backward_problem.ts";
import { graphOf, takeSettings } from "../arguments.ts";
import type { Value } from "../value.ts";

/** Options of {@link positionEncoding}. */
export interface PositionSettings {
  /** [P, D], P at least the rows: a learned table. Default: sinusoids, sines and cosines in turns. */
  readonly table?: Value;
  /** Factor of x. Default 1. */
  readonly scale?: number;
}

const SETTINGS: OptionNames<PositionSettings> = { table: "any", scale: "number" };

/** scale * x + table[row], or + sinusoids, for x [B, M, D]. */
export function positionEncoding(x: Value, settings: PositionSettings = {}): Value {
  const { table, scale = 1 } = takeSettings("positions", settings, SETTINGS);
  const graph = graphOf("positions", { x }, { table });
  const inputs = table ? [x, table] : [x];
  const output = graph.computed("positions", x.shape, inputs);
  graph.add({
    label: "positions",
    inputs,
    outputs: [output],
    plan: (device, at) =>
      planPositionEncoding(device, {
        x: at(x),
        output: at(output),
        scale,
        ...(table && { table: at(table) }),
      }),
    gradient({ of, into, wants }) {
      const dOutput = of(output);
      if (!dOutput) return;
      const dX = wants(x) ? into(x) : undefined;
      const dTable = wants(table) ? into(table) : undefined;
      const names: PositionEncodingGradient[] = [];
      if (dX) names.push("dX");
      if (dTable) names.push("dTable");
      graph.add({
        label: "positions backward",
        inputs: [dOutput],
        outputs: [dX, dTable].filter((value) => value !== undefined),
        plan: (device, at) =>
          planPositionEncodingBackward(device, {
            dOutput: at(dOutput),
            scale,
            gradients: names,
            ...(table && { table: at(table) }),
            ...(dX && { dX: at(dX) }),
            ...(dTable && { dTable: at(dTable) }),
          }),
      });
    },
  });
  return output;
}
