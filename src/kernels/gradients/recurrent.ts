// The kernel of the gradients of the steps of LSTM and GRU, shaders/recurrent_backward.wesl: what is
// compiled.

import recurrentBackward from "../../../shaders/recurrent_backward.wesl?raw";
import gradientLstm from "../../../shaders/slots/cell_gradient.wesl?raw";
import gradientGru from "../../../shaders/variants/cell_gradient_gru.wesl?raw";
import { link, type ModuleMap } from "../../shader/link.ts";
import type { Binding, KernelSource } from "../../types.ts";
import { KernelCache } from "../kernel_cache.ts";
import { cellModules, type RecurrentTile, recurrentConstants } from "../recurrent.ts";

/** Lanes of a workgroup. */
const LANES = 128;

/** Gradients of the gates: those by x and by the state before differ in a GRU. */
export const GRADIENT_PLANES = { lstm: 1, gru: 2 } as const;

export interface RecurrentBackwardSpecialisation extends RecurrentTile {
  /** Vec4s of hidden units of a workgroup: a divisor of its lanes. */
  readonly units4: number;
}

/** The modules of a specialisation, of which `package::recurrent_backward` is the root. */
export const recurrentBackwardModules = (spec: RecurrentBackwardSpecialisation): ModuleMap => ({
  "package::recurrent_backward": recurrentBackward,
  "package::slots::cell_gradient":
    spec.cell === "gru"
      ? { name: "variants/cell_gradient_gru.wesl", text: gradientGru }
      : gradientLstm,
  ...cellModules(spec),
  ...recurrentConstants(spec, { WG_SIZE: LANES, UNITS4: spec.units4 }),
});

export const RECURRENT_BACKWARD_BINDINGS: readonly Binding[] = [
  { binding: 0, name: "params", type: "uniform" },
  { binding: 1, name: "weight", type: "read-only-storage" },
  { binding: 2, name: "lengths", type: "read-only-storage" },
  { binding: 3, name: "gates", type: "read-only-storage" },
  { binding: 4, name: "states", type: "read-only-storage" },
  { binding: 5, name: "d_output", type: "read-only-storage" },
  { binding: 6, name: "d_more", type: "read-only-storage" },
  { binding: 7, name: "d_gates", type: "storage" },
  { binding: 8, name: "ends", type: "storage" },
];

const kernels = new KernelCache<RecurrentBackwardSpecialisation>();

export function recurrentBackwardKernel(spec: RecurrentBackwardSpecialisation): KernelSource {
  return kernels.get(spec, () => ({
    label: `${spec.cell} backward ${4 * spec.units4}x${spec.entries}`,
    ...link("package::recurrent_backward", recurrentBackwardModules(spec)),
    bindings: RECURRENT_BACKWARD_BINDINGS,
  }));
}
