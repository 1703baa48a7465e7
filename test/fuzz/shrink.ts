// From a problem that fails to a small one that fails alike.

import fc from "fast-check";
import type { Case } from "../support/cases.ts";
import type { Outcome } from "./trials.ts";

export type Try = (problem: Case) => Promise<Outcome>;

export interface Drawn {
  /** The problem as drawn, and how it went. */
  readonly problem: Case;
  readonly outcome: Outcome;
  /** Of a failure the smallest problem found that fails alike, and its message. */
  readonly failure: { readonly case: Case; readonly message: string } | undefined;
}

/** Draws a problem and tries it. If it fails, it is tried smaller, and then with less, `effort` times in all. */
export async function drawn(problems: fc.Arbitrary<Case>, seed: number, attempt: Try, effort: number): Promise<Drawn> {
  let first: { problem: Case; outcome: Outcome } | undefined;
  let failure: Drawn["failure"];
  let left = effort;
  const known = new Map<string, Outcome>();
  /** Throws, which is what fast-check shrinks for, if the problem fails as the first one did. */
  const expectOther = async (problem: Case) => {
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
    const parts = partsOf(whole);
    const some = fc.asyncProperty(fc.subarray(parts), (kept) =>
      expectOther(without(whole, parts.filter((part) => !kept.includes(part)).flat())),
    );
    await fc.check(some, { numRuns: 1, examples: [[parts]] });
  }
  if (!first) throw new Error("fast-check drew nothing");
  return { ...first, failure };
}

/** What is said before any number. */
const complaint = ({ message }: Outcome) => message.split(/\d/)[0];

const SIZES: readonly (keyof Case)[] = ["B", "H", "Hkv", "M", "N", "D", "seed", "variant"];
const PACKED: readonly (keyof Case)[] = ["cuSeqlensQ", "cuSeqlensKv", "qLengths", "kvLengths", "queryOffset"];

/** What a problem can do without, keys that go together together. */
function partsOf(problem: Case): (keyof Case)[][] {
  const together = problem.cuSeqlensQ ? PACKED.filter((key) => key in problem) : [];
  const rest = (Object.keys(problem) as (keyof Case)[]).filter(
    (key) => !SIZES.includes(key) && !together.includes(key),
  );
  return [...(together.length ? [together] : []), ...rest.map((key) => [key])];
}

const without = (problem: Case, keys: readonly (keyof Case)[]): Case =>
  Object.fromEntries(Object.entries(problem).filter(([key]) => !keys.includes(key as keyof Case))) as unknown as Case;
