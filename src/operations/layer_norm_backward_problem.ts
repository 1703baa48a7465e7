// The problem of a normalisation's gradients: its tensors, checked before the GPU sees any of them.

import type { OptionNames, Taken } from "../given.ts";
import { resolveSpec, type Tensor } from "../gpu/tensor.ts";
import { NORM_TERMS } from "../kernels/gradients/layer_norm.ts";
import type { GradientTensor } from "../kernels/gradients/rows.ts";
import { gradientsOf } from "../plan/gradients.ts";
import type { Caller } from "../plan/operation.ts";
import { checkedSpec, expectApart, expectShape, FLOATS, type ResolvedSpec } from "../plan/specs.ts";
import type { TensorSpec } from "../types.ts";
import { type LayerNormProblem, resolveLayerNorm } from "./layer_norm_problem.ts";
import { broadcastTo, type FoldedRows, foldRows } from "./row_axes.ts";
import { groupSums, type RowSum, type SumGroups } from "./row_gradients.ts";

/** The gradients of a normalisation. */
export type LayerNormGradient = "dX" | "dResidual" | "dResidualBias" | "dWeight" | "dBias";

/**
 * The gradients that a plan is made for: the tensors of the forward problem, the gradients of its
 * results, and what they become. Shapes and strides are fixed by the plan; memory is given at
 * encode.
 */
export interface LayerNormBackwardProblem
  extends Pick<LayerNormProblem, "x" | "residual" | "residualBias" | "weight"> {
  /** Gradient of the output, f32, f16 or bf16, of the shape of x. */
  readonly dOutput: TensorSpec;
  /**
   * Gradient of `sum`, where x + residual + residualBias goes on beside the norm; of the shape of
   * x. Default: none.
   */
  readonly dSum?: TensorSpec;
  /** What the forward problem adds at the end. Only its shape and dtype are read, for dBias. */
  readonly bias?: TensorSpec;
  /** As in {@link LayerNormProblem}. Default -1. */
  readonly axis?: number;
  /** Added to the variance or to the mean square. Default 1e-5. */
  readonly epsilon?: number;
  /** The forward problem divides by the root mean square. Default false. */
  readonly rms?: boolean;
  /**
   * Which gradients are computed: `"dX"`, `"dResidual"`, `"dResidualBias"`, `"dWeight"`, `"dBias"`.
   * Default: those of all tensors that are given.
   */
  readonly gradients?: readonly LayerNormGradient[];
  /** f32, f16 or bf16, of the shape of x. Default: dense, the dtype of x. */
  readonly dX?: TensorSpec;
  /** Like its tensor, summed over the axes along which that is broadcast; so are the next ones. */
  readonly dResidual?: TensorSpec;
  /** Of `residualBias`, summed over the axes along which that is broadcast. */
  readonly dResidualBias?: TensorSpec;
  /** Of `weight`. */
  readonly dWeight?: TensorSpec;
  /** Of `bias`. */
  readonly dBias?: TensorSpec;
  /** Name of the plan's GPU objects in errors and captures. Default `"layerNormBackward"`. */
  readonly label?: string;
}

/** The names of all members of a problem. */
export const LAYER_NORM_BACKWARD_PROBLEM: OptionNames<LayerNormBackwardProblem> = {
  x: "any",
  residual: "any",
  residualBias: "any",
  weight: "any",
  bias: "any",
  dOutput: "any",
  dSum: "any",
  axis: "number",
  epsilon: "number",
  rms: "boolean",
  gradients: "any",
  dX: "any",
  dResidual: "any",
  dResidualBias: "any",
  dWeight: "any",
  dBias: "any",
  label: "string",
};

/**
 * Memory for one run of a plan: tensors that look as the plan was told. The tensors that it was
 * made with are the default.
 */
export interface LayerNormBackwardBindings {
  readonly x?: Tensor;
  readonly dOutput?: Tensor;
  /** Bound only if the plan was made with one, as are the members that follow. */
  readonly residual?: Tensor;
  readonly residualBias?: Tensor;
  readonly weight?: Tensor;
  readonly dSum?: Tensor;
  readonly dX?: Tensor;
  readonly dResidual?: Tensor;
  readonly dResidualBias?: Tensor;
  readonly dWeight?: Tensor;
  readonly dBias?: Tensor;
}

/** Each gradient with the tensor that it is of. */
const GRADIENT_OF = {
  dX: "x",
  dResidual: "residual",
  dResidualBias: "residualBias",
  dWeight: "weight",
  dBias: "bias",
} as const;
const TERM_OF = {
  dX: NORM_TERMS.total,
  dResidual: NORM_TERMS.total,
  dResidualBias: NORM_TERMS.total,
  dWeight: NORM_TERMS.weight,
  dBias: NORM_TERMS.bias,
} as const;
const READ = {
  source: "x",
  residual: "residual",
  shift: "residualBias",
  weight: "weight",
} as const;

type Given = "x" | "residual" | "residualBias" | "weight" | "dOutput" | "dSum";

/** The checked gradients of a normalisation. */
export interface ResolvedLayerNormBackward {
  /** The specs of what is read, and of the gradients that are computed, as the caller sees them. */
  readonly specs: Readonly<Partial<Record<Given | LayerNormGradient, ResolvedSpec>>>;
  readonly epsilon: number;
  readonly rms: boolean;
  /** The tensors that kernels read, and the gradients, as rows; none if x has no elements. */
  readonly folded: FoldedRows<GradientTensor | LayerNormGradient> | undefined;
  /** The gradients of the shape of x, which are written row by row. */
  readonly whole: readonly LayerNormGradient[];
  /** The sums over rows that the other gradients are. */
  readonly sums: SumGroups;
}

/** Checks the gradients of a normalisation. Throws FoveaError that names what is wrong. */
export function resolveLayerNormBackward(
  problem: Taken<LayerNormBackwardProblem>,
  caller: Caller,
): ResolvedLayerNormBackward {
  const { label } = caller;
  const { x, residual, residualBias, weight, bias, epsilon: given, axis: at, rms: byRms } = problem;
  const forward = {
    x,
    ...(residual !== undefined && { residual }),
    ...(residualBias !== undefined && { residualBias }),
    ...(weight !== undefined && { weight }),
    ...(bias !== undefined && { bias }),
    ...(given !== undefined && { epsilon: given }),
    ...(at !== undefined && { axis: at }),
    ...(byRms !== undefined && { rms: byRms }),
  };
  const { specs: own, axis, epsilon, rms } = resolveLayerNorm(forward, caller);
  const { shape } = own.x;
  const known = Object.fromEntries(
    Object.entries(GRADIENT_OF).map(([name, of]) => [name, own[of]]),
  ) as Record<LayerNormGradient, ResolvedSpec | undefined>;
  const asked = gradientsOf(label, problem.gradients, known);
  const likeX = (name: "dOutput" | "dSum") => {
    const spec = checkedSpec(label, name, problem[name] as TensorSpec, FLOATS);
    expectShape(label, name, spec, shape, "like x");
    return spec;
  };
  const written = (name: LayerNormGradient) => {
    const like = own[GRADIENT_OF[name]] as ResolvedSpec;
    const spec =
      problem[name] === undefined
        ? resolveSpec(name, { shape: like.shape, dtype: like.dtype })
        : checkedSpec(label, name, problem[name], FLOATS);
    expectShape(label, name, spec, like.shape, `like ${GRADIENT_OF[name]}`);
    expectApart(label, name, spec);
    return spec;
  };
  const inputs = Object.fromEntries(
    Object.values(READ).flatMap((name) => (own[name] ? [[name, own[name]]] : [])),
  );
  const specs: ResolvedLayerNormBackward["specs"] = {
    ...inputs,
    dOutput: likeX("dOutput"),
    ...(problem.dSum !== undefined && { dSum: likeX("dSum") }),
    ...Object.fromEntries([...asked].map((name) => [name, written(name)])),
  };
  const size = (one: readonly number[]) => one.reduce((a, b) => a * b, 1);
  const isTotal = (name: LayerNormGradient) => TERM_OF[name] === NORM_TERMS.total;
  const whole = [...asked].filter(
    (name) => isTotal(name) && size((specs[name] as ResolvedSpec).shape) === size(shape),
  );
  const summed = [...asked].filter((name) => !whole.includes(name));
  const made = { specs, epsilon, rms, whole };
  const sumOf = (name: LayerNormGradient, spec: ResolvedSpec): RowSum => ({
    name,
    term: TERM_OF[name],
    spec,
  });
  if (shape.includes(0)) {
    const list = summed
      .filter((name) => !(specs[name] as ResolvedSpec).shape.includes(0))
      .map((name) => {
        const { specs: own } = foldRows(label, { o: specs[name] as ResolvedSpec }, 0);
        return sumOf(name, own.o);
      });
    return { ...made, folded: undefined, sums: groupSums(list, [], true) };
  }
  const wide = (name: Given | LayerNormGradient) =>
    broadcastTo(label, name, specs[name] as ResolvedSpec, shape);
  const read = Object.entries(READ).filter(([, name]) => specs[name] !== undefined);
  const folded = foldRows<GradientTensor | LayerNormGradient>(
    label,
    {
      ...Object.fromEntries(read.map(([name, of]) => [name, wide(of)])),
      gradient: wide("dOutput"),
      ...(specs.dSum && { passed: wide("dSum") }),
      ...Object.fromEntries([...asked].map((name) => [name, wide(name)])),
      o: specs.dX ?? resolveSpec("dX", { shape, dtype: own.x.dtype }),
    },
    shape.length - axis,
    { ...READ, gradient: "dOutput", passed: "dSum", o: "dX" },
  );
  const list = summed.map((name) => sumOf(name, folded.specs[name] as ResolvedSpec));
  return { ...made, folded, sums: groupSums(list, folded.specs.o.shape) };
}
