// Rotary position embedding: the plan, and the one-liner on top of it.

import { check } from "../errors.ts";
import { readOptions, type Taken } from "../given.ts";
import { checkDevice } from "../gpu/buffers.ts";
import { type FloatTensor, Tensor } from "../gpu/tensor.ts";
import { isAligned } from "../kernels/access.ts";
import { type RotarySpecialisation, rotaryKernel, rotaryWorkgroups } from "../kernels/rotary.ts";
import { angleTables, angleTablesShape } from "../kernels/rotary_angles.ts";
import { accessOf, addresses } from "../plan/access.ts";
import {
  type OneKernel,
  type PlanTensors,
  planOneKernel,
  planTensors,
} from "../plan/one_kernel.ts";
import { Plan } from "../plan/plan.ts";
import { RUN_OPTIONS, type RunOptions, runOnce } from "../plan/run.ts";
import { bindingBase, checkedSpec, FLOATS, reorder } from "../plan/specs.ts";
import type { TensorSpec } from "../types.ts";
import { addPositions, positionParams } from "./positions.ts";
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
 * + 1]) if `interleaved`; channels from R on are copied. f is the attention factor: 1, but for
 * YaRN. Frequencies may be scaled for long texts ({@link RotaryScaling}); tokens may have three
 * positions each (`sections`).
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
export async function planRotary(device: GPUDevice, problem: RotaryProblem): Promise<RotaryPlan> {
  const taken = await readOptions("rotary", problem, ROTARY_PROBLEM);
  const { plan, allocated } = await prepareRotary(device, taken);
  await allocated;
  return plan;
}

/**
 * A plan, and a promise that rejects if its buffers could not be had: for callers with more to wait
 * for.
 */
async function prepareRotary(device: GPUDevice, problem: Taken<RotaryProblem>) {
  checkDevice(device);
  const resolved = resolveRotaryProblem(problem);
  const { label } = resolved;
  const tensors = planTensors(device, label, (into) => collect(into, problem, resolved));
  const { plan, allocated } = await planOneKernel<RotaryBindings>(device, label, tensors, () =>
    kernelOf(device, resolved, tensors.operands, tensors.collected),
  );
  return { plan, allocated, resolved };
}

/** Adds the tensors of the plan; gives the name of the one that has the positions. */
function collect(
  { add, own }: PlanTensors,
  problem: Taken<RotaryProblem>,
  resolved: ResolvedRotaryProblem,
) {
  const { label, layout, x, output, inPlace, caches, rotary, positions } = resolved;
  add("x", reorder(x, layout), problem.x, inPlace);
  if (!inPlace) add("output", reorder(output, layout), problem.output, true);
  if (caches) {
    add("cos", checkedSpec(label, "cos", problem.cos as TensorSpec, FLOATS), problem.cos);
    add("sin", checkedSpec(label, "sin", problem.sin as TensorSpec, FLOATS), problem.sin);
  }
  const stored = addPositions(positions, { add, own });
  if (!caches) {
    const { frequencies, attentionFactor } = rotary;
    own("angles", angleTablesShape(frequencies.length), {
      data: angleTables(frequencies, attentionFactor),
    });
  }
  return stored;
}

function kernelOf(
  device: GPUDevice,
  { x, output, inPlace, choice, rotary, positions, caches, conjugate }: ResolvedRotaryProblem,
  operands: PlanTensors["operands"],
  stored: string | undefined,
): OneKernel {
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
      q: "x",
      o: inPlace ? "x" : "output",
      cos_cache: "cos",
      sin_cache: "sin",
      ...(stored && { positions: stored }),
    },
    params: {
      seq_q: rows,
      total_q: batch * rows,
      n_heads: heads,
      ...addresses("q", "m", from, isAligned(spec.x), bhmd),
      ...addresses("o", "m", into, isAligned(spec.o), bhmd),
      angle_rows: caches?.rows ?? 0,
      ...cache("cos"),
      ...cache("sin"),
      angle_factor: rotary.attentionFactor,
      sin_sign: conjugate ? -1 : 1,
      ...positionParams(
        device,
        positions,
        stored === undefined ? undefined : operands.get(stored)?.spec,
      ),
    },
    workgroups: x.shape.includes(0) ? 0 : rotaryWorkgroups(spec, batch * rows, heads),
  };
}

/** Options of {@link rotary}: those of a problem, with tensors where memory is meant. */
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
  /** Like `cos`, and with it. */
  readonly sin?: Tensor;
}

/** The names of the options. */
const { x: _x, ...ROTARY_RUN_OPTIONS } = { ...ROTARY_PROBLEM, ...RUN_OPTIONS };

/**
 * Rotary position embedding of queries or keys. See {@link planRotary} for the formula, the rules
 * and the shapes.
 *
 * Resolves once the GPU has accepted the work; `output.read()` waits for the result itself.
 *
 * @param x [B, H, M, D] f32, f16 or bf16
 * @returns `{ output }` [B, H, M, D]; x itself with `inPlace`
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @example
 * const { output: rotated } = await rotary(q, { base: 500_000, positionOffset: 100 });
 */
export async function rotary(
  x: Tensor,
  asked: RotaryRunOptions = {},
): Promise<{ readonly output: FloatTensor }> {
  const options = await readOptions("rotary", asked, ROTARY_RUN_OPTIONS);
  const { label = "rotary" } = options;
  check(
    x instanceof Tensor,
    "argument",
    () => `${label}: x must be a Tensor; make one with tensor().`,
  );
  const { plan, allocated, resolved } = await prepareRotary(x.device, { ...options, x });
  if (resolved.inPlace) {
    await runOnce(x.device, label, { plan, allocated }, options, () => ({}));
    return { output: x as FloatTensor };
  }
  return runOnce(x.device, label, { plan, allocated }, options, (make) => {
    const { shape, dtype } = reorder(resolved.output, resolved.layout);
    return { output: options.output ?? make("output", shape, dtype) };
  }) as Promise<{ output: FloatTensor }>;
}
