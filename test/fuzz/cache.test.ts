// What fuzzing of caches draws.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { cacheSets, historiesOf } from "./cache.ts";
import { SUITES } from "./suites.ts";

describe("histories of caches", () => {
  it.each([1, 2, 3])("are of every kind in a run of seed %i, floats and integers", (seed) => {
    const kinds = cacheSets(seed, 2).map(
      ({ place, dtype = "f32" }) => `${place} ${dtype.replace(/\d+/, "")}`,
    );
    for (const place of ["rows", "ring", "paged"]) {
      expect(kinds.filter((kind) => kind === `${place} int`)).toHaveLength(2);
      expect(kinds.filter((kind) => kind.startsWith(place))).toHaveLength(4);
    }
  });

  it("come with every step, fit into JSON, and have the numbers that the suite asks for", () => {
    const seen = new Set<string>();
    const sets = cacheSets(7, 4);
    for (const [index, set] of sets.entries()) {
      for (const history of fc.sample(historiesOf(set), { seed: index, numRuns: 20 })) {
        expect(JSON.parse(JSON.stringify(history))).toEqual(history);
        for (const name of SUITES.cache.required)
          expect(history).toHaveProperty(name, expect.any(Number));
        for (const step of history.steps) seen.add(Object.keys(step)[0]);
        expect(history.pages === undefined).toBe(history.place !== "paged");
      }
    }
    expect([...seen].sort()).toEqual([
      "append",
      "attend",
      "calls",
      "fork",
      "free",
      "lost",
      "reject",
      "reorder",
      "submit",
      "truncate",
    ]);
  });

  it("shrink to one step of the same cache", async () => {
    const [set] = cacheSets(3, 1);
    const fails = fc.property(
      historiesOf(set),
      ({ steps }) => !steps.some((step) => "fork" in step),
    );
    const { counterexample } = fc.check(fails, { seed: 1 });
    expect(counterexample?.[0]).toMatchObject({ ...set, entries: 1, steps: [{ fork: [0, 0, 0] }] });
  });
});
