// LSTM and GRU as tests describe them, run on the GPU with their gradients and compared with the
// reference.

import {
  type GruOptions,
  gru,
  gruBackward,
  type LstmBackwardOptions,
  type LstmOptions,
  lstm,
  lstmBackward,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import {
  gru as gru64,
  gruBackward as gruBackward64,
  lstm as lstm64,
  lstmBackward as lstmBackward64,
} from "../../src/reference/index.ts";
import type { Float } from "./cases.ts";
import { expectGradientsClose, GradientTensors } from "./gradients.ts";

export interface RecurrentCase {
  readonly cell: "lstm" | "gru";
  readonly B: number;
  readonly T: number;
  readonly I: number;
  readonly H: number;
  /** Default 1. */
  readonly layers?: number;
  readonly bidirectional?: boolean;
  /** Whether there are biases: all, none, or those of the inputs only. Default: all. */
  readonly biases?: "all" | "none" | "ih";
  readonly batchFirst?: boolean;
  /** Whether there are first states. */
  readonly starts?: boolean;
  readonly lengths?: readonly number[];
  /** Whether the lengths are in memory. */
  readonly lengthsOnGpu?: boolean;
  /** The gradients that come in. Default: all. */
  readonly incoming?: readonly ("dOutput" | "dHN" | "dCN")[];
  /** The storage of x and the weights. Default f32. */
  readonly dtype?: Float;
  /** Whether x, states and their gradients are views with rows between their own. */
  readonly strided?: boolean;
  /** Options of both calls. */
  readonly maxDispatchFlops?: number;
  readonly seed?: number;
}

/** The shapes of a case. */
export function recurrentShapes(problem: RecurrentCase) {
  const { cell, B, T, I, H, layers = 1, bidirectional = false, biases = "all" } = problem;
  const { batchFirst = true } = problem;
  const D = bidirectional ? 2 : 1;
  const rows = (cell === "lstm" ? 4 : 3) * H;
  const sequence = (width: number) => (batchFirst ? [B, T, width] : [T, B, width]);
  const weights: Record<string, readonly number[]> = {};
  for (let index = 0; index < layers * D; index++) {
    const suffix = `_l${Math.floor(index / D)}${index % D ? "_reverse" : ""}`;
    weights[`weight_ih${suffix}`] = [rows, index < D ? I : D * H];
    weights[`weight_hh${suffix}`] = [rows, H];
    if (biases !== "none") weights[`bias_ih${suffix}`] = [rows];
    if (biases === "all") weights[`bias_hh${suffix}`] = [rows];
  }
  return { x: sequence(I), output: sequence(D * H), ends: [layers * D, B, H], weights };
}

/** Runs a case and its gradients into poisoned tensors, and compares all with the reference. */
export async function runRecurrentCase(device: GPUDevice, problem: RecurrentCase): Promise<void> {
  const { cell, batchFirst = true, starts = false, dtype = "f32", maxDispatchFlops } = problem;
  const isLstm = cell === "lstm";
  const shapes = recurrentShapes(problem);
  const tensors = new GradientTensors(device);
  const gap = problem.strided ? 3 : 0;
  let seed = 1000 * (problem.seed ?? 1);
  const make = (shape: readonly number[], storage: Float = "f32") => ({
    ...tensors.make(++seed, shape, { dtype: storage, gap, spread: 0.6 }),
    shape,
  });
  const poisoned = (shape: readonly number[], storage: Float = "f32") => ({
    gpu: tensors.poisoned(shape, { dtype: storage, gap }),
    shape,
  });
  const x = make(shapes.x, dtype);
  const entries = Object.entries(shapes.weights).map(
    ([name, shape]) => [name, make(shape, dtype)] as const,
  );
  const h0 = starts ? make(shapes.ends) : undefined;
  const c0 = starts && isLstm ? make(shapes.ends) : undefined;
  const output = poisoned(shapes.output, dtype);
  const hN = poisoned(shapes.ends);
  const cN = poisoned(shapes.ends);
  const dOutput = make(shapes.output);
  const dHN = make(shapes.ends);
  const dCN = make(shapes.ends);
  const dX = poisoned(shapes.x, dtype);
  const dH0 = poisoned(shapes.ends);
  const dC0 = poisoned(shapes.ends);
  const parameters = entries.map(([name, { shape }]) => [name, poisoned(shape, dtype)] as const);
  const gpuOf = (list: readonly (readonly [string, { readonly gpu: Tensor }])[]) =>
    Object.fromEntries(list.map(([name, { gpu }]) => [name, gpu]));
  const used: Tensor[] = [];
  const onGpu = problem.lengths && problem.lengthsOnGpu;
  const lengths = onGpu
    ? tensor(device, [problem.B], { dtype: "i32", data: Int32Array.from(problem.lengths ?? []) })
    : problem.lengths;
  if (lengths && "destroy" in lengths) used.push(lengths);
  const settings = {
    batchFirst,
    ...(lengths && { lengths }),
    ...(maxDispatchFlops && { maxDispatchFlops }),
  };
  const incoming = (problem.incoming ?? ["dOutput", "dHN", "dCN"]).filter(
    (name) => isLstm || name !== "dCN",
  );
  const comes = { dOutput, dHN, dCN };
  try {
    const forward: LstmOptions & GruOptions = {
      ...settings,
      keep: true,
      output: output.gpu,
      hN: hN.gpu,
      ...(h0 && { h0: h0.gpu }),
      ...(c0 && { c0: c0.gpu }),
      ...(isLstm && { cN: cN.gpu }),
    };
    const found = await (isLstm ? lstm : gru)(x.gpu, gpuOf(entries), forward);
    const { gates, states } = found;
    if (!gates || !states) throw new Error("nothing was kept");
    used.push(gates, states);
    const backward: LstmBackwardOptions = {
      ...settings,
      gates,
      states,
      ...gpuOf(incoming.map((name) => [name, comes[name]])),
      dX: dX.gpu,
      dH0: dH0.gpu,
      ...(isLstm && { dC0: dC0.gpu }),
      parameters: gpuOf(parameters),
    };
    await (isLstm ? lstmBackward : gruBackward)(x.gpu, gpuOf(entries), backward as never);

    const reference = (precision: "f64" | "f32") => {
      const theirs = Object.fromEntries(entries.map(([name, { cpu }]) => [name, cpu]));
      const options = {
        precision,
        batchFirst,
        ...(problem.lengths && { lengths: problem.lengths }),
        ...(h0 && { h0: h0.cpu.data }),
        ...(c0 && { c0: c0.cpu.data }),
        ...Object.fromEntries(incoming.map((name) => [name, comes[name].cpu.data])),
      };
      const results = (isLstm ? lstm64 : gru64)(x.cpu, theirs, options);
      const { parameters: ofWeights, ...gradients } = (isLstm ? lstmBackward64 : gruBackward64)(
        x.cpu,
        theirs,
        options,
      );
      return { ...results, ...gradients, ...ofWeights } as Record<string, Float64Array>;
    };
    const f64 = reference("f64");
    const plain = reference("f32");
    const results: Record<string, { readonly gpu: Tensor }> = {
      output,
      hN,
      dX,
      dH0,
      ...(isLstm && { cN, dC0 }),
      ...Object.fromEntries(parameters),
    };
    await expectGradientsClose(gpuOf(Object.entries(results)), f64, plain);
  } finally {
    for (const one of used) one.destroy();
    tensors.destroy();
  }
}
