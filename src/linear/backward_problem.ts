// The problem of linear attention's gradients, checked before the GPU sees any of it. What the
// attention was called with is checked as the attention does.

import { check, show } from "../errors.ts";
import type { Taken } from "../given.ts";
import { denseStrides, resolveSpec } from "../gpu/tensor.ts";
import { checkSizes } from "../kernels/gradients/linear_tiles.ts";
import type { Caller } from "../plan/operation.ts";
import {
  AXES,
  checkedSpec,
  expectApart,
  expectShape,
  FLOATS,
  type ResolvedSpec,
  reorder,
} from "../plan/specs.ts";
import type { TensorSpec } from "../types.ts";
import {
  LINEAR_GRADIENTS,
  type LinearAttentionBackwardProblem,
  type LinearBackwardTensor,
  type LinearGradient,
} from "./backward_options.ts";
import type { LinearAttentionProblem } from "./options.ts";
import { type ResolvedLinear, resolveLinear } from "./problem.ts";

/** A checked problem: the attention's, and which gradients come in and go out. */
export interface ResolvedLinearBackward extends Omit<ResolvedLinear, "specs"> {
  /** The tensors in the caller's axis order, as they will be bound. */
  readonly specs: ReadonlyMap<LinearBackwardTensor, ResolvedSpec>;
  readonly wanted: ReadonlySet<LinearGradient>;
}

/** The tensor that each gradient belongs to. */
const OF = {
  dQ: "q",
  dK: "k",
  dV: "v",
  dDecay: "decay",
  dBeta: "beta",
  dPastState: "pastState",
  dPastNormalizer: "pastNormalizer",
} as const;

/** Checks a problem and fills in its defaults. Throws FoveaError that names what is wrong. */
export function resolveLinearBackward(
  problem: Taken<LinearAttentionBackwardProblem>,
  caller: Caller,
): ResolvedLinearBackward {
  const { label } = caller;
  const forward = Object.fromEntries(
    Object.entries(problem).filter(([name]) => name !== "gradients" && !/^d[A-Z]/.test(name)),
  ) as unknown as LinearAttentionProblem;
  const { specs: given, ...resolved } = resolveLinear(forward, caller);
  const { layout, normalized, stateShape, normalizerShape, outputShape } = resolved;
  checkSizes(label, { ...resolved, group: 1 });
  const specs = new Map<LinearBackwardTensor, ResolvedSpec>();
  for (const [name, spec] of given)
    if (name !== "output") specs.set(name as LinearBackwardTensor, spec);

  const dOutput = checkedSpec(label, "dOutput", problem.dOutput, FLOATS);
  expectShape(label, "dOutput", dOutput, outputShape, `(axes ${AXES[layout]})`);
  specs.set("dOutput", dOutput);
  const states = { State: stateShape, Normalizer: normalizerShape };
  const denseState = (name: LinearBackwardTensor, kind: keyof typeof states, spec: TensorSpec) => {
    const checked = checkedSpec(label, name, spec);
    const shape = states[kind];
    expectShape(label, name, checked, shape, kind === "State" ? "[B, Hkv, D, Dv]" : "[B, Hkv, D]");
    const strides = denseStrides(shape);
    check(
      shape.includes(0) ||
        shape.every((size, axis) => size === 1 || checked.strides[axis] === strides[axis]),
      "argument",
      () => `${label}: ${name} must be dense, strides [${strides}], got [${checked.strides}].`,
    );
    specs.set(name, checked);
  };
  expectNoNormalizer(label, "dPresentNormalizer", problem, normalized);
  for (const kind of ["State", "Normalizer"] as const) {
    const name = `dPresent${kind}` as const;
    const spec = problem[name];
    if (spec !== undefined) denseState(name, kind, spec);
  }

  const wanted = wantedOf(label, problem, specs, normalized);
  for (const name of LINEAR_GRADIENTS) {
    const spec = problem[name];
    check(
      spec === undefined || wanted.has(name),
      "argument",
      () => `${label}: ${name} is given, and gradients does not name it.`,
    );
    if (!wanted.has(name)) continue;
    if (name === "dPastState") denseState(name, "State", spec ?? { shape: stateShape });
    else if (name === "dPastNormalizer")
      denseState(name, "Normalizer", spec ?? { shape: normalizerShape });
    else {
      const { shape, dtype } = specs.get(OF[name]) as ResolvedSpec;
      const checked = spec
        ? checkedSpec(label, name, spec, FLOATS)
        : resolveSpec(label, { shape, dtype });
      expectShape(label, name, checked, shape, `as ${OF[name]}`);
      expectApart(label, name, checked);
      specs.set(name, checked);
    }
  }
  return { ...resolved, specs, wanted };
}

function expectNoNormalizer(
  label: string,
  name: LinearBackwardTensor,
  problem: Taken<LinearAttentionBackwardProblem>,
  normalized: boolean,
): void {
  check(
    normalized || problem[name] === undefined,
    "argument",
    () => `${label}: the attention is not normalised: there is no ${name}.`,
  );
}

/** The gradients that are asked for, by default those of all tensors. */
function wantedOf(
  label: string,
  { gradients }: Taken<LinearAttentionBackwardProblem>,
  specs: ReadonlyMap<string, ResolvedSpec>,
  normalized: boolean,
): ReadonlySet<LinearGradient> {
  if (gradients === undefined)
    return new Set(LINEAR_GRADIENTS.filter((name) => specs.has(OF[name])));
  check(
    Array.isArray(gradients) &&
      gradients.length > 0 &&
      gradients.every((name) => LINEAR_GRADIENTS.includes(name)),
    "argument",
    () =>
      `${label}: gradients must be a list of names, of ${LINEAR_GRADIENTS.map((name) => `"${name}"`).join(", ")}, got ${show(gradients)}.`,
  );
  for (const name of gradients as readonly LinearGradient[]) {
    const isThere =
      name === "dPastState" || (name === "dPastNormalizer" ? normalized : specs.has(OF[name]));
    check(
      isThere,
      "argument",
      () => `${label}: gradients names "${name}", and the problem has no ${OF[name]}.`,
    );
  }
  return new Set(gradients);
}

/** The spec of a tensor with the axes in BHMD order; a normaliser is one row a head. */
export function rowsOf(spec: ResolvedSpec, layout: ResolvedLinear["layout"]): ResolvedSpec {
  if (spec.shape.length === 4) return reorder(spec, layout);
  const [batch, heads, width] = spec.shape;
  const [strideB, strideH, strideD] = spec.strides;
  return { ...spec, shape: [batch, heads, 1, width], strides: [strideB, strideH, 0, strideD] };
}
