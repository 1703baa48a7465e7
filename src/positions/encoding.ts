import { readOptions } from "../given.ts";
import type { FloatTensor, Tensor } from "../gpu/tensor.ts";
import { isAligned } from "../kernels/access.ts";
import {
  ENCODING_PARAMS,
  type EncodingSpecialisation,
  encodingKernel,
  encodingWorkgroups,
} from "../kernels/position_encoding.ts";
import { angleTables, angleTablesShape } from "../kernels/rotary_angles.ts";
import { withHeads } from "../operations/row_axes.ts";
import { accessOf, addresses } from "../plan/access.ts";
import type { Operands } from "../plan/operand.ts";
import { type Caller, operation, optionsBeside, type Stage } from "../plan/operation.ts";
import { Plan } from "../plan/plan.ts";
import { checkTensors, type RunOptions } from "../plan/run.ts";
import { bindingBase, type ResolvedSpec } from "../plan/specs.ts";
import {
  POSITION_ENCODING_PROBLEM,
  type PositionEncodingBindings,
  type PositionEncodingProblem,
  type ResolvedEncoding,
  resolveEncoding,
} from "./encoding_problem.ts";
import { addPositions, positionParams, positionsOperand } from "./positions.ts";

/**
 * A compiled position encoding. Make one with {@link planPositionEncoding}; encode it as often as
 * you like.
 */
export type PositionEncodingPlan = Plan<PositionEncodingBindings>;
export const PositionEncodingPlan = Plan;

/**
 * Compiles an absolute position encoding: rows that tell a model where tokens stand, added to their
 * embeddings.
 *
 * ```
 * output[b, m, :] = scale * x[b, m, :] + E[p, :]         p: the position of row m of entry b
 *
 * E = table, a learned one [P, D];  or
 * E[p, 2k] = sin(p theta_k),  E[p, 2k + 1] = cos(p theta_k),   theta_k = maxWavelength^(-2k / D)
 * ```
 *
 * Source: Attention Is All You Need (arXiv 1706.03762), sections 3.4 and 3.5. Without x the output
 * is the encodings alone. A learned table has rows for the positions 0..P - 1: other positions are
 * refused if they are numbers, and add nothing if they come from the GPU. Sinusoidal encodings are
 * right to 3e-7 at every position from -2^23 up to 2^23. The arithmetic is f32. Lengths, strides,
 * positions and frequencies compile nothing.
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const plan = await planPositionEncoding(device, { x: { shape: [1, 128, 512] }, table });
 * plan.encode(encoder, { x: embeddings, output });
 */
export function planPositionEncoding(
  device: GPUDevice,
  problem: PositionEncodingProblem,
): Promise<PositionEncodingPlan> {
  return POSITION_ENCODING.plan(device, problem);
}

const POSITION_ENCODING = operation<
  PositionEncodingProblem,
  PositionEncodingBindings,
  ResolvedEncoding,
  { readonly output?: FloatTensor }
>({
  name: "positionEncoding",
  problem: POSITION_ENCODING_PROBLEM,
  resolve: resolveEncoding,
  tensors({ add, own }, { x, output, inPlace, table, sinusoidal, positions }, problem) {
    if (x) add("x", x, problem.x, inPlace);
    if (!inPlace) add("output", output, problem.output, true);
    if (table) add("table", table, problem.table);
    addPositions(positions, { add, own });
    if (sinusoidal) {
      const { frequencies } = sinusoidal;
      own("angles", angleTablesShape(frequencies.length), { data: angleTables(frequencies, 1) });
    }
  },
  kernel,
  results: ({ inPlace, output }) => (inPlace ? {} : { output }),
});

function kernel(
  { x, output, inPlace, table, sinusoidal, positions, scale }: ResolvedEncoding,
  { device }: Caller,
  operands: Operands,
): Stage {
  const stored = positionsOperand(positions);
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
      source: "x",
      o: inPlace ? "x" : "output",
      ...(stored && { positions: stored }),
    },
    params: {
      struct: ENCODING_PARAMS,
      values: {
        rows,
        all_rows: batch * rows,
        table_rows: table?.shape[0] ?? 0,
        scale,
        ...addresses("source", "n", from, isAligned(access(from)), bhmd),
        ...addresses("table", "n", rowsOf, isAligned(access(rowsOf)), bhmd),
        ...addresses("o", "m", into, isAligned(spec.o), bhmd),
        ...positionParams(device, positions, stored ? operands.get(stored)?.spec : undefined),
      },
    },
    workgroups: encodingWorkgroups(width, batch * rows),
  };
}

/** Options of {@link positionEncoding}: those of a problem, with tensors in place of specs. */
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
const POSITION_ENCODING_OPTIONS = optionsBeside(POSITION_ENCODING_PROBLEM, "x");

/**
 * Adds sinusoidal or learned position encodings. See {@link planPositionEncoding} for the formula,
 * the rules and the shapes.
 *
 * Resolves once the GPU has accepted the work; `output.read()` waits for the result itself.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param x [B, M, D] f32, f16 or bf16
 * @returns `{ output }` [B, M, D]; x itself with `inPlace`
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
  const name = "positionEncoding";
  const options = await readOptions(name, asked, POSITION_ENCODING_OPTIONS);
  checkTensors(options.label ?? name, { x });
  const problem = { ...options, x };
  const results = await POSITION_ENCODING.run({ device: x.device, name, problem, options });
  return { output: x as FloatTensor, ...results };
}
