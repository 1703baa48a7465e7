// Finds, for a problem that fails, a small one that fails alike.

import fc from "fast-check";
import type { Problem, Suite } from "./suites.ts";
import type { Outcome } from "./trials.ts";

export type Try = (problem: Problem) => Promise<Outcome>;

export interface Drawn {
  /** The problem as drawn, and how it went. */
  readonly problem: Problem;
  readonly outcome: Outcome;
  /** If it failed, the smallest problem found that fails alike, and its message. */
  readonly failure: { readonly case: Problem; readonly message: string } | undefined;
}

/**
 * Draws a problem of a suite and tries it. If it fails, smaller problems are tried, and then
 * problems with fewer features, `effort` times in all.
 */
export async function drawn(
  suite: Suite,
  problems: fc.Arbitrary<Problem>,
  { seed, attempt, effort }: { seed: number; attempt: Try; effort: number },
): Promise<Drawn> {
  let first: { problem: Problem; outcome: Outcome } | undefined;
  let failure: Drawn["failure"];
  let left = effort;
  const known = new Map<string, Outcome>();
  /** Throws, which is what fast-check shrinks for, if the problem fails as the first one did. */
  const expectOther = async (problem: Problem) => {
    const key = JSON.stringify(problem);
    let outcome = known.get(key);
    if (!outcome) {
      if (first && left-- <= 0) return;
      outcome = await attempt(problem);
      known.set(key, outcome);
    }
    first ??= { problem, outcome };
    if (outcome.result !== "failed" || complaint(outcome) !== complaint(first.outcome)) return;
    failure = { case: problem, message: outcome.message };
    throw new Error(outcome.message);
  };
  await fc.check(fc.asyncProperty(problems, expectOther), { seed, numRuns: 1 });
  if (failure && left > 0) {
    const whole = failure.case;
    const parts = partsOf(suite, whole);
    const some = fc.asyncProperty(fc.subarray(parts), (kept) =>
      expectOther(without(whole, parts.filter((part) => !kept.includes(part)).flat())),
    );
    await fc.check(some, { numRuns: 1, examples: [[parts]] });
  }
  if (!first) throw new Error("fast-check drew nothing");
  return { ...first, failure };
}

/** Returns the part of a message before any number. */
const complaint = ({ message }: Outcome) => message.split(/\d/)[0];

/** Returns the parts that a problem can do without. Keys that go together are one part. */
function partsOf({ sizes, together }: Suite, problem: Problem): string[][] {
  const groups = (together?.(problem) ?? []).map((keys) => keys.filter((key) => key in problem));
  const rest = Object.keys(problem).filter(
    (key) => !sizes.includes(key) && !groups.flat().includes(key),
  );
  return [...groups, ...rest.map((key) => [key])];
}

const without = (problem: Problem, keys: readonly string[]): Problem =>
  Object.fromEntries(Object.entries(problem).filter(([key]) => !keys.includes(key)));
