// The specialisation of the kernels for a problem of linear attention.

import { isSoftware } from "../gpu/device.ts";
import { type LinearSpecialisation, recurrentTile } from "../kernels/linear.ts";
import { accessOf } from "../plan/access.ts";
import type { Caller } from "../plan/operation.ts";
import { bindingBase } from "../plan/specs.ts";
import type { LinearTensor } from "./options.ts";
import type { ResolvedLinear } from "./problem.ts";

/**
 * The specialisation of a problem. Throws FoveaError("limit") for a state that no kernel has room
 * for.
 */
export function specialisation(
  resolved: ResolvedLinear,
  { label, device }: Caller,
): LinearSpecialisation {
  const { specs, headDim, vDim, decayDim, elu, normalized, causal, delta, heads, states, seqKv } =
    resolved;
  const access = (name: LinearTensor) => {
    const spec = specs.get(name);
    return spec ? accessOf(device, { spec, base: bindingBase(device, spec) }) : "dense";
  };
  const group = resolved.chunked ? 1 : heads / states;
  const sizes = { headDim, vDim, decayDim, group };
  // A chunked problem doesn't need the recurrent kernel, whose limits its sizes may exceed.
  const tileSizes = resolved.chunked ? { headDim: 1, vDim: 1, decayDim: 0, group } : sizes;
  return {
    ...sizes,
    elu,
    normalized,
    causal,
    delta,
    q: access("q"),
    k: access("k"),
    v: access("v"),
    o: access("output"),
    decay: access("decay"),
    beta: access("beta"),
    lengths: resolved.lengths !== undefined,
    mask: specs.has("keyMask"),
    rows: isSoftware(device) ? 4 : 8,
    recurrent: recurrentTile(label, tileSizes, seqKv),
  };
}
