// The kernels of LSTM and GRU, in the variants that the tests look at.

import {
  RECURRENT_BACKWARD_BINDINGS,
  type RecurrentBackwardSpecialisation,
  recurrentBackwardModules,
} from "../../src/kernels/gradients/recurrent.ts";
import {
  type RecurrentSpecialisation,
  recurrentBindings,
  recurrentModules,
} from "../../src/kernels/recurrent.ts";
import type { KernelVariant } from "./kernels.ts";

const PLAIN: RecurrentSpecialisation = {
  cell: "lstm",
  entries: 4,
  lanes: 128,
  weight: "dense",
  oddUnits: undefined,
  bias: "dense",
  oddGates: undefined,
  keep: true,
};

/** Specialisations of the steps, and the vec4s of units that their gradients have. */
export const RECURRENT_SPECS: Readonly<Record<string, RecurrentSpecialisation>> = {
  lstm: PLAIN,
  gru: { ...PLAIN, cell: "gru" },
  "lstm of one entry and odd units, nothing kept": {
    ...PLAIN,
    entries: 1,
    lanes: 64,
    weight: "strided",
    oddUnits: 7,
    bias: undefined,
    keep: false,
  },
  "gru of 16 bits": {
    ...PLAIN,
    cell: "gru",
    entries: 2,
    lanes: 256,
    weight: "bf16-packed-strided",
    oddUnits: 5,
    bias: "f16-packed-strided",
    oddGates: 15,
  },
};

export const backwardSpecOf = ({
  cell,
  entries,
  weight,
  oddUnits,
  lanes,
}: RecurrentSpecialisation): RecurrentBackwardSpecialisation => ({
  cell,
  entries,
  weight,
  oddUnits,
  units4: lanes / 4,
});

export const RECURRENT_VARIANTS: readonly KernelVariant[] = Object.entries(RECURRENT_SPECS).flatMap(
  ([name, spec]) => [
    {
      name: `recurrent ${name}`,
      root: "package::recurrent",
      modules: recurrentModules(spec),
      bindings: recurrentBindings(spec),
    },
    {
      name: `recurrent backward ${name}`,
      root: "package::recurrent_backward",
      modules: recurrentBackwardModules(backwardSpecOf(spec)),
      bindings: RECURRENT_BACKWARD_BINDINGS,
    },
  ],
);
