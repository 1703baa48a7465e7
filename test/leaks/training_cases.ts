// Optimisers: plans that are made, encoded and destroyed, and what is refused to them.

import { type OptimizerProblem, planOptimizer } from "../../src/training/index.ts";
import { type Lab, type LeakCase, rejected } from "./lab.ts";

function problemOf(lab: Lab): OptimizerProblem {
  const shapes = [[4, 8], [8], [2, 2, 2]];
  return {
    kind: "AdamW",
    parameters: shapes.map((shape) => lab.rows(shape)),
    gradients: shapes.map((shape) => lab.rows(shape)),
    clip: { maxNorm: 1 },
    schedule: { kind: "cosine", totalSteps: 100 },
  };
}

export const TRAINING_CASES: readonly LeakCase[] = [
  {
    name: "planOptimizer, encode, destroy",
    start: (lab) => {
      const problem = problemOf(lab);
      const kinds = ["SGD", "Adam", "AdamW", "Lion", "Muon"] as const;
      return async (n) => {
        const kind = kinds[n % kinds.length];
        const plan = await planOptimizer(lab.device, { ...problem, kind, accumulationSteps: 2 });
        const encoder = lab.device.createCommandEncoder();
        plan.accumulate(encoder);
        plan.encode(encoder);
        lab.device.queue.submit([encoder.finish()]);
        plan.destroy();
      };
    },
  },
  {
    name: "planOptimizer: refused options, memory refused",
    start: (lab) => {
      const problem = problemOf(lab);
      return async () => {
        const { device } = lab;
        await rejected("argument", () => planOptimizer(device, { ...problem, lr: -1 }));
        await rejected("overlap", () =>
          planOptimizer(device, { ...problem, gradients: problem.parameters }),
        );
        await rejected("out-of-memory", () => lab.without(() => planOptimizer(device, problem)));
        await rejected("out-of-memory", () =>
          lab.without(
            () => planOptimizer(device, problem),
            (label) => label === "optimizer params",
          ),
        );
      };
    },
  },
];
