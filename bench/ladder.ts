// The ladder: the same attention from three naive kernels up to the real one. Every rung runs the
// same problem on the same tensors. Steps are read, tested and timed; they are not part of the
// package.

import additiveScores from "../shaders/steps/additive_1_scores.wesl?raw";
import columns from "../shaders/steps/backward_1_columns.wesl?raw";
import scoreGradients from "../shaders/steps/backward_1_softmax.wesl?raw";
import scores from "../shaders/steps/forward_1_scores.wesl?raw";
import softmax from "../shaders/steps/forward_1_softmax.wesl?raw";
import values from "../shaders/steps/forward_1_values.wesl?raw";
import rows from "../shaders/steps/forward_2_rows.wesl?raw";
import tiles from "../shaders/steps/forward_3_tiles.wesl?raw";
import { assemblePlan } from "../src/attention/assemble.ts";
import type { ResolvedProblem } from "../src/attention/resolved.ts";
import { check } from "../src/errors.ts";
import type { Taken } from "../src/given.ts";
import { type AttentionPlan, type AttentionProblem, planAttention } from "../src/index.ts";
import { slotModules } from "../src/kernels/slot_modules.ts";
import { type SlotChoice, slotBindings } from "../src/kernels/slots.ts";
import { link, type ModuleMap } from "../src/shader/link.ts";
import { configModule, MODULES } from "../src/shader/modules.ts";
import type { Binding, KernelSource } from "../src/types.ts";

/** A rung: what it is called in tables, what it shows, and how it is made. */
export interface Rung {
  readonly name: string;
  readonly idea: string;
  plan(device: GPUDevice, problem: AttentionProblem): Promise<AttentionPlan>;
}

/** Invocations that a kernel of a step spends on one head. */
type Invocations = (problem: ResolvedProblem) => number;

/** One kernel of a step. */
interface Step {
  readonly root: string;
  readonly invocations: Invocations;
}

const NAIVE: readonly Step[] = [
  { root: "package::steps::forward_1_scores", invocations: ({ seqQ, seqKv }) => seqQ * seqKv },
  { root: "package::steps::forward_1_softmax", invocations: ({ seqQ }) => seqQ },
  {
    root: "package::steps::forward_1_values",
    invocations: ({ seqQ, vDim }) => seqQ * Math.ceil(vDim / 4),
  },
];
const ROWS: readonly Step[] = [
  { root: "package::steps::forward_2_rows", invocations: ({ seqQ }) => seqQ },
];
const TILES: readonly Step[] = [
  { root: "package::steps::forward_3_tiles", invocations: ({ seqQ }) => seqQ },
];

const NAIVE_ADDITIVE: readonly Step[] = [
  { root: "package::steps::additive_1_scores", invocations: ({ seqQ, seqKv }) => seqQ * seqKv },
  ...NAIVE.slice(1),
];

/** The slots that steps have. Whatever fills another slot is for the real kernel only. */
const SLOTS: readonly string[] = [
  "q",
  "k",
  "v",
  "o",
  "cache",
  "sequence",
  "tables",
  "lse",
  "similarity",
  "largeScale",
] satisfies (keyof SlotChoice)[];

/** Roots and texts of the steps. */
export const STEPS: ModuleMap = {
  "package::steps::additive_1_scores": additiveScores,
  "package::steps::backward_1_columns": columns,
  "package::steps::backward_1_softmax": scoreGradients,
  "package::steps::forward_1_scores": scores,
  "package::steps::forward_1_softmax": softmax,
  "package::steps::forward_1_values": values,
  "package::steps::forward_2_rows": rows,
  "package::steps::forward_3_tiles": tiles,
};

/** The rungs, from the bottom. */
export const LADDER: readonly Rung[] = [
  {
    name: "1 naive",
    idea: "three kernels, every score in memory",
    plan: climb("naive", NAIVE, scoresOf),
  },
  { name: "2 rows", idea: "online softmax, one row an invocation", plan: climb("rows", ROWS) },
  { name: "3 tiles", idea: "k and v shared through workgroup memory", plan: climb("tiles", TILES) },
  { name: "4 forward", idea: "a 2-D register tile: the real kernel", plan: planAttention },
];

/** The rungs of additive attention: by the formula, and by the real kernel. */
export const ADDITIVE_LADDER: readonly Rung[] = [
  {
    name: "naive steps",
    idea: "a tanh for each term, every score in memory",
    plan: climb("additive", NAIVE_ADDITIVE, scoresOf),
  },
  {
    name: "fovea",
    idea: "one fused kernel, an exponential for each element of q and k",
    plan: planAttention,
  },
];

function scoresOf({ batch, heads, seqQ, seqKv }: ResolvedProblem): number[] {
  return [batch, heads, seqQ, seqKv];
}

/** Returns the modules of a step for a problem's head dims. */
export function stepModules(headDim: number, vDim: number, slots: SlotChoice): ModuleMap {
  return {
    ...MODULES,
    ...STEPS,
    ...configModule({ HEAD_DIM: headDim, V_DIM: vDim }),
    ...slotModules(slots),
  };
}

/**
 * Returns the bindings of a step's kernels. The kernels of a naive step share the scores, those of
 * the naive gradients also what reaches scores, and each kernel leaves some bindings unused.
 */
export function stepBindings(
  slots: SlotChoice,
  keeps: { readonly scores: boolean; readonly gradients: boolean },
): Binding[] {
  const bindings = slotBindings(slots);
  if (keeps.scores) bindings.push({ binding: 8, name: "workspace", type: "storage" });
  if (keeps.gradients) bindings.push({ binding: 14, name: "gradients", type: "storage" });
  return bindings;
}

function climb(
  name: string,
  steps: readonly Step[],
  workspaceOf?: (problem: ResolvedProblem) => number[],
): Rung["plan"] {
  return async (device, problem) => {
    const { plan, allocated } = await assemblePlan(
      device,
      problem as Taken<AttentionProblem>,
      (resolved) => {
        const stagesOf = (slots: SlotChoice) => {
          for (const [feature, choice] of Object.entries(slots)) {
            check(
              !choice || SLOTS.includes(feature),
              "argument",
              () => `the steps of the ladder have no ${feature}; the real kernel has.`,
            );
          }
          checkSimilarity(name, slots);
          check(
            slots.sequence !== "packed",
            "argument",
            () => "the steps of the ladder take no packed sequences.",
          );
          const modules = stepModules(resolved.headDim, resolved.vDim, slots);
          return steps.map((step) => {
            const { code, locate } = link(step.root, modules);
            const keeps = { scores: workspaceOf !== undefined, gradients: false };
            const bindings = stepBindings(slots, keeps);
            const source: KernelSource = { label: `step ${name}`, code, locate, bindings };
            const qTiles = Math.ceil(step.invocations(resolved) / 64);
            return { source, grid: { qTile: 64, qTiles, vSplits: 1 } };
          });
        };
        return { stagesOf, ...(workspaceOf && { workspace: workspaceOf(resolved) }) };
      },
    );
    await allocated;
    return plan;
  };
}

/**
 * Refuses similarities that a step does not know: the naive steps of additive attention know its
 * plain form, the others the dot product.
 */
function checkSimilarity(name: string, { similarity }: SlotChoice): void {
  const plain = similarity?.kind === "additive" && !similarity.innerBias && !similarity.unitVector;
  check(
    name === "additive" ? plain : !similarity,
    "argument",
    () =>
      `the steps ${name} of the ladder have no similarity ${similarity?.kind ?? "dot"}; the real kernel has.`,
  );
}
