// The kernels of attention's gradients, in the variants that the tests look at.

import {
  type BackwardKernel,
  type BackwardSpecialisation,
  backwardBindings,
  backwardModules,
  backwardRoot,
  clearKernel,
  clearModules,
} from "../../src/kernels/gradients/backward.ts";
import { BACKWARD_TILES, type BackwardTile } from "../../src/kernels/gradients/backward_tiles.ts";
import { PLAIN, type SlotChoice } from "../../src/kernels/slots.ts";
import type { KernelVariant } from "./kernels.ts";

const SLOTS: Readonly<Record<string, SlotChoice>> = {
  plain: PLAIN,
  changed: {
    q: "f16-packed",
    k: "bf16-packed-strided",
    v: "strided",
    o: "bf16-packed",
    sequence: "packed",
    tables: true,
    softcap: true,
    bias: true,
    sinks: true,
    dropout: "seeded",
    maskTensor: "bits",
  },
};

const specialisation = (
  kernel: BackwardKernel,
  tile: BackwardSpecialisation["tile"],
  slots: SlotChoice,
): BackwardSpecialisation => ({
  ...slots,
  kernel,
  headDim: 40,
  vDim: 24,
  tile,
  dOutput: slots === PLAIN ? "dense" : "f16-packed-strided",
  dV: slots === PLAIN ? "dense" : "bf16-packed",
  dLse: true,
});

const variantOf = (name: string, spec: BackwardSpecialisation): KernelVariant => ({
  name,
  root: backwardRoot(spec),
  modules: backwardModules(spec),
  bindings: backwardBindings(spec),
});

const kernelsOf = ({ form }: BackwardTile): readonly BackwardKernel[] =>
  form === "quads" ? ["factors", "keys"] : ["queries", "keys"];

export const BACKWARD_VARIANTS: readonly KernelVariant[] = [
  ...Object.entries(SLOTS).flatMap(([what, slots]) =>
    BACKWARD_TILES.flatMap((tile) =>
      kernelsOf(tile).map((kernel) =>
        variantOf(`backward ${kernel} ${tile.name}, ${what}`, specialisation(kernel, tile, slots)),
      ),
    ),
  ),
  variantOf("backward delta", specialisation("delta", BACKWARD_TILES[0], PLAIN)),
  {
    name: "backward clear",
    root: "package::backward_clear",
    modules: clearModules(24, "f16-packed-strided"),
    bindings: clearKernel(24, "f16-packed-strided").bindings,
  },
];
