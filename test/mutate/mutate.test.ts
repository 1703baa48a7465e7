// Tests `npm run mutate` itself, on a project of one file.

import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Mutant } from "./mutant.ts";
import { chosen, loadRooms } from "./mutate.ts";
import { mutate, namedMutants } from "./runner.ts";

const root = resolve(import.meta.dirname, "../..");
const CODE = "export const add = (a: number, b: number) => a + b;\nexport const unused = 1;\n";
const TEST = `import { expect, it } from "vitest";
import { add } from "../src/tiny.ts";
it("adds", () => expect(add(2, 3)).toBe(5));
it("adds nothing", () => expect(add(2, 0)).toBe(2));
it("ends", () => { while (add(0, 0) === 7) {} });
`;

let tiny: string;
beforeAll(() => {
  tiny = mkdtempSync(join(tmpdir(), "fovea-tiny-"));
  for (const folder of ["src", "test"]) mkdirSync(join(tiny, folder));
  writeFileSync(join(tiny, "src/tiny.ts"), CODE);
  writeFileSync(join(tiny, "test/tiny.test.ts"), TEST);
  writeFileSync(join(tiny, "test/broken.test.ts"), TEST.replace("toBe(5)", "toBe(6)"));
  symlinkSync(join(root, "node_modules"), join(tiny, "node_modules"), "junction");
});
afterAll(() => rmSync(tiny, { recursive: true }));

const mutant = (text: string, replacement: string, rest: Partial<Mutant> = {}): Mutant => ({
  file: "src/tiny.ts",
  text,
  replacement,
  tests: ["test/tiny.test.ts"],
  ...rest,
});

/** Waits long for all but the tests that hang, however slow the machine is. */
const patience = ({ filter }: Mutant) => (filter === "ends" ? 3000 : 60_000);

/** Runs mutants of the tiny project, and returns what was printed of each. */
async function run(mutants: readonly Mutant[], workers = 1) {
  const lines: string[] = [];
  const print = (line: string) => lines.push(line);
  const counts = await mutate(namedMutants({ tiny: mutants }), {
    root: tiny,
    workers,
    print,
    patience,
  });
  expect(readFileSync(join(tiny, "src/tiny.ts"), "utf8")).toBe(CODE);
  return { counts, of: (number: number) => lines.find((line) => line.includes(`tiny ${number}:`)) };
}

describe("npm run mutate", () => {
  it("says who killed a mutant, and fails for one that survives or can't be tried", async () => {
    const { counts, of } = await run([
      mutant("a + b", "a - b"),
      mutant("unused = 1", "unused = 2"),
      mutant("a * b", "a - b"),
      mutant("1", "2", { equivalent: "nobody reads it" }),
      mutant("a + b", "a - b", { filter: "adds nothing" }),
      mutant("a + b", "a - b", { filter: "subtracts" }),
      mutant("a + b", "a - b", { tests: ["test/broken.test.ts"] }),
      mutant("a + b", "a +"),
      mutant("a + b", "a && b ? a + b : a + b + 7"),
      mutant("a", "b"),
    ]);
    expect(of(1)).toMatch(/^killed .*"a \+ b" -> "a - b"\n +by adds$/);
    expect(of(2)).toMatch(/^FAILED .*\n +no test notices it: 3 pass$/);
    expect(of(3)).toMatch(
      /^FAILED .*\n +its text must occur once in src\/tiny.ts, and occurs 0 times$/,
    );
    expect(of(4)).toMatch(/^skipped .*\n +equivalent: nobody reads it$/);
    expect(of(5)).toMatch(/no test notices it: 1 pass$/);
    expect(of(6)).toMatch(/no test of test\/tiny.test.ts runs whose name matches subtracts$/);
    expect(of(7)).toMatch(/fails without the mutant: adds$/);
    expect(of(8)).toMatch(/with it tests do not even load: test\/tiny.test.ts: /);
    expect(of(9)).toMatch(/^killed .*\n +by adds nothing$/);
    expect(of(10)).toMatch(/occurs \d+ times$/);
    expect(counts).toEqual({ killed: 2, failed: 7, equivalent: 1 });
  }, 120_000);

  it("ends tests that a mutant makes hang, and goes on", async () => {
    const { counts, of } = await run([
      mutant("a + b", "a + b || 7", { filter: "ends" }),
      mutant("a + b", "b + b", { filter: "adds" }),
    ]);
    expect(of(1)).toMatch(/^killed .*\n +by its tests, which do not end in \d+ s$/);
    expect(of(2)).toMatch(/^killed .*\n +by adds$/);
    expect(counts).toEqual({ killed: 2, failed: 0, equivalent: 0 });
  }, 120_000);

  it("has the mutants of all rooms, each once in its file", async () => {
    const rooms = await loadRooms(import.meta.dirname, (path) => import(path));
    const mutants = namedMutants(rooms);
    expect(mutants.length).toBeGreaterThan(50);
    const wrong = mutants.filter(
      ({ file, text }) => readFileSync(join(root, file), "utf8").split(text).length !== 2,
    );
    expect(wrong.map(({ name, file, text }) => `${name}: ${file}: ${text}`)).toEqual([]);
  });

  it("runs those that are asked for, and refuses to run none", () => {
    const rooms = { one: [mutant("a + b", "a - b")], other: [mutant("1", "2"), mutant("b", "a")] };
    const names = (room?: string, only?: string) =>
      chosen(rooms, room, only).map(({ name }) => name);
    expect(names()).toEqual(["one 1", "other 1", "other 2"]);
    expect(names("other")).toEqual(["other 1", "other 2"]);
    expect(names(undefined, "^o.* 1:")).toEqual(["one 1", "other 1"]);
    expect(() => names("third")).toThrow("--room: there is no room third; there is one, other.");
    expect(() => names("one", "nothing")).toThrow("no mutant is left: see --list for their names.");
    expect(() => names("one", "(")).toThrow("--only must be a regular expression, got (.");
  });
});
