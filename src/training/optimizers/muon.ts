// The part of Muon that makes updates orthogonal: matrices of one shape are a stack, whose
// Newton-Schulz steps are products of the engine's own kernels.

import { tensor } from "../../gpu/make_tensor.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import {
  MUON_STAGE,
  NORM_PARAMS,
  OPTIMIZER_CHUNK,
  optimizerKernel,
  POLYNOMIAL_PARAMS,
  PURPOSE,
  polynomialWorkgroups,
} from "../../kernels/training/optimizer.ts";
import { planProjection } from "../../operations/projection.ts";
import type { Caller } from "../../plan/operation.ts";
import type { OptimizerOptions } from "./options.ts";
import type { Part, Recorded, Step } from "./sequence.ts";

/** Matrices of one shape, with the same steps. */
export interface Stack {
  readonly rows: number;
  readonly columns: number;
  readonly settings: Required<Pick<OptimizerOptions, "eps" | "nsSteps" | "nsCoefficients">>;
  matrices: number;
}

/** Collects stacks: a matrix joins the last one of its shape and settings that has room. */
export function collectStacks(device: GPUDevice) {
  const stacks: Stack[] = [];
  const add = (shape: readonly number[], settings: Stack["settings"]) => {
    const [rows, columns] = shape;
    const { eps, nsSteps, nsCoefficients } = settings;
    const like = JSON.stringify([eps, nsSteps, nsCoefficients]);
    const limit = device.limits.maxStorageBufferBindingSize;
    let stack = stacks.findLast(
      (one) =>
        one.rows === rows &&
        one.columns === columns &&
        JSON.stringify(Object.values(one.settings)) === like,
    );
    if (!stack || 4 * rows * columns * (stack.matrices + 1) > limit) {
      stack = { rows, columns, settings: { eps, nsSteps, nsCoefficients }, matrices: 0 };
      stacks.push(stack);
    }
    return { stack: stacks.indexOf(stack), matrix: stack.matrices++ };
  };
  return { stacks, add };
}

/** Scratch memory that all stacks share, one after the other. */
export interface MuonMemory {
  /** The matrices before and after a step. */
  readonly matrices: readonly [Tensor, Tensor];
  /** X X^T, and its square. */
  readonly squares: readonly [Tensor, Tensor];
  readonly norms: Tensor;
  readonly partials: Tensor;
}

/** Allocates the scratch memory of stacks. What was made goes into `owned`, too. */
export function allocateMuon(
  { device, label }: Caller,
  stacks: readonly Stack[],
  owned: Tensor[],
): MuonMemory {
  const most = (count: (stack: Stack) => number) => Math.max(...stacks.map(count));
  const own = (name: string, size: number) => {
    const made = tensor(device, [size], { label: `${label} ${name}` });
    owned.push(made);
    return made;
  };
  const elements = most(({ rows, columns, matrices }) => rows * columns * matrices);
  const squares = most(({ rows, columns, matrices }) => Math.min(rows, columns) ** 2 * matrices);
  return {
    matrices: [own("matrices", elements), own("next matrices", elements)],
    squares: [own("products", squares), own("polynomials", squares)],
    norms: own("norms", 3 * most(({ matrices }) => matrices)),
    partials: own(
      "partial norms",
      most(({ rows, columns, matrices }) => matrices * chunksOf(rows * columns)),
    ),
  };
}

const chunksOf = (elements: number) => Math.ceil(elements / OPTIMIZER_CHUNK);

/**
 * The steps from the mixed gradients of a stack, in `memory.matrices[0]`, to the orthogonal ones.
 * Plans of products go into `plans`.
 *
 * @param chunks A step over the stack's chunks, by kernel and the stage of its uniform
 */
export async function orthogonalSteps(
  { device, label }: Caller,
  { rows, columns, matrices, settings }: Stack,
  memory: MuonMemory,
  chunks: (kernel: "norm" | "muon", stage: number) => Step,
  plans: { destroy(): void }[],
): Promise<{ readonly steps: Part[]; readonly result: Tensor }> {
  const inner = Math.max(rows, columns);
  const side = Math.min(rows, columns);
  const x = memory.matrices.map((one) => one.view({ shape: [matrices, side, inner] }));
  const [product, square] = memory.squares.map((one) =>
    one.view({ shape: [matrices, side, side] }),
  );
  const multiply = async (a: Tensor, b: Tensor, output: Tensor): Promise<Recorded> => {
    const plan = await planProjection(device, {
      x: a,
      weight: b,
      output,
      label: `${label} product`,
    });
    plans.push(plan);
    const record = plan.prepare({}) ?? (() => {});
    return { record, dispatchCount: plan.dispatchCount };
  };
  const grams = [await multiply(x[0], x[0], product), await multiply(x[1], x[1], product)];
  const squared = await multiply(product, product, square);
  const turned = x.map((one) => one.permute(0, 2, 1));
  const applied = [
    await multiply(square, turned[0], x[1]),
    await multiply(square, turned[1], x[0]),
  ];
  const { eps, nsSteps, nsCoefficients } = settings;
  const elements = matrices * side ** 2;
  const [a, b, c] = nsCoefficients;
  const polynomial: Step = {
    source: optimizerKernel("polynomial"),
    struct: POLYNOMIAL_PARAMS,
    values: { elements, size: side, a, b, c },
    workgroups: polynomialWorkgroups(elements),
    bound: { source: product, result: square },
  };
  const norms: Step = {
    source: optimizerKernel("norm_total"),
    struct: NORM_PARAMS,
    values: {
      norms: matrices,
      first_partial: 0,
      partials: chunksOf(rows * columns),
      purpose: PURPOSE.divide,
      bound: eps,
    },
    workgroups: matrices,
    bound: { partials: memory.partials, norms: memory.norms },
  };
  const steps: Part[] = [chunks("norm", 0), norms, chunks("muon", MUON_STAGE.normalise)];
  for (let step = 0; step < nsSteps; step++)
    steps.push(grams[step % 2], squared, polynomial, applied[step % 2]);
  return { steps, result: memory.matrices[nsSteps % 2] };
}

/** The factor of the rate for a matrix [rows, columns]. */
export const adjustedRate = (
  [rows, columns]: readonly number[],
  adjustLr: OptimizerOptions["adjustLr"],
): number =>
  adjustLr === "match_rms_adamw"
    ? 0.2 * Math.sqrt(Math.max(rows, columns))
    : Math.sqrt(Math.max(1, rows / columns));
