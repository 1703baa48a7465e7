// Places at which the parts of a layer find their tensors: memory of the plan, or tensors that the
// caller binds, or views of them.

import type { Tensor } from "../gpu/tensor.ts";
import type { ResolvedSpec } from "../plan/specs.ts";
import { splitHeads } from "./heads.ts";

/** The tensors of a run, by the caller's names. */
export type Given = ReadonlyMap<string, Tensor>;

/** A tensor that the plan owns, or one that the caller binds under a name, or a view of it. */
export interface Place {
  readonly spec: ResolvedSpec;
  of(given: Given): Tensor;
}

/** The place of a tensor that the caller binds under a name. */
export const bound = (name: string, spec: ResolvedSpec): Place => ({
  spec,
  of: (given) => given.get(name) as Tensor,
});

/** A view of a place. Views are kept, so that bind groups are found again. */
export function viewed(place: Place, view: (tensor: Tensor) => Tensor, spec: ResolvedSpec): Place {
  const views = new WeakMap<Tensor, Tensor>();
  const of = (given: Given) => {
    const whole = place.of(given);
    let found = views.get(whole);
    if (!found) {
      found = view(whole);
      views.set(whole, found);
    }
    return found;
  };
  return { spec, of };
}

/** Views [B, rows, H * D] as [B, H, rows, D]. */
export function splitPlace(place: Place, heads: number): Place {
  const { shape, strides } = place.spec;
  const [batch, rows, width] = shape;
  const [b, m, d] = strides;
  const dim = width / heads;
  const spec = { ...place.spec, shape: [batch, heads, rows, dim], strides: [b, dim * d, m, d] };
  return viewed(place, (whole) => splitHeads(whole, heads), spec);
}

/** Views some columns, along the last axis, of a place. */
export function columnsPlace(place: Place, from: number, count: number): Place {
  const { shape, strides, offset } = place.spec;
  const axis = shape.length - 1;
  const spec = {
    ...place.spec,
    shape: [...shape.slice(0, axis), count],
    offset: offset + from * strides[axis],
  };
  return viewed(place, (whole) => whole.slice(axis, from, from + count), spec);
}
