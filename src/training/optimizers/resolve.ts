// Checks of what an optimiser is made for.

import { check, show } from "../../errors.ts";
import { isContiguous } from "../../gpu/shapes.ts";
import { Tensor } from "../../gpu/tensor.ts";
import { digitsOf, type UpdateRule } from "../../kernels/training/optimizer.ts";
import type { UniformValues } from "../../kernels/uniform.ts";
import { checkNames } from "../../options.ts";
import type { Caller } from "../../plan/operation.ts";
import { bindingRange } from "../../plan/specs.ts";
import {
  ADAMW_OPTIONS,
  DEFAULTS,
  GROUP_OPTIONS,
  type OptimizerKind,
  type OptimizerOptions,
  type OptimizerProblem,
  SETTING_NAMES,
} from "./options.ts";

/** An algorithm with all its settings. */
export interface ResolvedGroup {
  readonly kind: OptimizerKind;
  readonly settings: OptimizerOptions;
}

/** A parameter with its gradient, and the index of its group. */
export interface Placed {
  readonly parameter: Tensor;
  readonly gradient: Tensor;
  readonly group: number;
}

/** Checks the tensors and the groups. Throws FoveaError that names what is wrong. */
export function resolveOptimizer(
  problem: OptimizerProblem,
  caller: Caller,
): { readonly groups: readonly ResolvedGroup[]; readonly placed: readonly Placed[] } {
  const { label } = caller;
  const { parameters, gradients, groups: given = [] } = problem;
  checkTensors(problem, caller);
  check(
    Array.isArray(given),
    "argument",
    () => `${label}: groups must be a list of { parameters, ... }, got ${show(given)}.`,
  );
  const groups = [resolveGroup(label, problem.kind, problem, {})];
  const groupOf = new Array<number>(parameters.length).fill(0);
  for (const [index, group] of given.entries()) {
    const what = `${label}: groups[${index}]`;
    const members = group?.parameters;
    check(
      typeof group === "object" && group !== null && Array.isArray(members),
      "argument",
      () => `${what} must be { parameters: [indices], ... }, got ${show(group)}.`,
    );
    checkNames(what, group, GROUP_OPTIONS);
    const { kind = problem.kind } = group;
    for (const member of members) {
      check(
        Number.isInteger(member) && groupOf[member] === 0,
        "argument",
        () =>
          `${what}.parameters must be indices from 0 to ${parameters.length - 1}, each in one group, got ${show(member)}.`,
      );
      groupOf[member] = groups.length;
    }
    groups.push(resolveGroup(what, kind, group, kind === problem.kind ? problem : {}));
  }
  for (const [index, { kind, settings }] of [...groups.entries()]) {
    if (kind !== "Muon") continue;
    const what = index ? `${label}: groups[${index - 1}].adamw` : `${label}: adamw`;
    const rest = settings.adamw ?? {};
    checkNames(what, rest, ADAMW_OPTIONS);
    for (const [member, group] of groupOf.entries())
      if (group === index && parameters[member].shape.length !== 2) groupOf[member] = groups.length;
    groups.push(resolveGroup(what, "AdamW", rest, {}));
  }
  const placed = parameters.map((parameter, index) => ({
    parameter,
    gradient: gradients[index],
    group: groupOf[index],
  }));
  return { groups, placed };
}

/** The settings of a group: its own, then those of `base`, then the defaults. */
function resolveGroup(
  what: string,
  kind: OptimizerKind,
  own: OptimizerOptions,
  base: OptimizerOptions,
): ResolvedGroup {
  check(
    Object.hasOwn(DEFAULTS, kind),
    "argument",
    () => `${what}: kind must be ${Object.keys(DEFAULTS).join(", ")}, got ${show(kind)}.`,
  );
  const settings: Record<string, unknown> = { ...DEFAULTS[kind] };
  for (const name of SETTING_NAMES) {
    const value = own[name] ?? base[name];
    if (value === undefined) continue;
    check(
      Object.hasOwn(settings, name),
      "argument",
      () => `${what}: ${kind} has no ${name}; it has ${Object.keys(DEFAULTS[kind]).join(", ")}.`,
    );
    settings[name] = value;
  }
  const group = { kind, settings: settings as OptimizerOptions };
  checkSettings(what, group);
  return group;
}

function checkSettings(what: string, { kind, settings }: ResolvedGroup): void {
  const { betas, momentum, dampening, nesterov, nsSteps, nsCoefficients, adjustLr } = settings;
  const isNumber = (value: unknown): value is number =>
    typeof value === "number" && Number.isFinite(Math.fround(value));
  for (const name of ["lr", "eps", "weightDecay", "momentum"] as const) {
    const value = settings[name];
    check(
      value === undefined || (isNumber(value) && value >= 0),
      "argument",
      () => `${what}: ${name} must be a number from 0 up, got ${show(value)}.`,
    );
  }
  check(
    dampening === undefined || isNumber(dampening),
    "argument",
    () => `${what}: dampening must be a number, got ${show(dampening)}.`,
  );
  const isList = (list: unknown, length: number, fits: (value: number) => boolean) =>
    list === undefined ||
    (Array.isArray(list) &&
      list.length === length &&
      list.every((value) => isNumber(value) && fits(value)));
  check(
    isList(betas, 2, (beta) => beta >= 0 && beta < 1),
    "argument",
    () => `${what}: betas must be two numbers from 0 up to below 1, got ${show(betas)}.`,
  );
  check(
    kind !== "SGD" || !nesterov || ((momentum ?? 0) > 0 && dampening === 0),
    "argument",
    () => `${what}: nesterov needs a momentum above 0 and no dampening.`,
  );
  check(
    kind !== "Muon" || (momentum ?? 0) < 1,
    "argument",
    () => `${what}: momentum of Muon must be below 1, got ${show(momentum)}.`,
  );
  check(
    nsSteps === undefined || (Number.isInteger(nsSteps) && nsSteps >= 1 && nsSteps <= 100),
    "argument",
    () => `${what}: nsSteps must be a whole number from 1 to 100, got ${show(nsSteps)}.`,
  );
  check(
    isList(nsCoefficients, 3, () => true),
    "argument",
    () => `${what}: nsCoefficients must be three numbers, got ${show(nsCoefficients)}.`,
  );
  check(
    adjustLr === undefined || adjustLr === "original" || adjustLr === "match_rms_adamw",
    "argument",
    () => `${what}: adjustLr must be "original" or "match_rms_adamw", got ${show(adjustLr)}.`,
  );
}

function checkTensors(problem: OptimizerProblem, { label, device }: Caller): void {
  const { parameters, gradients } = problem;
  for (const name of ["parameters", "gradients"] as const) {
    const list: unknown = problem[name];
    check(
      Array.isArray(list) && list.length > 0,
      "argument",
      () => `${label}: ${name} must be a list of tensors, got ${show(list)}.`,
    );
  }
  check(
    gradients.length === parameters.length,
    "argument",
    () =>
      `${label}: gradients must be one for each parameter: ${parameters.length}, got ${gradients.length}.`,
  );
  for (const name of ["parameters", "gradients"] as const)
    for (const [index, one] of problem[name].entries())
      checkTensor(`${label}: ${name}[${index}]`, device, one);
  for (const [index, { shape }] of gradients.entries())
    check(
      shape.join() === parameters[index].shape.join(),
      "argument",
      () =>
        `${label}: gradients[${index}] must be [${parameters[index].shape.join(", ")}], as its parameter, got [${shape.join(", ")}].`,
    );
  checkApart(label, parameters, gradients);
}

/** Throws FoveaError unless a tensor is live, of the device, f32 and dense. */
export function checkTensor(what: string, device: GPUDevice, one: Tensor): void {
  check(
    one instanceof Tensor,
    "argument",
    () => `${what} must be a Tensor; make one with tensor(). Got ${show(one)}.`,
  );
  check(!one.destroyed, "destroyed", () => `${what}: the tensor was destroyed.`);
  check(
    one.device === device,
    "device",
    () => `${what} belongs to another GPUDevice; tensors can't move between devices.`,
  );
  check(one.dtype === "f32", "argument", () => `${what} must be f32, got ${one.dtype}.`);
  check(
    isContiguous(one.shape, one.strides),
    "argument",
    () =>
      `${what} must be dense, its last axis fastest; got [${one.shape.join(", ")}] with strides [${one.strides.join(", ")}]. Give the tensor that it is a view of.`,
  );
  const { size } = bindingRange(one);
  const limit = device.limits.maxStorageBufferBindingSize;
  check(
    size <= limit,
    "limit",
    () =>
      `${what} has ${size} bytes; this device binds at most ${limit} at a time (maxStorageBufferBindingSize).`,
  );
}

/** Throws FoveaError if parameters share elements, or are in a buffer with gradients. */
function checkApart(
  label: string,
  parameters: readonly Tensor[],
  gradients: readonly Tensor[],
): void {
  const places = parameters.map(({ buffer, offset, size }, index) => {
    return { buffer, offset, size, index };
  });
  const used = places.filter(({ size }) => size > 0);
  const byBuffer = new Map<GPUBuffer, typeof used>();
  for (const place of used)
    byBuffer.set(place.buffer, [...(byBuffer.get(place.buffer) ?? []), place]);
  for (const list of byBuffer.values()) {
    list.sort((a, b) => a.offset - b.offset);
    for (const [at, { offset, index }] of list.entries()) {
      const before = list[at - 1];
      check(
        !before || before.offset + before.size <= offset,
        "overlap",
        () =>
          `${label}: parameters[${before.index}] and parameters[${index}] share elements. Give a tensor that is used twice once, with the sum of its gradients.`,
      );
    }
  }
  for (const [index, { buffer, size }] of gradients.entries())
    check(
      !size || !byBuffer.has(buffer),
      "overlap",
      () =>
        `${label}: gradients[${index}] is in the GPUBuffer of a parameter; give gradients other buffers.`,
    );
}

/** The kernel that updates a group's parameters by itself; Muon's matrices have more of them. */
export function ruleOf({ kind, settings }: ResolvedGroup): UpdateRule | "muon" {
  if (kind === "SGD") return settings.momentum ? "momentum" : "sgd";
  if (kind === "Lion") return "lion";
  if (kind === "Muon") return "muon";
  return settings.amsgrad ? "amsgrad" : "adam";
}

/** The numbers of a group that its updates read. */
export function groupValues({ kind, settings }: ResolvedGroup): UniformValues {
  const { betas, momentum = 0, dampening = 0, eps = 0, weightDecay = 0, nesterov } = settings;
  const [beta1, beta2] = betas ?? [momentum, 0];
  const isAdam = kind === "Adam" || kind === "AdamW";
  const isAdded = kind === "SGD" || kind === "Adam";
  return {
    digits1: digitsOf(isAdam ? beta1 : 0),
    digits2: digitsOf(isAdam ? beta2 : 0),
    beta1,
    rest1: kind === "SGD" ? 1 - dampening : 1 - beta1,
    beta2,
    rest2: 1 - beta2,
    eps,
    l2: isAdded ? weightDecay : 0,
    decay: isAdded ? 0 : weightDecay,
    nesterov: nesterov ? 1 : 0,
    rate: 0,
    step_size: 0,
    root: 0,
    shrinkage: 0,
    updates: 0,
  };
}
