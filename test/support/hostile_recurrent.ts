// Calls of LSTM and GRU, for hostile values.

import {
  gru,
  gruBackward,
  lstm,
  lstmBackward,
  type RecurrentWeights,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import {
  gru as gru64,
  gruBackward as gruBackward64,
  lstm as lstm64,
  lstmBackward as lstmBackward64,
} from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import type { Call, Given } from "./hostile.ts";
import { operator } from "./hostile_operators.ts";

const SETTINGS = ["lengths", "maxDispatchFlops", "label"];
const FORWARD = [...SETTINGS, "batchFirst", "h0", "keep", "output", "hN", "gates", "states"];
/** What a run of all steps kept is right for shorter lengths, too, and not for axes exchanged. */
const BACKWARD = [...SETTINGS, "dOutput", "dHN", "gradients", "dX", "dH0", "parameters"];

export function recurrentCalls(device: GPUDevice): Call[] {
  const make = (shape: readonly number[], seed: number) => {
    const size = shape.reduce((a, b) => a * b, 1);
    const data = normal(seed, size, 0.5);
    return { shape, data, gpu: tensor(device, shape, { data, label: "hostile" }) };
  };
  // Batch and steps are as many, so that either may come first.
  const x = make([2, 2, 4], 1);
  const dOutput = make([2, 2, 4], 2);
  const both = (["lstm", "gru"] as const).map((cell) => {
    const isLstm = cell === "lstm";
    const rows = isLstm ? 16 : 12;
    const weights = { weight_ih_l0: make([rows, 4], 3), weight_hh_l0: make([rows, 4], 4) };
    const gpu: RecurrentWeights = {
      weight_ih_l0: weights.weight_ih_l0.gpu,
      weight_hh_l0: weights.weight_hh_l0.gpu,
    };
    const settings = ({ lengths, batchFirst }: Given) => ({
      batchFirst: (batchFirst as boolean | undefined) ?? true,
      ...(lengths !== undefined && {
        lengths: Array.from(lengths as ArrayLike<number>, Number),
      }),
    });
    const args = { x: x.gpu, weights: gpu };
    return { isLstm, weights, gpu, settings, args };
  });
  const rest = async (results: object, name: string) => {
    const { [name]: output, parameters = {}, ...more } = results as Record<string, Tensor>;
    return { output, ...more, ...(parameters as object) };
  };
  return both.flatMap(({ isLstm, weights, settings, args, gpu }) => {
    const forward = isLstm ? lstm : gru;
    const backward = isLstm ? lstmBackward : gruBackward;
    const gates = tensor(device, [1, 2, 2, isLstm ? 16 : 12]);
    const states = tensor(device, [1, 3, 2, 2, 4]);
    const kept = forward(x.gpu, gpu, { gates, states });
    return [
      operator(
        isLstm ? "lstm" : "gru",
        async (one, theirs, options) =>
          rest(await forward(one, theirs, options), "output") as never,
        args,
        {},
        [...FORWARD, ...(isLstm ? ["c0", "cN"] : [])],
        (_, options) => (isLstm ? lstm64 : gru64)(x, weights, settings(options)).output,
      ),
      operator(
        isLstm ? "lstmBackward" : "gruBackward",
        async (one, theirs, options) => {
          await kept;
          return rest(await backward(one, theirs, options), "dX") as never;
        },
        args,
        { dOutput: dOutput.gpu, gates, states },
        [...BACKWARD, ...(isLstm ? ["dCN", "dC0"] : [])],
        (_, options) =>
          (isLstm ? lstmBackward64 : gruBackward64)(x, weights, {
            ...settings(options),
            dOutput: dOutput.data,
          }).dX,
      ),
    ];
  });
}
