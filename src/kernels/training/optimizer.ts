// The kernels of optimisers, shaders/optimizer*.wesl: which modules each is linked from, bindings,
// uniforms and grid.

import carriedSum from "../../../shaders/lib/carried_sum.wesl?raw";
import chunks from "../../../shaders/lib/chunks.wesl?raw";
import finite from "../../../shaders/lib/finite.wesl?raw";
import group from "../../../shaders/lib/optimizer_group.wesl?raw";
import power from "../../../shaders/lib/power.wesl?raw";
import optimizer from "../../../shaders/optimizer.wesl?raw";
import accumulate from "../../../shaders/optimizer_accumulate.wesl?raw";
import advance from "../../../shaders/optimizer_advance.wesl?raw";
import muon from "../../../shaders/optimizer_muon.wesl?raw";
import norm from "../../../shaders/optimizer_norm.wesl?raw";
import normTotal from "../../../shaders/optimizer_norm_total.wesl?raw";
import polynomial from "../../../shaders/optimizer_polynomial.wesl?raw";
import countedMoment from "../../../shaders/slots/counted_moment.wesl?raw";
import updateRule from "../../../shaders/slots/update_rule.wesl?raw";
import countedMomentLargest from "../../../shaders/variants/counted_moment_largest.wesl?raw";
import adam from "../../../shaders/variants/update_rule_adam.wesl?raw";
import lion from "../../../shaders/variants/update_rule_lion.wesl?raw";
import momentum from "../../../shaders/variants/update_rule_momentum.wesl?raw";
import { link, type ModuleMap } from "../../shader/link.ts";
import type { Binding, KernelSource } from "../../types.ts";
import { KernelCache } from "../kernel_cache.ts";
import { UniformStruct } from "../uniform.ts";

/** Elements of a tensor that a workgroup owns. */
export const OPTIMIZER_CHUNK = 1024;
/** Lanes of a workgroup of the polynomial, which owns an element each. */
const LANES = 64;

/** The uniform of the kernels that go through chunks, and an entry of their table of tensors. */
export const CHUNK_PARAMS = new UniformStruct(chunks, "ChunkParams");
export const ENTRY = new UniformStruct(chunks, "Entry");
/** What memory holds for each group of parameters. */
export const GROUP = new UniformStruct(group, "Group");
export const SCHEDULE_PARAMS = new UniformStruct(advance, "ScheduleParams");
export const NORM_PARAMS = new UniformStruct(normTotal, "NormParams");
export const POLYNOMIAL_PARAMS = new UniformStruct(polynomial, "PolynomialParams");

/** Kinds of schedules, purposes of norms and stages of Muon, as the shaders number them. */
export const SCHEDULE = { constant: 0, cosine: 1, linear: 2, step: 3 } as const;
export const PURPOSE = { clip: 0, measure: 1, divide: 2 } as const;
export const MUON_STAGE = { momentum: 0, normalise: 1, update: 2 } as const;

/** What an update by one dispatch does, and the state that it keeps for each parameter. */
export const RULE_STATE = {
  sgd: [],
  momentum: ["momentum"],
  adam: ["first_moment", "second_moment"],
  amsgrad: ["first_moment", "second_moment", "max_second_moment"],
  lion: ["momentum"],
} as const;
export type UpdateRule = keyof typeof RULE_STATE;

export type OptimizerKernel =
  | UpdateRule
  | "accumulate"
  | "advance"
  | "muon"
  | "norm"
  | "norm_total"
  | "polynomial";

const RULES: Readonly<Record<UpdateRule, string>> = {
  sgd: updateRule,
  momentum,
  adam,
  amsgrad: adam,
  lion,
};

/** Texts of the kernels that are not update rules. */
const ROOTS = {
  accumulate,
  advance,
  muon,
  norm,
  norm_total: normTotal,
  polynomial,
} as const;

/** Names of the bindings after the uniform; those that the kernel writes end in "!". */
const BOUND: Readonly<Record<keyof typeof ROOTS, string>> = {
  accumulate: "entries gradients accumulated_gradient!",
  advance: "lr rates! step_count! groups! clipping",
  muon: "entries groups clipping parameters! gradients! momentum! matrices! norms",
  norm: "entries gradients partials!",
  norm_total: "partials norms!",
  polynomial: "source result!",
};

const isRule = (kernel: OptimizerKernel): kernel is UpdateRule => kernel in RULE_STATE;

/** The modules of a kernel, its root and its bindings. */
export function optimizerParts(kernel: OptimizerKernel): {
  readonly root: string;
  readonly modules: ModuleMap;
  readonly bindings: readonly Binding[];
} {
  const root = `package::optimizer${isRule(kernel) ? "" : `_${kernel}`}`;
  const states = isRule(kernel) ? RULE_STATE[kernel].map((name) => `${name}!`) : [];
  const bound = isRule(kernel)
    ? ["entries", "groups", "clipping", "parameters!", "gradients!", ...states]
    : BOUND[kernel].split(" ");
  return {
    root,
    modules: {
      "package::lib::carried_sum": carriedSum,
      "package::lib::chunks": chunks,
      "package::lib::finite": finite,
      "package::lib::optimizer_group": group,
      "package::lib::power": power,
      "package::slots::counted_moment": kernel === "amsgrad" ? countedMomentLargest : countedMoment,
      "package::slots::update_rule": isRule(kernel) ? RULES[kernel] : updateRule,
      [root]: isRule(kernel) ? optimizer : ROOTS[kernel],
    },
    bindings: [
      { binding: 0, name: "params", type: "uniform" },
      ...bound.map((name, index): Binding => {
        const type = name.endsWith("!") ? "storage" : "read-only-storage";
        return { binding: index + 1, name: name.replace("!", ""), type };
      }),
    ],
  };
}

const kernels = new KernelCache<OptimizerKernel>();

export function optimizerKernel(kernel: OptimizerKernel): KernelSource {
  return kernels.get(kernel, () => {
    const { root, modules, bindings } = optimizerParts(kernel);
    return { label: `optimizer ${kernel}`, ...link(root, modules), bindings };
  });
}

/** Workgroups for the polynomials of so many elements. */
export const polynomialWorkgroups = (elements: number): number => Math.ceil(elements / LANES);

/** The digits of a number from 0 up to, but not including, 1, as shaders/lib/power.wesl has them. */
export function digitsOf(value: number): number[] {
  const bits = BigInt(Math.floor(value * 2 ** 64));
  return [0n, 16n, 32n, 48n].map((shift) => Number((bits >> shift) & 0xffffn));
}
