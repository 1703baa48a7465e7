// The tensors of a plan: those that a caller binds, and those that the plan owns.

import { tensor } from "../gpu/make_tensor.ts";
import { Tensor, type TensorOptions } from "../gpu/tensor.ts";
import type { Operand } from "./operand.ts";
import { checkOperand } from "./operand_checks.ts";
import { bindingBase, checkBindingLimit, type ResolvedSpec } from "./specs.ts";

/** The tensors of a plan. */
export interface PlanTensors {
  readonly operands: Map<string, Operand>;
  /** The tensors that the plan owns. */
  readonly owned: Tensor[];
  /**
   * Adds a tensor that the caller binds, and checks the one that is given for it, if there is one.
   */
  add(name: string, spec: ResolvedSpec, given: unknown, written?: boolean): void;
  /** Adds a tensor that the plan allocates. */
  own(name: string, shape: readonly number[], options: TensorOptions, written?: boolean): void;
}

/**
 * Collects the tensors of a plan. If `collect` throws, the tensors that the plan owns by then are
 * freed. `collect` should allocate last, after the caller's tensors were checked.
 */
export function planTensors(
  device: GPUDevice,
  label: string,
  collect: (tensors: PlanTensors) => void,
): Pick<PlanTensors, "operands" | "owned"> {
  const operands = new Map<string, Operand>();
  const owned: Tensor[] = [];
  const add: PlanTensors["add"] = (name, spec, given, written = false) => {
    const fallback = given instanceof Tensor ? given : undefined;
    const operand = { spec, base: bindingBase(device, spec), fallback, written };
    checkBindingLimit(label, name, device, spec);
    if (fallback) checkOperand(`${label}: ${name}`, device, operand, fallback);
    operands.set(name, operand);
  };
  const own: PlanTensors["own"] = (name, shape, options, written) => {
    const made = tensor(device, shape, { ...options, label: `${label} ${name}` });
    owned.push(made);
    add(name, made, made, written);
  };
  try {
    collect({ operands, owned, add, own });
  } catch (error) {
    for (const one of owned) one.destroy();
    throw error;
  }
  return { operands, owned };
}
