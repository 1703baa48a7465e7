// LSTM and GRU, with PyTorch's weights by their names.

import { check, show } from "../../errors.ts";
import { isRecord, type OptionNames } from "../../given.ts";
import { planGru } from "../../layers/recurrent/gru.ts";
import { planGruBackward } from "../../layers/recurrent/gru_backward.ts";
import { planLstm } from "../../layers/recurrent/lstm.ts";
import { planLstmBackward } from "../../layers/recurrent/lstm_backward.ts";
import { graphOf, takeSettings } from "../arguments.ts";
import type { Place, Value } from "../value.ts";

/** Weights of a recurrent network, by PyTorch's names: `weight_ih_l0`, `bias_hh_l1_reverse`. */
export type RecurrentValues = Readonly<Record<string, Value>>;

/** Options of {@link lstm} and {@link gru}. */
export interface RecurrentSettings {
  /** [L D, B, H] f32: the states before the first step. Default zeros. */
  readonly h0?: Value;
  /** The same of the cells of an LSTM. */
  readonly c0?: Value;
  /** [B] i32: how many steps each entry uses. Default all. */
  readonly lengths?: Value;
}

const SETTINGS: OptionNames<RecurrentSettings> = { h0: "any", c0: "any", lengths: "any" };

/** What a recurrent network gives. */
export interface RecurrentResult {
  /** [B, T, D H] */
  readonly output: Value;
  /** [L D, B, H]: the states after the last used step. */
  readonly hN: Value;
}

/** An LSTM over x [B, T, inputs], whose layers and directions follow from the names of its weights. */
export const lstm = (x: Value, weights: RecurrentValues, settings: RecurrentSettings = {}) =>
  recurrent("LSTM", x, weights, settings);

/** A GRU over x [B, T, inputs]. */
export const gru = (x: Value, weights: RecurrentValues, settings: RecurrentSettings = {}) =>
  recurrent("GRU", x, weights, settings);

/** Gates of a cell. */
const GATES = { LSTM: 4, GRU: 3 } as const;

function recurrent(
  kind: "LSTM" | "GRU",
  x: Value,
  weights: RecurrentValues,
  settings: RecurrentSettings,
): RecurrentResult {
  const { h0, c0, lengths } = takeSettings(kind, settings, SETTINGS);
  check(
    isRecord(weights),
    "argument",
    () => `${kind}: weights are values by PyTorch's names, got ${show(weights)}.`,
  );
  graphOf(kind, { x, ...weights }, { h0, c0, lengths });
  const { graph } = x;
  const [B, T] = x.shape;
  const names = Object.keys(weights);
  check(
    weights.weight_hh_l0 !== undefined,
    "argument",
    () => `${kind}: there is no weight_hh_l0 among the weights ${names.join(", ")}.`,
  );
  const H = weights.weight_hh_l0.shape[1];
  const directions = names.includes("weight_ih_l0_reverse") ? 2 : 1;
  const layers = names.filter((name) => /^weight_hh_l\d+$/.test(name)).length;
  const held = [h0, c0].filter((value) => value !== undefined);
  const learned = [x, ...Object.values(weights), ...held];
  const inputs = lengths ? [...learned, lengths] : learned;
  const make = (label: string, ...shape: readonly number[]) =>
    graph.computed(`${kind} ${label}`, shape, learned);
  const output = make("output", B, T, directions * H);
  const hN = make("state", layers * directions, B, H);
  const gates = make("gates", layers * directions, B, T, GATES[kind] * H);
  const states = make("states", layers, 3, B, T, directions * H);
  const cN = kind === "LSTM" ? make("cells", layers * directions, B, H) : undefined;
  const all = (at: Place) => ({
    x: at(x),
    weights: placed(weights, at),
    ...(lengths && { lengths: at(lengths) }),
    gates: at(gates),
    states: at(states),
  });
  graph.add({
    label: kind,
    inputs,
    outputs: cN ? [output, hN, gates, states, cN] : [output, hN, gates, states],
    async plan(device, at) {
      const problem = {
        ...all(at),
        output: at(output),
        hN: at(hN),
        ...(h0 && { h0: at(h0) }),
      };
      if (!cN) return planGru(device, problem);
      return planLstm(device, { ...problem, cN: at(cN), ...(c0 && { c0: at(c0) }) });
    },
    gradient({ of, into, wants }) {
      const dOutput = of(output);
      const dHN = of(hN);
      const dWeights = Object.fromEntries(names.map((name) => [name, into(weights[name])]));
      const dX = wants(x) ? into(x) : undefined;
      const dH0 = wants(h0) ? into(h0) : undefined;
      const dC0 = wants(c0) ? into(c0) : undefined;
      const given = [dOutput, dHN].filter((value) => value !== undefined);
      const made = [dX, dH0, dC0].filter((value) => value !== undefined);
      graph.add({
        label: `${kind} backward`,
        inputs: [...inputs, gates, states, ...given],
        outputs: [...made, ...Object.values(dWeights)],
        async plan(device, at) {
          const problem = {
            ...all(at),
            parameters: placed(dWeights, at),
            ...(dOutput && { dOutput: at(dOutput) }),
            ...(dHN && { dHN: at(dHN) }),
            ...(dX && { dX: at(dX) }),
            ...(dH0 && { dH0: at(dH0) }),
          };
          const asked = ["parameters" as const, dX && ("dX" as const), dH0 && ("dH0" as const)];
          const gradients = asked.filter((name) => name !== undefined);
          if (kind === "GRU") return planGruBackward(device, { ...problem, gradients });
          return planLstmBackward(device, {
            ...problem,
            ...(dC0 && { dC0: at(dC0) }),
            gradients: dC0 ? [...gradients, "dC0"] : gradients,
          });
        },
      });
    },
  });
  return { output, hN };
}

const placed = (values: RecurrentValues, at: Place) =>
  Object.fromEntries(Object.entries(values).map(([name, value]) => [name, at(value)]));
