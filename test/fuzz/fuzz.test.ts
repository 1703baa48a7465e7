// `npm run fuzz`: what it does with problems that fail, and how it complains.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { Context } from "../../bench/start.ts";
import type { Case } from "../support/cases.ts";
import { expectError } from "../support/errors.ts";
import { runProgram } from "../support/programs.ts";
import { fuzz, main } from "./fuzz.ts";
import type { Problem } from "./suites.ts";
import type { Outcome } from "./trials.ts";

const root = resolve(import.meta.dirname, "../..");
const CASES = 60;

afterEach(() => vi.restoreAllMocks());

/** Fuzzes an engine that fails, or is beyond its limits, for the problems that the test says. */
async function fuzzed(
  fails: (problem: Case) => string | undefined,
  skips: (problem: Case) => boolean = () => false,
) {
  const lines: string[] = [];
  vi.spyOn(console, "log").mockImplementation((line) => lines.push(line));
  const tried: Problem[] = [];
  const attempt = async (problem: Problem): Promise<Outcome> => {
    tried.push(problem);
    const message = fails(problem as Case) ?? "";
    const result = message ? "failed" : skips(problem as Case) ? "skipped" : "passed";
    return { result, message, compiled: 0 };
  };
  const counts = await fuzz("forward", attempt, { cases: CASES, seed: 3 }, () => {});
  return { counts, text: lines.join("\n"), tried };
}

describe("fuzzing", () => {
  it("counts what passes and what is beyond the device", async () => {
    const { counts, text, tried } = await fuzzed(
      () => undefined,
      ({ rowMax }) => rowMax === true,
    );
    expect(tried).toHaveLength(CASES);
    expect(counts.failures).toEqual([]);
    expect(counts.passed + counts.skipped).toBe(CASES);
    expect(counts.skipped).toBeGreaterThan(0);
    expect(text).toBe("seed 3\n");
  });

  it("shrinks a failure to the smallest problem with the features that it takes, and prints how to run it", async () => {
    const complain = ({ N, window }: Case) =>
      N > 40 && window ? `output: ${N} is off` : undefined;
    const { counts, text, tried } = await fuzzed(complain);
    expect(counts.failed).toBeGreaterThan(0);
    expect(counts.failures).toHaveLength(counts.failed);
    const [{ case: smallest, message }] = counts.failures;
    expect(smallest).toMatchObject({ H: 1, N: 41, M: 0, window: [-1, 0] });
    expect(
      Object.keys(smallest).filter((key) => !/^(B|H|Hkv|M|N|D|seed|variant|window)$/.test(key)),
    ).toEqual([]);
    expect(message).toBe("output: 41 is off");
    expect(text).toContain(
      `failed: ${message}\n  npm run fuzz -- --repro '${JSON.stringify(smallest)}'`,
    );
    expect(tried.length).toBeLessThan(CASES + 5 * 101);
  });

  it("keeps to one failure while it shrinks", async () => {
    const complain = ({ N, M }: Case) =>
      N > 40 ? `output: ${N}` : M > 40 ? `lse: ${M}` : undefined;
    for (const { message } of (await fuzzed(complain)).counts.failures.slice(0, 5)) {
      expect(["output: 41", "lse: 41"]).toContain(message);
    }
  });
});

const run = (...args: string[]) => runProgram("test/fuzz/fuzz.ts", ...args);

describe("npm run fuzz", () => {
  it("explains itself", async () => {
    const { code, out } = await run("--help");
    expect(out).toContain("npm run fuzz -- [--suite NAME] --repro 'CASE'");
    expect(out).toContain("(of attention 80)");
    expect(code).toBe(0);
  });

  it("exits with 1 if the problem of a reproduction fails", async () => {
    const problem = { M: 3, N: 5, D: 8, window: [-5, 0] };
    const folder = mkdtempSync(join(tmpdir(), "fovea-fuzz-"));
    const json = join(folder, "fuzz.json");
    const args = [
      "--runtime",
      "dawn",
      "--repro",
      JSON.stringify(problem),
      "--seed",
      "5",
      "--json",
      json,
    ];
    const { code, out } = await run(...args);
    expect(out).toMatch(
      /failed: attention: window must be two whole numbers.*\n0 passed, 1 failed, 0 skipped\n$/,
    );
    expect(code).toBe(1);
    expect(JSON.parse(readFileSync(json, "utf8"))).toEqual({
      schema: 1,
      suite: "forward",
      seed: 5,
      adapter: expect.anything(),
      engine: expect.stringContaining("Dawn"),
      commit: expect.any(String),
      cases: 1,
      passed: 0,
      failed: 1,
      skipped: 0,
      hostile: {},
      seconds: expect.any(Number),
      failures: [{ case: problem, message: expect.stringContaining("window must be") }],
    });
    rmSync(folder, { recursive: true });
  });

  it.each([
    ["an unknown suite", ["--suite", "decode"], /^there is no suite decode; there is forward/],
    ["an unknown runtime", ["--runtime", "node"], "--runtime must be chromium or dawn, got node."],
    ["a broken number", ["--cases", "0"], "--cases must be a whole number from 1 up, got 0."],
    [
      "a broken seed",
      ["--seed", "x"],
      "--seed must be a whole number from 0 up to 2147483647, got x.",
    ],
    ["a broken reproduction", ["--repro", "{"], /^--repro must be a case as JSON: /],
    [
      "a case without sizes",
      ["--repro", "{}"],
      "--repro: the case needs whole numbers M, N and D; M is undefined.",
    ],
    ["an unknown option", ["--sed", "1"], /^Unknown option '--sed'.*npm run fuzz/s],
  ])("refuses %s", async (_, args, message) => {
    const nowhere = { server: {} as Context["server"], root, files: new Map() };
    await expectError(() => main({ ...nowhere, args }), "argument", message);
  });
});
