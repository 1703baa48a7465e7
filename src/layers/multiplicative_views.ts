// The weights between queries and keys as a projection takes them: out x in.

import type { Tensor } from "../gpu/tensor.ts";
import type { ResolvedSpec } from "../plan/specs.ts";

/** [Dq, Dk] as [Dk, Dq], and [H, Dq, Dk] as [1, H, Dk, Dq]. */
export function turnedShape<Spec extends Pick<ResolvedSpec, "shape" | "strides">>(
  spec: Spec,
): Spec {
  const turn = (axes: readonly number[], first: number) => {
    const [columns, rows] = [...axes].reverse();
    return axes.length === 2 ? [columns, rows] : [first, axes[0], columns, rows];
  };
  return { ...spec, shape: turn(spec.shape, 1), strides: turn(spec.strides, 0) };
}

/** The view of a tensor that {@link turnedShape} describes. */
export function turnedTensor(weight: Tensor): Tensor {
  const { shape, strides } = weight;
  return weight.view(turnedShape({ shape, strides }));
}
