// The optimiser of a program, whose groups are told by the names of parameters.

import { check, FoveaError, show } from "../../errors.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import { planOptimizer } from "./optimizer.ts";
import type { OptimizerGroupOptions, OptimizerProblem } from "./options.ts";
import type { OptimizerPlan } from "./plan.ts";

/** A group of parameters with settings of its own. */
export interface NamedGroup extends Omit<OptimizerGroupOptions, "parameters"> {
  /** Which parameters are in it, by name and shape. The first group that takes one has it. */
  readonly parameters: (name: string, shape: readonly number[]) => boolean;
}

/**
 * The optimiser of a program: as {@link OptimizerProblem}, for the parameters that have gradients,
 * and with `skipNotFinite` by default.
 */
export interface ProgramOptimizer
  extends Omit<OptimizerProblem, "parameters" | "gradients" | "groups" | "label"> {
  /** Parameters with other settings. Default: none. */
  readonly groups?: readonly NamedGroup[];
}

/** Plans an optimiser for the parameters that have gradients, in the order of these. */
export async function planByName(
  device: GPUDevice,
  label: string,
  settings: ProgramOptimizer,
  tensors: {
    readonly parameters: ReadonlyMap<string, Tensor>;
    readonly gradients: ReadonlyMap<string, Tensor>;
  },
): Promise<OptimizerPlan> {
  check(
    typeof settings === "object" && settings !== null,
    "argument",
    () => `${label}: optimizer must be { kind, ... }, got ${show(settings)}.`,
  );
  const { groups = [], ...shared } = settings;
  const names = [...tensors.gradients.keys()];
  const parameters = names.map((name) => tensors.parameters.get(name) as Tensor);
  const members: number[][] = groups.map(() => []);
  for (const [at, name] of names.entries()) {
    const group = groups.findIndex((one, index) => {
      if (typeof one?.parameters === "function") return one.parameters(name, parameters[at].shape);
      throw new FoveaError(
        "argument",
        `${label}: groups[${index}].parameters must be a function of a name and a shape, got ${show(one?.parameters)}.`,
      );
    });
    if (group >= 0) members[group].push(at);
  }
  return planOptimizer(device, {
    skipNotFinite: true,
    ...shared,
    label: `${label} optimizer`,
    parameters,
    gradients: [...tensors.gradients.values()],
    groups: groups.map((one, index) => ({ ...one, parameters: members[index] })),
  });
}
