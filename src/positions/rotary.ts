// Rotary position embedding: the plan, and the one-liner on top of it.

import { readOptions, type Taken } from "../given.ts";
import type { FloatTensor, Tensor } from "../gpu/tensor.ts";
import { isAligned } from "../kernels/access.ts";
import {
  ROTARY_PARAMS,
  type RotarySpecialisation,
  rotaryKernel,
  rotaryWorkgroups,
} from "../kernels/rotary.ts";
import { angleTables, angleTablesShape } from "../kernels/rotary_angles.ts";
import { accessOf, addresses } from "../plan/access.ts";
import type { Operands } from "../plan/operand.ts";
import { type Caller, operation, optionsBeside, type Stage } from "../plan/operation.ts";
import { Plan } from "../plan/plan.ts";
import { checkTensors, type RunOptions } from "../plan/run.ts";
import { bindingBase, checkedSpec, FLOATS, reorder } from "../plan/specs.ts";
import type { PlanTensors } from "../plan/tensors.ts";
import type { TensorSpec } from "../types.ts";
import { addPositions, positionParams, positionsOperand } from "./positions.ts";
import {
  type ResolvedRotaryProblem,
  ROTARY_PROBLEM,
  type RotaryBindings,
  type RotaryProblem,
  resolveRotaryProblem,
} from "./rotary_problem.ts";

/**
 * A compiled rotary embedding. Make one with {@link planRotary}; encode it as often as you like.
 */
export type RotaryPlan = Plan<RotaryBindings>;
export const RotaryPlan = Plan;

/**
 * Compiles a rotary position embedding (RoPE), of queries or of keys: the two channels of each pair
 * turn by an angle that grows with the position, so that products of queries and keys depend on the
 * distance of their positions.
 *
 * ```
 * (a, b) -> f (a cos t - b sin t, a sin t + b cos t)
 * t = position * theta_k,  theta_k = base^(-2k / R),  k < R / 2
 * ```
 *
 * Source: RoFormer (arXiv 2104.09864), equation 34. Pairs are (x[k], x[k + R / 2]), or (x[2k], x[2k
 * + 1]) if `interleaved`; channels from R on are copied. f is the attention factor: 1, but for YaRN
 * and LongRoPE. Frequencies may be scaled for long texts ({@link RotaryScaling}); tokens may have
 * three positions each (`sections`).
 *
 * Angles are computed in float64 and put together from small tables: cos and sin are right to 3e-7
 * at every position from -2^23 up to 2^23. (A product of position and frequency in f32 is off by up
 * to 0.006 radians at position 100,000.) The arithmetic is f32. Lengths, strides, positions, base
 * and scaling compile nothing.
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const scaling = { type: "llama3", factor: 8, originalMaxPositions: 8192 } as const;
 * const plan = await planRotary(device, {
 *   x: q,
 *   base: 500_000,
 *   scaling,
 *   positionOffset: 100,
 *   inPlace: true,
 * });
 * plan.encode(encoder);
 */
export function planRotary(device: GPUDevice, problem: RotaryProblem): Promise<RotaryPlan> {
  return ROTARY.plan(device, problem);
}

const ROTARY = operation<
  RotaryProblem,
  RotaryBindings,
  ResolvedRotaryProblem,
  { readonly output?: FloatTensor }
>({
  name: "rotary",
  problem: ROTARY_PROBLEM,
  resolve: resolveRotaryProblem,
  tensors: rotaryTensors,
  kernel: rotaryStage,
  results: ({ inPlace, output, layout }) => (inPlace ? {} : { output: reorder(output, layout) }),
});

/** Adds the tensors of a rotary embedding, or of its gradient, to a plan. */
export function rotaryTensors(
  { add, own }: PlanTensors,
  { layout, x, output, inPlace, caches, rotary, positions }: ResolvedRotaryProblem,
  problem: Taken<RotaryProblem>,
  { label }: Caller,
): void {
  add("x", reorder(x, layout), problem.x, inPlace);
  if (!inPlace) add("output", reorder(output, layout), problem.output, true);
  if (caches) {
    add("cos", checkedSpec(label, "cos", problem.cos as TensorSpec, FLOATS), problem.cos);
    add("sin", checkedSpec(label, "sin", problem.sin as TensorSpec, FLOATS), problem.sin);
  }
  addPositions(positions, { add, own });
  if (!caches) {
    const { frequencies, attentionFactor } = rotary;
    own("angles", angleTablesShape(frequencies.length), {
      data: angleTables(frequencies, attentionFactor),
    });
  }
}

/** What turns the rows of x. */
export function rotaryStage(
  { x, output, inPlace, choice, rotary, positions, caches, conjugate }: ResolvedRotaryProblem,
  { device }: Caller,
  operands: Operands,
): Stage {
  const stored = positionsOperand(positions);
  const [batch, heads, rows, headDim] = x.shape;
  const [from, into] = [x, output].map((spec) => ({ spec, base: bindingBase(device, spec) }));
  const spec: RotarySpecialisation = {
    headDim,
    x: accessOf(device, from),
    o: accessOf(device, into),
    rotary: choice,
    positions: stored !== undefined,
  };
  const bhmd = { layout: "bhmd" } as const;
  const cache = (name: "cos" | "sin") => ({
    [`${name}_base`]: caches ? bindingBase(device, caches[name]) : 0,
    [`${name}_stride`]: caches && caches.rows > 1 ? caches[name].strides[0] : 0,
  });
  return {
    source: rotaryKernel(spec),
    names: {
      source: "x",
      o: inPlace ? "x" : "output",
      cos_cache: "cos",
      sin_cache: "sin",
      ...(stored && { positions: stored }),
    },
    params: {
      struct: ROTARY_PARAMS,
      values: {
        rows,
        all_rows: batch * rows,
        n_heads: heads,
        ...addresses("source", "n", from, isAligned(spec.x), bhmd),
        ...addresses("o", "m", into, isAligned(spec.o), bhmd),
        angle_rows: caches?.rows ?? 0,
        ...cache("cos"),
        ...cache("sin"),
        angle_factor: rotary.attentionFactor,
        sin_sign: conjugate ? -1 : 1,
        ...positionParams(device, positions, stored ? operands.get(stored)?.spec : undefined),
      },
    },
    workgroups: x.shape.includes(0) ? 0 : rotaryWorkgroups(spec, batch * rows, heads),
  };
}

/** Options of {@link rotary}: those of a problem, with tensors in place of specs. */
export interface RotaryRunOptions
  extends Omit<RotaryProblem, "x" | "output" | "cos" | "sin">,
    RunOptions {
  /**
   * Where the result goes. Default: a new dense tensor of the dtype of x, which is the caller's to
   * destroy.
   */
  readonly output?: Tensor;
  /**
   * cos that you computed, in place of the frequencies: [P, R / 2] or [B, M, R / 2], as in
   * {@link RotaryProblem}.
   */
  readonly cos?: Tensor;
  /** sin that you computed, like `cos`. Needed with it. */
  readonly sin?: Tensor;
}

/** The names of the options. */
const ROTARY_RUN_OPTIONS = optionsBeside(ROTARY_PROBLEM, "x");

/**
 * Rotary position embedding of queries or keys. See {@link planRotary} for the formula, the rules
 * and the shapes.
 *
 * Resolves once the GPU has accepted the work; `output.read()` waits for the result itself.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param x [B, H, M, D] f32, f16 or bf16
 * @returns `{ output }` [B, H, M, D]; x itself with `inPlace`
 *
 * @example
 * const { output: rotated } = await rotary(q, { base: 500_000, positionOffset: 100 });
 */
export async function rotary(
  x: Tensor,
  asked: RotaryRunOptions = {},
): Promise<{ readonly output: FloatTensor }> {
  const options = await readOptions("rotary", asked, ROTARY_RUN_OPTIONS);
  checkTensors(options.label ?? "rotary", { x });
  const problem = { ...options, x };
  const results = await ROTARY.run({ device: x.device, name: "rotary", problem, options });
  return { output: x as FloatTensor, ...results };
}
