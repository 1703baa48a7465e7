// LSTM and GRU with their gradients: calls, plans, and the ways in which they are refused.

import {
  gru,
  gruBackward,
  lstm,
  lstmBackward,
  planLstm,
  planLstmBackward,
} from "../../src/index.ts";
import { drop, type Lab, type LeakCase, rejected, runPlan } from "./lab.ts";

/** Weights of two layers in both directions, of four inputs and four units. */
function weightsOf(lab: Lab, gates: number) {
  const names = ["_l0", "_l0_reverse", "_l1", "_l1_reverse"];
  return Object.fromEntries(
    names.flatMap((suffix) => [
      [`weight_ih${suffix}`, lab.rows([4 * gates, suffix.startsWith("_l0") ? 4 : 8])],
      [`weight_hh${suffix}`, lab.rows([4 * gates, 4])],
      [`bias_ih${suffix}`, lab.rows([4 * gates])],
      [`bias_hh${suffix}`, lab.rows([4 * gates])],
    ]),
  );
}

export const RECURRENT_CASES: readonly LeakCase[] = [
  {
    name: "recurrent layers: LSTM and its gradients",
    start: (lab) => {
      const x = lab.rows([2, 3, 4]);
      const dOutput = lab.rows([2, 3, 8]);
      const weights = weightsOf(lab, 4);
      const gates = lab.rows([4, 2, 3, 16]);
      const states = lab.rows([2, 3, 2, 3, 8]);
      const output = lab.rows([2, 3, 8]);
      const hN = lab.rows([4, 2, 4]);
      const cN = lab.rows([4, 2, 4]);
      const dX = lab.rows([2, 3, 4]);
      return async (n) => {
        drop(await lstm(x, weights, { lengths: [3, n % 4], keep: n % 2 === 0 }));
        const options = { gates, states, dOutput, lengths: [n % 4, 3] };
        const { parameters = {}, ...found } = await lstmBackward(x, weights, options);
        drop(found);
        drop(parameters);
        runPlan(lab.device, await planLstm(lab.device, { x, weights }), { output, hN, cN });
        const problem = { x, weights, dOutput, gradients: ["dX"] } as const;
        const bound = { gates, states, dX };
        runPlan(lab.device, await planLstmBackward(lab.device, problem), bound);
      };
    },
  },
  {
    name: "recurrent layers: refused",
    start: (lab) => {
      const x = lab.rows([2, 3, 4]);
      const weights = weightsOf(lab, 3);
      const given = {
        gates: lab.rows([4, 2, 3, 12]),
        states: lab.rows([2, 3, 2, 3, 8]),
        dHN: lab.rows([4, 2, 4]),
      };
      return async () => {
        const gone = lab.refused([2, 3, 4]);
        await rejected("out-of-memory", () => gru(gone, weights));
        await rejected("argument", () => gru(x, weights, { lengths: [3, 4] }));
        await rejected("argument", () => gruBackward(x, weights, { ...given, dHN: x }));
        await rejected("out-of-memory", () => lab.without(() => gru(x, weights, { keep: true })));
        await rejected("out-of-memory", () => lab.without(() => gruBackward(x, weights, given)));
        gone.destroy();
      };
    },
  },
];
