// Gradients of what works on rows or single elements, as fuzzing describes them: plain data, run
// on the GPU and compared with the reference.

import {
  type Activation,
  activationBackward,
  layerNormBackward,
  logSoftmaxBackward,
  positionEncodingBackward,
  projectionBackward,
  rmsNormBackward,
  rotaryBackward,
  softmaxBackward,
  type Tensor,
} from "../../src/index.ts";
import {
  layerNormBackward as norm64,
  pointwiseBackward as pointwise64,
  positionEncodingBackward as positions64,
  projectBackward as project64,
  rotaryBackward as rotary64,
  softmaxAlongBackward as softmax64,
} from "../../src/reference/index.ts";
import type { Float } from "./cases.ts";
import { type Evaluate, Evaluations, partOf } from "./gradient_parts.ts";
import { type Both, GradientTensors } from "./gradients.ts";

export type RowGradient =
  | ("softmaxBackward" | "logSoftmaxBackward" | "layerNormBackward" | "rmsNormBackward")
  | ("activationBackward" | "projectionBackward" | "rotaryBackward")
  | "positionEncodingBackward";

export interface RowGradientCase {
  readonly op: RowGradient;
  /** Sizes of x, which is [B, M, N], or [B, H, M, N] for rotary. */
  readonly B?: number;
  readonly H?: number;
  readonly M: number;
  readonly N: number;
  /** Columns of a projection, rows of a table of positions. */
  readonly K?: number;
  readonly axis?: number;
  /** How x and its gradient are stored, and dOutput. Default f32. */
  readonly dtype?: readonly [x: Float, dOutput: Float];
  /** Whether there is a residual, a weight, a bias, a factor or a table, as far as the call has it. */
  readonly residual?: boolean;
  readonly weight?: boolean;
  readonly bias?: boolean;
  readonly activation?: Activation;
  readonly epsilon?: number;
  /** Rotary with neighbours as pairs. */
  readonly other?: boolean;
  readonly offset?: number;
  /** Elements between rows of x and of dX in memory that belong to nobody. */
  readonly gap?: number;
  readonly spread?: number;
  readonly mean?: number;
  readonly gradientSpread?: number;
  readonly seed?: number;
}

interface Prepared {
  readonly results: Readonly<Record<string, Tensor | undefined>>;
  readonly evaluate: Evaluate;
}

/** Runs a case into poisoned gradients and compares them with the reference. */
export async function runRowGradientCase(
  device: GPUDevice,
  problem: RowGradientCase,
): Promise<void> {
  const tensors = new GradientTensors(device);
  try {
    const { results, evaluate } = await called(problem, tensors);
    const evaluations = new Evaluations(evaluate);
    for (const [name, result] of Object.entries(results)) {
      if (!result) continue;
      const dtype = result.dtype as Float;
      evaluations.expectClose(name, await result.read(), result.shape, dtype);
    }
  } finally {
    tensors.destroy();
  }
}

/** Makes the call, and says how its gradients are evaluated. */
async function called(problem: RowGradientCase, tensors: GradientTensors): Promise<Prepared> {
  const { op, B = 1, H = 1, M, N, K = 4, axis = -1, gap = 0, seed = 1, offset = 0 } = problem;
  const [dtype, dOutputType] = problem.dtype ?? ["f32", "f32"];
  const { spread = 1, mean = 0, gradientSpread = 1, other = false } = problem;
  const shape = op === "rotaryBackward" ? [B, H, M, N] : [B, M, N];
  const numbers = (what: number, size: readonly number[], asked: boolean | undefined = true) =>
    asked ? tensors.make(seed * 16 + what, size, { dtype }) : undefined;
  const x = tensors.make(seed * 16, shape, { dtype, spread, mean, gap });
  const outputShape = op === "projectionBackward" ? [B, M, K] : shape;
  const dOutput = tensors.make(seed * 16 + 1, outputShape, {
    dtype: dOutputType,
    spread: gradientSpread,
  });
  const dX = tensors.poisoned(shape, { dtype, gap });
  const into = (one: Both | undefined) => one && tensors.poisoned(one.cpu.shape, { dtype });
  const of = (part: Parameters<Evaluate>[1]) => partOf(dOutput.cpu.data, part);

  if (op === "softmaxBackward" || op === "logSoftmaxBackward") {
    const log = op === "logSoftmaxBackward";
    await (log ? logSoftmaxBackward : softmaxBackward)(x.gpu, dOutput.gpu, { axis, dX });
    return {
      results: { dX },
      evaluate: (precision, part) => ({
        dX: softmax64(x.cpu, of(part), { axis, log, precision }),
      }),
    };
  }
  if (op === "layerNormBackward" || op === "rmsNormBackward") {
    const rms = op === "rmsNormBackward";
    const wide = shape.slice(axis);
    const weight = numbers(2, wide, problem.weight);
    const bias = numbers(3, wide, problem.bias);
    const residual = numbers(4, shape, problem.residual);
    const results = {
      dX,
      dWeight: into(weight),
      dBias: into(bias),
      dResidual: into(residual),
    };
    const { epsilon = 1e-5 } = problem;
    const given = { weight: weight?.gpu, bias: bias?.gpu, residual: residual?.gpu };
    const options = present({ ...given, ...results, axis, epsilon });
    await (rms ? rmsNormBackward : layerNormBackward)(x.gpu, dOutput.gpu, options);
    const cpu = { weight: weight?.cpu, bias: bias?.cpu, residual: residual?.cpu };
    return {
      results,
      evaluate: (precision, part) =>
        norm64(x.cpu, { ...cpu, axis, epsilon, rms, precision, dOutput: of(part) }),
    };
  }
  if (op === "activationBackward") {
    const { activation } = problem;
    const bias = numbers(2, [N], problem.bias);
    const residual = numbers(3, shape, problem.residual);
    const factor = numbers(4, shape, problem.weight);
    const results = { dX, dFactor: into(factor) };
    const given = { bias: bias?.gpu, residual: residual?.gpu, factor: factor?.gpu };
    const options = present({ ...given, ...results, activation });
    await activationBackward(x.gpu, dOutput.gpu, options as { factor: Tensor });
    const cpu = { bias: bias?.cpu, residual: residual?.cpu, factor: factor?.cpu, activation };
    return {
      results,
      evaluate: (precision, part) =>
        pointwise64(x.cpu, { ...cpu, precision, shape, dOutput: of(part) }),
    };
  }
  if (op === "projectionBackward") {
    const weight = numbers(2, [K, N]) as Both;
    const dWeight = tensors.poisoned([K, N], { dtype });
    const dBias = tensors.poisoned([K], { dtype });
    const results = { dX, dWeight, dBias };
    await projectionBackward(x.gpu, weight.gpu, dOutput.gpu, results);
    return {
      results,
      evaluate: (precision, part) => project64(x.cpu, weight.cpu, of(part), { precision }),
    };
  }
  if (op === "rotaryBackward") {
    await rotaryBackward(dOutput.gpu, { dX, positionOffset: offset, interleaved: other });
    const position = (_: number, __: number, row: number) => row + offset;
    return {
      results: { dX },
      evaluate: (precision, part) => ({
        dX: rotary64({ data: of(part), shape }, { position, interleaved: other, precision }),
      }),
    };
  }
  const table = numbers(2, [M + offset + 1, N], problem.weight);
  const results = { dX, dTable: into(table) };
  await positionEncodingBackward(
    dOutput.gpu,
    present({ ...results, table: table?.gpu, positionOffset: offset }),
  );
  const position = (_: number, row: number) => row + offset;
  return {
    results,
    evaluate: (precision, part) =>
      positions64({ ...x.cpu, shape }, of(part), {
        ...(table && { table: table.cpu }),
        position,
        precision,
      }),
  };
}

/** Leaves out what is undefined. */
const present = <T extends object>(options: T) =>
  Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as {
    [Name in keyof T]: NonNullable<T[Name]>;
  };
