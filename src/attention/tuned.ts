// Results of tuning: the adapter and the problem that they hold for, and the choice of the kernel.

import { check } from "../errors.ts";
import { adapterName } from "../gpu/device.ts";
import { accessOf } from "../plan/access.ts";
import { bindingBase, type ResolvedSpec } from "../plan/specs.ts";
import type { PresentOption } from "../scores/descriptor.ts";
import type { ResolvedProblem } from "./resolved.ts";

/**
 * The choice in the tuning result that a problem was given. Throws FoveaError if the result is for
 * another problem or adapter.
 */
export function tunedChoice(
  device: GPUDevice,
  problem: ResolvedProblem,
): { variant?: string; kvSplits?: number | undefined } {
  const { label, tuned, variant, kvSplits } = problem;
  if (tuned === undefined) return {};
  check(
    typeof tuned === "object" && tuned !== null && typeof tuned.variant === "string",
    "argument",
    () => `${label}: tuned must be a result of tune(), got ${JSON.stringify(tuned)}.`,
  );
  check(
    variant === undefined,
    "argument",
    () => `${label}: tuned chooses the variant; leave out variant "${variant}", or tuned.`,
  );
  const here = { adapter: adapterName(device), problem: problemName(device, problem) };
  for (const what of ["adapter", "problem"] as const) {
    check(
      tuned[what] === here[what],
      "argument",
      () =>
        `${label}: tuned is of the ${what} "${tuned[what]}", and this is "${here[what]}". Call tune() for it.`,
    );
  }
  return { variant: tuned.variant, kvSplits: kvSplits ?? tuned.kvSplits };
}

/** The power of two that a length rounds up to. Lengths with the same one share a choice. */
const powerOfTwo = (length: number) => (length <= 1 ? length : 2 ** Math.ceil(Math.log2(length)));

/**
 * The first words of options in the names of problems, which applications keep: those of other
 * options follow in the order of descriptors.
 */
const FIRST_WORDS = ["similarity", "temperature", "softcap", "bias", "mask"];

/**
 * The words for the options of a problem, in order, without options that only their tables name.
 */
function wordsOf(options: readonly PresentOption[]): string[] {
  const placeOf = ({ name }: PresentOption) =>
    FIRST_WORDS.includes(name) ? FIRST_WORDS.indexOf(name) : FIRST_WORDS.length;
  return [...options]
    .sort((a, b) => placeOf(a) - placeOf(b))
    .flatMap(({ name, word, tables }) => word ?? (tables ? [] : name));
}

/** The name of a problem: everything that the speed of kernels depends on, in words. */
export function problemName(device: GPUDevice, problem: ResolvedProblem): string {
  const { batch, heads, kvHeads, seqQ, seqKv, headDim, vDim, window, chunk, cache, options } =
    problem;
  const stored = (name: string, spec: ResolvedSpec) => `${name} ${accessName(device, spec)}`;
  const elements = cache?.quantised ? `int${cache.quantised.bits}` : cache?.k.dtype;
  const [left, right] = window.map((keys) => (keys <= 0 ? keys : powerOfTwo(keys)));
  const has: Readonly<Record<string, boolean>> = {
    causal: right === 0 && left < 0,
    [`window ${left} ${right}`]: left >= 0 || right > 0,
    [`chunk ${powerOfTwo(chunk)}`]: chunk > 0,
  };
  return [
    `B${powerOfTwo(batch)} H${heads}/${kvHeads} M${powerOfTwo(seqQ)} N${powerOfTwo(seqKv)} D${headDim}/${vDim}`,
    stored("q", problem.q),
    ...(cache
      ? [`cache ${cache.place} ${elements}`]
      : [stored("k", problem.k), stored("v", problem.v)]),
    stored("o", problem.output),
    ...Object.keys(has).filter((name) => has[name]),
    ...wordsOf(options),
    ...(problem.allowF16Products ? ["allowF16Products"] : []),
    ...new Set(options.flatMap(({ tables }) => (tables ?? []).map(({ name }) => name))),
  ].join(", ");
}

const accessName = (device: GPUDevice, spec: ResolvedSpec) => {
  const access = accessOf(device, { spec, base: bindingBase(device, spec) });
  return access === "dense" || access === "strided"
    ? `${spec.dtype}${access === "dense" ? "" : " strided"}`
    : access;
};
