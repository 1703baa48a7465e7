// LSTM and GRU with their gradients as operators of vectors, by PyTorch's names of their tensors.

import {
  type FloatTensor,
  gru,
  gruBackward,
  lstm,
  lstmBackward,
  type Tensor,
} from "../../src/index.ts";
import type { NamedCall, NamedOperator } from "./named.ts";

/** The weights that a vector has, by their names. */
function weightsOf({ vector, tensor }: NamedCall): Readonly<Record<string, Tensor>> {
  const names = vector.inputs.flatMap((input) => input?.name ?? []);
  return Object.fromEntries(
    names.filter((name) => /^(weight|bias)_/.test(name)).map((name) => [name, tensor(name)]),
  );
}

/** Those of the tensors that a vector has, under Fovea's names. */
const given = <Name extends string>({ optional }: NamedCall, names: Record<Name, string>) =>
  Object.fromEntries(
    Object.entries<string>(names).flatMap(([name, theirs]) => {
      const one = optional(theirs);
      return one ? [[name, one]] : [];
    }),
  ) as { readonly [One in Name]?: Tensor };

/** Settings of a call. */
function settingsOf(call: NamedCall) {
  const { batchFirst = true, lengths } = call.attributes;
  const own = call.optional("lengths") ?? lengths;
  return { batchFirst, ...(own !== undefined && { lengths: own }) };
}

const gradientsOf = (parameters: Readonly<Record<string, FloatTensor | undefined>> = {}) =>
  Object.fromEntries(Object.entries(parameters).map(([name, one]) => [`d_${name}`, one]));

const LSTM: NamedOperator = async (call) => {
  const x = call.tensor("x");
  const weights = weightsOf(call);
  const settings = settingsOf(call);
  const starts = given(call, { h0: "h0", c0: "c0" });
  const { output, hN, cN, gates, states } = await lstm(x, weights, {
    ...settings,
    ...starts,
    keep: true,
  });
  const { dX, dH0, dC0, parameters } = await lstmBackward(x, weights, {
    ...settings,
    ...given(call, { dOutput: "d_output", dHN: "d_h_n", dCN: "d_c_n" }),
    gates: call.own(gates as Tensor),
    states: call.own(states as Tensor),
  });
  const gradients = { d_x: dX, d_h0: dH0, d_c0: dC0, ...gradientsOf(parameters) };
  return { output, h_n: hN, c_n: cN, ...gradients };
};

const GRU: NamedOperator = async (call) => {
  const x = call.tensor("x");
  const weights = weightsOf(call);
  const settings = settingsOf(call);
  const { output, hN, gates, states } = await gru(x, weights, {
    ...settings,
    ...given(call, { h0: "h0" }),
    keep: true,
  });
  const { dX, dH0, parameters } = await gruBackward(x, weights, {
    ...settings,
    ...given(call, { dOutput: "d_output", dHN: "d_h_n" }),
    gates: call.own(gates as Tensor),
    states: call.own(states as Tensor),
  });
  return { output, h_n: hN, d_x: dX, d_h0: dH0, ...gradientsOf(parameters) };
};

export const recurrentLayers = { GRU, LSTM };
