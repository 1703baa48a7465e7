// Finds the fastest kernel for a problem on a device by trying the rows of the tile tables and the
// splits of the keys.

import { chooseKernels } from "../attention/plan_attention.ts";
import {
  ATTENTION_PROBLEM,
  type AttentionProblem,
  type Cached,
  type TunedAttention,
} from "../attention/problem.ts";
import { resolveProblem } from "../attention/resolve.ts";
import type { ResolvedProblem } from "../attention/resolved.ts";
import { check, FoveaError, show } from "../errors.ts";
import type { OptionNames } from "../given.ts";
import { checkDevice } from "../gpu/buffers.ts";
import { adapterName, MATRIX_FEATURE } from "../gpu/device.ts";
import { Tensor } from "../gpu/tensor.ts";
import { DECODE_SHAPES, MOST_QUERIES } from "../kernels/decode.ts";
import { FORWARD_TILES, isMatrixVariant, MATRIX_VARIANTS } from "../kernels/forward_tiles.ts";
import { takeOptions } from "../options.ts";
import { loadExtension } from "../scores/resolve.ts";
import { type Choice, Trial } from "./trial.ts";

/** Options of {@link tune}. */
export interface TuneOptions {
  /**
   * Milliseconds of GPU time for the comparison, once all is compiled; slow candidates are dropped
   * after one run, the others have at least three turns. Default 100.
   */
  readonly budget?: number;
  /** Rows of the tile tables to try beside the default. Default: all that can run here. */
  readonly variants?: readonly string[];
}

/**
 * Finds the kernel that computes a problem fastest on this device: times the rows of the tile
 * tables that can run here, and if keys are split over workgroups, other numbers of splits. Each
 * candidate's values are compared with the default's first. The default stays unless another is
 * faster by more than 5 % in two comparisons, turn by turn.
 *
 * The result is plain data, to be stored as JSON and given to plans of this problem on this adapter
 * as `tuned`. Problems whose lengths and batch sizes round up to the same powers of two share one
 * result. Compiling the candidates takes longer than timing them: do it once, and when nothing else
 * is to be computed.
 *
 * q, k and v may be tensors, which are read, or descriptions, for which random numbers are made.
 * Results go to tensors that `tune` allocates, and all that it allocates is freed. A cache is timed
 * with the keys that it holds.
 *
 * Rejects with FoveaError as {@link planAttention} does; with `"argument"` also for a problem with
 * a variant, for tensors other than q, k and v that are only described, and for options that make
 * no sense.
 *
 * @example
 * const problem = {
 *   q: { shape: [1, 8, 512, 64] },
 *   k: { shape: [1, 8, 512, 64] },
 *   v: { shape: [1, 8, 512, 64] },
 * };
 * const tuned = await tune(device, problem, { budget: 20, variants: ["8x32"] });
 * const stored = JSON.stringify(tuned);
 * const plan = await planAttention(device, { ...problem, tuned: JSON.parse(stored) });
 */
export async function tune(
  device: GPUDevice,
  given: AttentionProblem | Cached<AttentionProblem>,
  asked: TuneOptions = {},
): Promise<TunedAttention> {
  checkDevice(device);
  const options = takeOptions("tune", asked, TUNE_OPTIONS);
  const problem = takeOptions("tune", given, ATTENTION_PROBLEM);
  const budget = checkOptions(options);
  const resolved = resolveProblem(problem, await loadExtension(problem));
  const { label, variant, tuned } = resolved;
  check(
    variant === undefined && tuned === undefined,
    "argument",
    () => `tune: ${label}: leave variant and tuned out: that is what is to be found.`,
  );
  for (const name of ["mask", "bias"] as const) {
    check(
      problem[name] === undefined || problem[name] instanceof Tensor,
      "argument",
      () =>
        `tune: ${name} is only described; give the tensor, since what it holds decides how long attention takes.`,
    );
  }
  const trial = new Trial(device, problem);
  try {
    const standard = await trial.enter(await choiceOf(device, resolved));
    const others = await runnable(device, resolved, options.variants);
    const choices = others.filter(({ variant }) => variant !== standard.choice.variant);
    await Promise.all(choices.map((choice) => trial.enter(choice)));
    await trial.check();
    let best = await trial.fastest(budget / 3);
    if (
      best.choice.kvSplits !== undefined &&
      resolved.kvSplits === undefined &&
      trial.timed.length
    ) {
      for (const kvSplits of splitsAround(best.choice.kvSplits, resolved.mostKeys)) {
        await trial.enter({ ...best.choice, kvSplits });
      }
      await trial.check();
      best = await trial.fastest(budget / 3);
    }
    // This is loaded with the plans that tuning makes, and not before.
    const { problemName } = await import("../attention/tuned.ts");
    if (best !== standard && !(await trial.duel(best, budget / 3))) best = standard;
    return {
      adapter: adapterName(device),
      problem: problemName(device, resolved),
      ...best.choice,
      timing: trial.timing,
      candidates: trial.candidates(),
    };
  } finally {
    trial.destroy();
  }
}

const TUNE_OPTIONS: OptionNames<TuneOptions> = { budget: "number", variants: "any" };

function checkOptions({ budget = 100, variants }: TuneOptions): number {
  check(
    variants === undefined || Array.isArray(variants),
    "argument",
    () => `tune: variants must be a list of names, got ${show(variants)}.`,
  );
  check(
    Number.isFinite(budget) && budget > 0,
    "argument",
    () => `tune: budget must be a positive number of milliseconds, got ${budget}.`,
  );
  for (const name of variants ?? []) {
    check(
      TABLES.includes(name),
      "argument",
      () => `tune: there is no variant ${show(name)}; there are ${TABLES.join(", ")}.`,
    );
  }
  return budget;
}

const SHAPES = DECODE_SHAPES.map(({ name }) => name);
const TABLES = [...FORWARD_TILES.map(({ name }) => name), ...MATRIX_VARIANTS, ...SHAPES];
const HALF = FORWARD_TILES.filter(({ form }) => form === "half").map(({ name }) => name);

async function choiceOf(device: GPUDevice, resolved: ResolvedProblem): Promise<Choice> {
  const { variant, kvSplits } = await chooseKernels(device, resolved);
  return { variant, ...(kvSplits !== undefined && { kvSplits }) };
}

/** The rows of the tables that can run this problem here, and may be fast. */
async function runnable(
  device: GPUDevice,
  resolved: ResolvedProblem,
  among = TABLES as readonly string[],
) {
  const { seqQ } = resolved;
  const promising = TABLES.filter((variant) => {
    // Products in f16 may be faster, but they are less exact.
    if (HALF.includes(variant) && !resolved.allowF16Products) return false;
    if (isMatrixVariant(variant) && !device.features.has(MATRIX_FEATURE)) return false;
    // Tiles of rows waste nearly all of their work if there is one query, and so does decoding if
    // it takes a few rows at a time.
    return (
      among.includes(variant) &&
      (SHAPES.includes(variant) ? seqQ <= MOST_QUERIES.tiles : seqQ !== 1)
    );
  });
  const choices = promising.map((variant) =>
    choiceOf(device, { ...resolved, variant }).catch((error: unknown) => {
      if (error instanceof FoveaError) return undefined; // the tables say why it can't
      throw error;
    }),
  );
  return (await Promise.all(choices)).filter((choice) => choice !== undefined);
}

/** Other numbers of splits than the default. */
const splitsAround = (splits: number, keys: number): number[] => {
  const most = Math.min(4096, Math.max(1, Math.ceil(keys / 16)));
  const around = [1 / 4, 1 / 2, 2, 4].map((factor) => Math.round(splits * factor));
  return [...new Set(around)].filter((count) => count >= 1 && count <= most && count !== splits);
};
