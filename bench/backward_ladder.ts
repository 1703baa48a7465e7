// The ladder of attention's gradients: by seven naive kernels, and by the real ones. Every product
// of the gradients has the form of one of attention's own, so that most kernels are steps of the
// other ladder.

import { FoveaError } from "../src/errors.ts";
import { paramsBuffer } from "../src/gpu/buffers.ts";
import { compileKernel } from "../src/gpu/pipelines.ts";
import { type Tensor, tensor } from "../src/index.ts";
import { PARAMS, UNIFORM_STRIDE } from "../src/kernels/params.ts";
import { PLAIN } from "../src/kernels/slots.ts";
import { addresses } from "../src/plan/access.ts";
import { wholeGrid } from "../src/plan/work.ts";
import { link } from "../src/shader/link.ts";
import type { KernelSource } from "../src/types.ts";
import { foveaGradients, type GradientProblem, gradientWork, problemOf } from "./backward.ts";
import type { Dims } from "./cost.ts";
import { stepBindings, stepModules } from "./ladder.ts";
import { once, product } from "./peers/arrays.ts";
import type { Contest, Contestant } from "./peers/contest.ts";
import { foveaContestant, type Recorded, upload } from "./peers/fovea.ts";

/** A rung: what it is called in tables, what it shows, and how it is made. */
interface GradientRung {
  readonly name: string;
  readonly idea: string;
  make(device: GPUDevice, problem: GradientProblem): Promise<Contestant>;
}

/** The rungs, from the bottom. */
export const BACKWARD_LADDER: readonly GradientRung[] = [
  {
    name: "1 naive",
    idea: "seven kernels, every probability and its gradient in memory",
    make: naiveGradients,
  },
  {
    name: "2 backward",
    idea: "scores computed anew in register tiles: the real kernels",
    make: (device, problem) => foveaGradients(device, problem, "backward"),
  },
];

/** The rungs side by side, checked and timed in turns. */
export function backwardLadderContest(name: string, dims: Dims): Contest {
  const problem = once(() => problemOf(dims));
  return {
    name,
    ...gradientWork(dims, "backward"),
    dims,
    contestants: Object.fromEntries(
      BACKWARD_LADDER.map((rung) => [
        rung.name,
        (device: GPUDevice) => rung.make(device, problem()),
      ]),
    ),
    expected: () => problem().gradients(),
  };
}

/** What the naive gradients read and write: f32, dense, in the order [B, H, rows, columns]. */
export interface GradientTensors {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  readonly dOutput: Tensor;
  readonly dQ: Tensor;
  readonly dK: Tensor;
  readonly dV: Tensor;
}

/** A kernel of the step: its root, what it binds under which name, and how often it is invoked. */
interface Step {
  readonly root: string;
  readonly bound: Readonly<
    Partial<Record<"q" | "k" | "v" | "o" | "workspace" | "gradients", Tensor>>
  >;
  readonly invocations: number;
  /** Elements of the rows that it reads and writes. */
  readonly width: number;
  /** Factor of products of rows. Default: that of scores, in log2 units. */
  readonly scale?: number;
}

/** Invocations of a workgroup. */
const WORKGROUP = 64;

/**
 * Prepares the naive gradients. Heads may share key heads, and a causal mask has the last query at
 * the last key; the steps know nothing else. Throws FoveaError for head dims that aren't multiples
 * of 4.
 */
export async function planNaiveBackward(
  device: GPUDevice,
  tensors: GradientTensors,
  causal: boolean,
): Promise<Recorded & { destroy(): void }> {
  const { q, v } = tensors;
  const [B, H, M, D] = q.shape;
  const [, kvHeads, N, vDim] = v.shape;
  if (D % 4 || vDim % 4) {
    throw new FoveaError(
      "argument",
      `the naive gradients take head dims that are multiples of 4, got ${D} and ${vDim}; the real kernels take all.`,
    );
  }
  const probabilities = tensor(device, [B, H, M, N], { label: "naive backward probabilities" });
  const gradients = tensor(device, [B, H, M, N], { label: "naive backward gradients" });
  const steps = stepsOf(tensors, probabilities, gradients);
  const scale = 1 / Math.sqrt(D);
  const bytes = new ArrayBuffer(steps.length * UNIFORM_STRIDE);
  const shared = {
    seq_q: M,
    seq_kv: N,
    n_heads: H,
    group_size: H / kvHeads,
    first_workgroup: 0,
    align_end: 1,
    q_offset: 0,
    window_left: -1,
    window_right: causal ? 0 : -1,
    chunk: 0,
    sink_tokens: 0,
    q_outer: B,
    scale,
  };
  const compiled = await Promise.all(
    steps.map(async ({ root, bound, width, invocations, scale: own }, index) => {
      const source = sourceOf(root, width, bound);
      const [grid] = wholeGrid(device, Math.ceil(invocations / WORKGROUP));
      const at = <Name extends "q" | "k" | "v" | "o", Row extends "m" | "n">(
        name: Name,
        row: Row,
      ) => addresses(name, row, bound[name] && { spec: bound[name], base: 0 }, true, BHMD);
      const values = {
        ...shared,
        ...at("q", "m"),
        ...at("k", "n"),
        ...at("v", "n"),
        ...at("o", "m"),
        scale_log2: own ?? scale * Math.LOG2E,
        grid_x: grid.grid_x,
      };
      PARAMS.pack(values, bytes, index * UNIFORM_STRIDE, source);
      return { source, grid, ...(await compileKernel(device, source)) };
    }),
  );
  const params = paramsBuffer(device, "naive backward", [bytes]);
  await params.done;
  const groups = compiled.map(({ source, layout }, index) =>
    device.createBindGroup({
      layout,
      entries: source.bindings.map(({ binding, name }) => {
        const bound = (steps[index].bound as Readonly<Record<string, Tensor>>)[name];
        const buffer = bound?.buffer ?? params.value;
        return { binding, resource: { buffer, ...(bound ? {} : { size: PARAMS.bytes }) } };
      }),
    }),
  );
  return {
    kernel: "naive backward",
    workspaceBytes: 2 * 4 * product(probabilities.shape),
    dispatchCount: steps.length,
    encode(pass) {
      for (const [index, { pipeline, grid }] of compiled.entries()) {
        pass.setPipeline(pipeline);
        pass.setBindGroup(0, groups[index], [index * UNIFORM_STRIDE]);
        pass.dispatchWorkgroups(grid.x, grid.y);
      }
    },
    destroy() {
      for (const one of [probabilities, gradients, params.value]) one.destroy();
    },
  };
}

const BHMD = { layout: "bhmd" } as const;

/** The kernels in their order. */
function stepsOf(
  { q, k, v, dOutput, dQ, dK, dV }: GradientTensors,
  probabilities: Tensor,
  gradients: Tensor,
): readonly Step[] {
  const [B, H, M, D] = q.shape;
  const [, kvHeads, N, vDim] = v.shape;
  const rows = B * H * M;
  const keys = B * kvHeads * N;
  const ofScores = "package::steps::forward_1_scores";
  const ofColumns = "package::steps::backward_1_columns";
  return [
    // S = scale Q K^T, P = softmax(S)
    {
      root: ofScores,
      bound: { q, k, workspace: probabilities },
      invocations: rows * N,
      width: D,
    },
    {
      root: "package::steps::forward_1_softmax",
      bound: { workspace: probabilities },
      invocations: rows,
      width: D,
    },
    // dV = P^T dO
    {
      root: ofColumns,
      bound: { q: dOutput, o: dV, workspace: probabilities },
      invocations: (keys * vDim) / 4,
      width: vDim,
    },
    // dP = dO V^T, dS = scale P (dP - rowsum(P dP))
    {
      root: ofScores,
      bound: { q: dOutput, k: v, workspace: gradients },
      invocations: rows * N,
      width: vDim,
      scale: 1,
    },
    {
      root: "package::steps::backward_1_softmax",
      bound: { workspace: probabilities, gradients },
      invocations: rows,
      width: vDim,
    },
    // dQ = dS K, dK = dS^T Q
    {
      root: "package::steps::forward_1_values",
      bound: { v: k, o: dQ, workspace: gradients },
      invocations: (rows * D) / 4,
      width: D,
    },
    {
      root: ofColumns,
      bound: { q, o: dK, workspace: gradients },
      invocations: (keys * D) / 4,
      width: D,
    },
  ];
}

function sourceOf(root: string, width: number, bound: Step["bound"]): KernelSource {
  const all = stepBindings(PLAIN, { scores: true, gradients: true });
  return {
    label: `naive ${root.split("::").at(-1)}`,
    ...link(root, stepModules(width, width, PLAIN)),
    bindings: all.filter(({ name }) => name === "params" || name in bound),
  };
}

async function naiveGradients(device: GPUDevice, problem: GradientProblem): Promise<Contestant> {
  const { dims, inputs, gradients } = problem;
  const [q, k, v, dOutput] = upload(device, inputs());
  const [dQ, dK, dV] = [q, k, v].map(({ shape }) =>
    tensor(device, shape, { data: new Float32Array(product(shape)).fill(Number.NaN) }),
  );
  const plan = await planNaiveBackward(device, { q, k, v, dOutput, dQ, dK, dV }, dims.causal);
  const one = foveaContestant(device, plan, [dQ, dK, dV], [q, k, v, dOutput, plan]);
  const { flops } = gradientWork(dims, "backward");
  // It computes all of it from the inputs, and needs nothing of attention itself.
  const { bytes } = gradientWork(dims, "both");
  return { ...one, part: { flops, bytes, expected: gradients } };
}
