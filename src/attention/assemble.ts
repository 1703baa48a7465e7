// The way from a problem to a plan, with the kernels that a function chooses.

import { checkDevice } from "../gpu/buffers.ts";
import { loadExtension } from "../scores/resolve.ts";
import { buildPlan } from "./build.ts";
import type { Kernels } from "./forward_kernels.ts";
import { attentionTensors, operandsOf } from "./memory.ts";
import type { TakenProblem } from "./problem.ts";
import { resolveProblem } from "./resolve.ts";
import type { ResolvedProblem } from "./resolved.ts";

/** Makes the plan of an attention problem with the kernels that `choose` gives for it. */
export async function assemblePlan(
  device: GPUDevice,
  problem: TakenProblem,
  kernelsFor: (
    problem: ResolvedProblem,
  ) => Omit<Kernels, "variant"> | Promise<Omit<Kernels, "variant">>,
) {
  checkDevice(device);
  const resolved = resolveProblem(problem, await loadExtension(problem));
  const kernels = await kernelsFor(resolved);
  const memory = operandsOf(device, problem, resolved, {
    asked: attentionTensors(problem, resolved),
    workspace: kernels.workspace,
  });
  const built = await buildPlan(device, resolved, memory, kernels.stagesOf);
  return { ...built, resolved, operands: memory.operands };
}
