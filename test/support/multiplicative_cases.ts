// Gradients of multiplicative attention as tests and fuzzing describe them: run on the GPU and
// compared with the reference.

import {
  type Layout,
  multiplicativeAttention,
  multiplicativeAttentionBackward,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import { multiplicativeAttentionBackward as reference } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { product } from "./cases.ts";
import { defined } from "./features.ts";
import { Evaluations, magnitudes, partOf } from "./gradient_parts.ts";

export interface MultiplicativeCase {
  readonly B?: number;
  readonly H?: number;
  readonly M: number;
  readonly N: number;
  /** Columns of q, of k and of v. */
  readonly D: number;
  readonly K: number;
  readonly Dv: number;
  /** Whether each head has its own matrix. */
  readonly perHead?: boolean;
  readonly layout?: Layout;
  readonly causal?: boolean;
  readonly kvLengths?: readonly number[];
  /** Standard deviations of q and of dOutput. Default 1. */
  readonly spread?: number;
  readonly gradientSpread?: number;
  readonly seed?: number;
}

/** Runs attention and its gradients into poisoned tensors, and compares them with the reference. */
export async function runMultiplicativeCase(
  device: GPUDevice,
  problem: MultiplicativeCase,
): Promise<void> {
  const { B = 1, H = 1, M, N, D, K, Dv, layout = "bhmd", seed = 1 } = problem;
  const { spread = 1, gradientSpread = 1, causal, kvLengths } = problem;
  const used: Tensor[] = [];
  const put = (shape: readonly number[], data: Float32Array) => {
    used.push(tensor(device, shape, { data }));
    return used[used.length - 1];
  };
  const shapeOf = (rows: number, columns: number) =>
    layout === "bhmd" ? [B, H, rows, columns] : [B, rows, H, columns];
  const make = (what: number, shape: readonly number[], deviation = 1) => {
    const data = normal(seed * 16 + what, product(shape), deviation);
    return { shape, data, gpu: put(shape, data) };
  };
  const poisoned = (shape: readonly number[]) =>
    put(shape, new Float32Array(product(shape)).fill(Number.NaN));
  const byHeads = async (rows: Tensor) =>
    (await rows
      .permute(...(layout === "bhmd" ? [0, 1, 2, 3] : [0, 2, 1, 3]))
      .read()) as Float32Array;
  try {
    const q = make(1, shapeOf(M, D), spread);
    const k = make(2, shapeOf(N, K));
    const v = make(3, shapeOf(N, Dv));
    const weight = make(4, problem.perHead ? [H, D, K] : [D, K]);
    const dOutput = make(5, shapeOf(M, Dv), gradientSpread);
    const options = { layout, ...defined({ causal, kvLengths }) };
    const output = poisoned(dOutput.shape);
    const lse = poisoned([B, H, M]);
    const operands = [q.gpu, k.gpu, v.gpu, weight.gpu] as const;
    await multiplicativeAttention(...operands, { ...options, output, lse });
    const results = {
      dQ: poisoned(q.shape),
      dK: poisoned(k.shape),
      dV: poisoned(v.shape),
      dWeight: poisoned(weight.shape),
    };
    const given = { ...options, output, lse, dOutput: dOutput.gpu, ...results };
    await multiplicativeAttentionBackward(...operands, given);
    const dO = await byHeads(dOutput.gpu);
    const stored = await byHeads(output);
    const uncancelled = () => {
      const nothing = new Float64Array(stored.length);
      const absolute = { dOutput: magnitudes(dO), precision: "f32", output: nothing } as const;
      const given = { ...options, weight, ...absolute };
      const values = { ...v, data: magnitudes(v.data) };
      const { dCaptures, ...found } = reference(q, k, values, given);
      return found;
    };
    const evaluations = new Evaluations(
      (precision, part) => {
        const { dCaptures, ...found } = reference(q, k, v, {
          ...options,
          weight,
          dOutput: partOf(dO, part),
          ...(precision === "f32" && { precision, output: stored }),
        });
        return found;
      },
      { uncancelled },
    );
    for (const name of ["dQ", "dK", "dV"] as const) {
      const found = await byHeads(results[name]);
      evaluations.expectClose(name, found, [found.length]);
    }
    evaluations.expectClose("dWeight", await results.dWeight.read(), weight.shape);
  } finally {
    for (const one of used) one.destroy();
  }
}
