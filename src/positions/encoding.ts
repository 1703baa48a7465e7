// Absolute position encodings, sinusoidal or learned, added to rows or alone: the plan, and the
// one-liner on top of it.

import { check } from "../errors.ts";
import { readOptions, type Taken } from "../given.ts";
import { checkDevice } from "../gpu/buffers.ts";
import { type FloatTensor, Tensor } from "../gpu/tensor.ts";
import { isAligned } from "../kernels/access.ts";
import {
  type EncodingSpecialisation,
  encodingKernel,
  encodingWorkgroups,
} from "../kernels/position_encoding.ts";
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
import { bindingBase, type ResolvedSpec } from "../plan/specs.ts";
import {
  POSITION_ENCODING_PROBLEM,
  type PositionEncodingBindings,
  type PositionEncodingProblem,
  type ResolvedEncoding,
  resolveEncoding,
} from "./encoding_problem.ts";
import { addPositions, positionParams } from "./positions.ts";

/**
 * A compiled position encoding. Make one with {@link planPositionEncoding}; encode it as often as
 * you like.
 */
export type PositionEncodingPlan = Plan<PositionEncodingBindings>;
export const PositionEncodingPlan = Plan;

/**
 * Compiles an absolute position encoding: what tells a model where a token stands, added to its
 * embedding.
 *
 * ```
 * output[b, m, :] = scale * x[b, m, :] + E[p, :]         p: the position of row m of entry b
 *
 * E = table, a learned one [P, D];  or
 * E[p, 2k] = sin(p theta_k),  E[p, 2k + 1] = cos(p theta_k),   theta_k = maxWavelength^(-2k / D)
 * ```
 *
 * Source: Attention Is All You Need (arXiv 1706.03762), sections 3.4 and 3.5. Without x the output
 * is the encodings alone. A learned table has rows for the positions 0..P - 1: others are refused
 * if they are numbers, and add nothing if they come from the GPU. Sinusoidal ones are right to 3e-7
 * at every position from -2^23 up to 2^23. The arithmetic is f32. Lengths, strides, positions and
 * frequencies compile nothing.
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const plan = await planPositionEncoding(device, { x: { shape: [1, 128, 512] }, table });
 * plan.encode(encoder, { x: embeddings, output });
 */
export async function planPositionEncoding(
  device: GPUDevice,
  problem: PositionEncodingProblem,
): Promise<PositionEncodingPlan> {
  const taken = await readOptions("positionEncoding", problem, POSITION_ENCODING_PROBLEM);
  const { plan, allocated } = await prepareEncoding(device, taken);
  await allocated;
  return plan;
}

/**
 * A plan, and a promise that rejects if its buffers could not be had: for callers with more to wait
 * for.
 */
async function prepareEncoding(device: GPUDevice, problem: Taken<PositionEncodingProblem>) {
  checkDevice(device);
  const resolved = resolveEncoding(problem);
  const { label } = resolved;
  const tensors = planTensors(device, label, (into) => collect(into, problem, resolved));
  const { plan, allocated } = await planOneKernel<PositionEncodingBindings>(
    device,
    label,
    tensors,
    () => kernelOf(device, resolved, tensors.operands, tensors.collected),
  );
  return { plan, allocated, resolved };
}

/** Adds the tensors of the plan; gives the name of the one that has the positions. */
function collect(
  { add, own }: PlanTensors,
  problem: Taken<PositionEncodingProblem>,
  resolved: ResolvedEncoding,
) {
  const { x, output, inPlace, table, sinusoidal, positions } = resolved;
  if (x) add("x", x, problem.x, inPlace);
  if (!inPlace) add("output", output, problem.output, true);
  if (table) add("table", table, problem.table);
  const stored = addPositions(positions, { add, own });
  if (sinusoidal) {
    const { frequencies } = sinusoidal;
    own("angles", angleTablesShape(frequencies.length), { data: angleTables(frequencies, 1) });
  }
  return stored;
}

/** [B, M, D] or [P, D] with four axes. */
function withHeads({ shape, strides, ...rest }: ResolvedSpec): ResolvedSpec {
  const [b, m, d] = [0, 1, 2].map((axis) => axis - 3 + shape.length);
  const size = (axis: number) => shape[axis] ?? 1;
  const step = (axis: number) => strides[axis] ?? 0;
  return {
    ...rest,
    shape: [size(b), 1, size(m), size(d)],
    strides: [step(b), 0, step(m), step(d)],
  };
}

function kernelOf(
  device: GPUDevice,
  { x, output, inPlace, table, sinusoidal, positions, scale }: ResolvedEncoding,
  operands: PlanTensors["operands"],
  stored: string | undefined,
): OneKernel {
  const [batch, rows, width] = output.shape;
  const at = (spec: ResolvedSpec | undefined) =>
    spec && { spec: withHeads(spec), base: bindingBase(device, spec) };
  const access = (one: ReturnType<typeof at>) => (one ? accessOf(device, one) : "dense");
  const from = at(x);
  const rowsOf = at(table);
  const into = at(output);
  const { frequencies, interleaved } = sinusoidal ?? { frequencies: [], interleaved: false };
  const pairs = { rotaryDim: 2 * frequencies.length, interleaved, angles: "tables" } as const;
  const spec: EncodingSpecialisation = {
    width,
    x: inPlace ? "in place" : from && access(from),
    o: access(into),
    positions: stored !== undefined,
    encoding: table ? { table: access(rowsOf) } : { pairs },
  };
  const bhmd = { layout: "bhmd" } as const;
  return {
    source: encodingKernel(spec),
    names: {
      q: "x",
      k: "table",
      o: inPlace ? "x" : "output",
      ...(stored && { positions: stored }),
    },
    params: {
      seq_q: rows,
      total_q: batch * rows,
      seq_kv: table?.shape[0] ?? 0,
      scale,
      ...addresses("q", "m", from, isAligned(access(from)), bhmd),
      ...addresses("k", "n", rowsOf, isAligned(access(rowsOf)), bhmd),
      ...addresses("o", "m", into, isAligned(spec.o), bhmd),
      ...positionParams(
        device,
        positions,
        stored === undefined ? undefined : operands.get(stored)?.spec,
      ),
    },
    workgroups: encodingWorkgroups(width, batch * rows),
  };
}

/** Options of {@link positionEncoding}: those of a problem, with tensors where memory is meant. */
export interface PositionEncodingOptions
  extends Omit<PositionEncodingProblem, "x" | "output" | "table">,
    RunOptions {
  /** [P, D], learned. Default: the encoding is sinusoidal. */
  readonly table?: Tensor;
  /**
   * Where the result goes. Default: a new dense tensor of the dtype of x, which is the caller's to
   * destroy.
   */
  readonly output?: Tensor;
}

/** The names of the options. */
const { x: _x, ...POSITION_ENCODING_OPTIONS } = { ...POSITION_ENCODING_PROBLEM, ...RUN_OPTIONS };

/**
 * Adds sinusoidal or learned position encodings. See {@link planPositionEncoding} for the formula,
 * the rules and the shapes.
 *
 * Resolves once the GPU has accepted the work; `output.read()` waits for the result itself.
 *
 * @param x [B, M, D] f32, f16 or bf16
 * @returns `{ output }` [B, M, D]; x itself with `inPlace`
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @example
 * const { output } = await positionEncoding(embeddings, { scale: Math.sqrt(512) }); // sinusoidal
 * // learned
 * await positionEncoding(output, { table, positionIds: [0, 1, 2, 0, 1], inPlace: true });
 */
export async function positionEncoding(
  x: Tensor,
  asked: PositionEncodingOptions = {},
): Promise<{ readonly output: FloatTensor }> {
  const options = await readOptions("positionEncoding", asked, POSITION_ENCODING_OPTIONS);
  const { label = "positionEncoding" } = options;
  check(
    x instanceof Tensor,
    "argument",
    () => `${label}: x must be a Tensor; make one with tensor().`,
  );
  const { plan, allocated, resolved } = await prepareEncoding(x.device, { ...options, x });
  const { inPlace, output } = resolved;
  if (inPlace) {
    await runOnce(x.device, label, { plan, allocated }, options, () => ({}));
    return { output: x as FloatTensor };
  }
  return runOnce(x.device, label, { plan, allocated }, options, (make) => ({
    output: options.output ?? make("output", output.shape, output.dtype),
  })) as Promise<{ output: FloatTensor }>;
}
