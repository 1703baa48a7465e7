// `npm run conformance`: what counts as a difference, what it prints, and what it exits with.

import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Context } from "../../bench/start.ts";
import { expectError } from "../support/errors.ts";
import { runProgram } from "../support/programs.ts";
import { type Case, casesOf } from "./cases.ts";
import { describeWorst, isWithin, worstOf } from "./compare.ts";
import { main, runCases, summarize } from "./conformance.ts";
import { type Engine, lasting } from "./engines.ts";
import type { Outcome } from "./runner.ts";
import { countsOf, readResults, tableOf } from "./table.ts";
import { parseVector } from "./vector.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "fovea-conformance-"));
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true });
});

const base64 = (array: ArrayBufferView) =>
  Buffer.from(array.buffer, array.byteOffset, array.byteLength).toString("base64");
const floats = (dims: number[], ...data: number[]) => ({
  dtype: "float32",
  dims,
  data: base64(Float32Array.from(data)),
});
/** A quarter turn of (1, 0). */
const TURN = {
  op: "RotaryEmbedding",
  domain: "",
  opset: 23,
  attributes: {},
  check: { tol: 1e-5 },
  inputs: [floats([1, 1, 1, 2], 1, 0), floats([1, 1, 1], 0), floats([1, 1, 1], 1)],
  outputs: [floats([1, 1, 1, 2], 0, 1)],
};

/** Writes vectors and a manifest of them. */
function write(vectors: Readonly<Record<string, object>>): void {
  mkdirSync(join(folder, "suite"));
  for (const [name, vector] of Object.entries(vectors)) {
    writeFileSync(join(folder, "suite", `${name}.json`), JSON.stringify(vector));
  }
  const manifest = Object.keys(vectors).map((name) => ({ file: `suite/${name}.json` }));
  writeFileSync(join(folder, "manifest.json"), JSON.stringify(manifest));
}

describe("an output", () => {
  const compared = (actual: number[], expected: number[], tolerance = 0.01) => {
    const data = Float64Array.from(expected);
    const worst = worstOf(
      0,
      { dtype: "float32", shape: [1, data.length], data },
      actual,
      tolerance,
    );
    return worst && [isWithin(worst), describeWorst(worst)];
  };

  it("passes by tolerance * max(1, |expected|)", () => {
    expect(compared([0.005, 100.9], [0, 100])?.[0]).toBe(true);
    expect(compared([0.02, 100], [0, 100])).toEqual([
      false,
      "output 0 at [0, 0] is 0.02, expected 0, tolerance 0.01",
    ]);
    expect(compared([0, 98], [0, 100])).toEqual([
      false,
      "output 0 at [0, 1] is 98, expected 100, tolerance 0.01",
    ]);
    expect(compared([], [])).toBeUndefined();
  });

  it("passes -Infinity where ONNX Runtime's suite has the lowest number of the type", () => {
    expect(compared([-Infinity], [-3.4028234663852886e38])?.[0]).toBe(true);
    expect(compared([-3.4028234663852886e38], [-Infinity])?.[0]).toBe(false);
  });
  it("passes what isn't a number only where the same is expected", () => {
    const nan = Number.NaN;
    const infinity = Number.POSITIVE_INFINITY;
    expect(compared([nan, infinity, -infinity], [nan, infinity, -infinity])?.[0]).toBe(true);
    for (const [actual, expected] of [
      [nan, 0],
      [0, nan],
      [nan, infinity],
      [infinity, -infinity],
      [3.4e38, infinity],
      [-infinity, -3.4e38],
    ]) {
      expect(compared([0, actual], [0, expected], 1e30)).toEqual([
        false,
        `output 0 at [0, 1] is ${actual}, expected ${expected}, tolerance 1e+30`,
      ]);
    }
  });
});

describe("a folder of vectors", () => {
  it("has the cases of its manifest, or else its files", () => {
    write({ a: TURN, b: { ...TURN, domain: "com.microsoft", opset: 1 } });
    writeFileSync(join(folder, "other.json"), JSON.stringify({ ...TURN, opset: null }));
    const files = () =>
      casesOf(folder).map(({ file, op, opset, dtype }) => [file, op, opset, dtype]);
    const listed = [
      ["suite/a.json", "ai.onnx.RotaryEmbedding", 23, "float32"],
      ["suite/b.json", "com.microsoft.RotaryEmbedding", 1, "float32"],
    ];
    expect(files()).toEqual(listed);
    rmSync(join(folder, "manifest.json"));
    expect(files()).toEqual([
      ["other.json", "ai.onnx.RotaryEmbedding", null, "float32"],
      ...listed,
    ]);
  });

  it("has vectors that expect something, with a tolerance, of as many elements as their shapes say", () => {
    const parsed = (vector: object) => () => parseVector(JSON.stringify({ ...TURN, ...vector }));
    expect(parsed({ check: {} })).toThrow("the vector has no check.tol");
    expect(parsed({ outputs: [null] })).toThrow("the vector expects no output");
    expect(parsed({ outputs: [floats([3], 1)] })).toThrow("float32 [3] has 1 elements");
  });
});

describe("an engine", () => {
  it("is opened again if it ends or is stuck in a vector", async () => {
    const log: string[] = [];
    const passed: Outcome = { status: "passed", message: "", worst: null };
    const answers: Readonly<Record<string, () => Promise<Outcome>>> = {
      fine: async () => passed,
      crash: () => Promise.reject(new Error("target closed")),
      stuck: () => new Promise(() => {}),
    };
    const adapter = { description: "llvmpipe", software: true, features: [] };
    const open = async (): Promise<Engine> => {
      log.push("open");
      return {
        adapter,
        engine: "one",
        run: (path) => answers[path](),
        close: async () => void log.push("close"),
      };
    };
    const engine = await lasting(open, 50);
    expect(await engine.run("fine")).toBe(passed);
    const failed = (message: string) => ({
      status: "failed",
      message: `the engine ended: ${message}`,
      worst: null,
    });
    expect(await engine.run("crash")).toEqual(failed("target closed"));
    expect(await engine.run("fine")).toBe(passed);
    expect(await engine.run("stuck")).toEqual(failed("no answer in 0.05 seconds"));
    await engine.close();
    expect(log).toEqual(["open", "close", "open", "close", "open", "close"]);
  });
});

describe("the table", () => {
  it("counts what passes of every version of an operator, in every engine", () => {
    const row = (opset: number | null, status: Outcome["status"]) => ({
      op: "ai.onnx.Gelu",
      opset,
      status,
    });
    const adapter = { description: "llvmpipe", software: true, features: [] };
    const dawn = [
      row(20, "passed"),
      row(20, "skipped"),
      row(null, "passed"),
      row(20, "passed"),
      row(21, "failed"),
    ];
    const results = new Map([
      ["dawn", { adapter, engine: "Dawn 1", operators: countsOf(dawn) }],
      ["deno", { adapter, engine: "Deno 2", operators: countsOf(dawn.slice(0, 3)) }],
    ]);
    expect(tableOf(results).split("\n")).toEqual([
      "Vectors that pass: 3 of 5 in Dawn 1 on llvmpipe; 2 of 3 in Deno 2 on llvmpipe.",
      "",
      "<details><summary>By operator</summary>",
      "",
      "| operator | dawn | deno |",
      "| --- | ---: | ---: |",
      "| ai.onnx.Gelu | 1 of 1 | 1 of 1 |",
      "| ai.onnx.Gelu-20 | 2 of 3 | 1 of 2 |",
      "| ai.onnx.Gelu-21 | 0 of 1 |  |",
      "",
      "</details>",
    ]);
  });

  it("in docs/onnx.md is that of the kept results", () => {
    const root = resolve(import.meta.dirname, "../..");
    expect(readFileSync(join(root, "docs/onnx.md"), "utf8")).toContain(
      `\n${tableOf(readResults(root))}\n`,
    );
  });
});

describe("npm run conformance", () => {
  it("prints failures and what is not there, and exits with 1", async () => {
    write({
      right: TURN,
      wrong: { ...TURN, outputs: [floats([1, 1, 1, 2], 0, 0.5)] },
      shape: { ...TURN, outputs: [floats([1, 1, 2], 0, 1)] },
      refused: { ...TURN, attributes: { turns: 2 } },
      broken: { ...TURN, check: undefined },
      unknown: { ...TURN, op: "Sinkhorn" },
      unknown2: { ...TURN, op: "Sinkhorn" },
      double: {
        ...TURN,
        inputs: TURN.inputs.map((input) => ({ ...input, dtype: "float64", dims: [0], data: "" })),
      },
    });
    rmSync(join(folder, "suite/broken.json"));
    const json = join(folder, "rows.json");
    const args = ["--vectors", folder, "--engine", "dawn", "--json", json];
    const { code, out } = await runProgram("test/conformance/conformance.ts", ...args);
    const of = "(ai.onnx.RotaryEmbedding-23)";
    expect(out.slice(out.indexOf("failed:")).split("\n")).toEqual([
      `failed: suite/wrong.json ${of}: output 0 at [0, 0, 0, 1] is 1, expected 0.5, tolerance 0.00001`,
      `failed: suite/shape.json ${of}: output 0 is [1, 1, 1, 2], expected [1, 1, 2]`,
      `failed: suite/refused.json ${of}: ai.onnx.RotaryEmbedding: no attribute turns; there are: interleaved, num_heads, rotary_embedding_dim.`,
      "failed: suite/broken.json (unknown): the manifest lists it, and there is no such file",
      "skipped: no element type float64 (1 vector)",
      "skipped: no operator ai.onnx.Sinkhorn (2 vectors)",
      "1 passed, 4 failed, 3 skipped",
      "",
    ]);
    expect(code).toBe(1);
    const rows = JSON.parse(readFileSync(json, "utf8"));
    const named = { op: "ai.onnx.RotaryEmbedding", opset: 23, dtype: "float32", engine: "dawn" };
    const worst = {
      output: 0,
      index: [0, 0, 0, 1],
      got: 1,
      expected: 0.5,
      error: 0.5,
      tolerance: 1e-5,
    };
    expect(rows.slice(0, 2)).toEqual([
      {
        file: "suite/right.json",
        ...named,
        status: "passed",
        message: "",
        worst: expect.objectContaining({ error: 0 }),
      },
      {
        file: "suite/wrong.json",
        ...named,
        status: "failed",
        worst,
        message: "output 0 at [0, 0, 0, 1] is 1, expected 0.5, tolerance 0.00001",
      },
    ]);
    expect(rows).toHaveLength(8);
  });

  it("goes on after a failure, and counts", async () => {
    const lines: string[] = [];
    vi.spyOn(console, "log").mockImplementation((line) => lines.push(line));
    write({ a: TURN, b: TURN, c: TURN });
    const attempt = async ({ file }: Case): Promise<Outcome> =>
      file.includes("b")
        ? { status: "failed", message: "no", worst: null }
        : { status: "passed", message: "", worst: null };
    const rows = await runCases(casesOf(folder), "dawn", attempt, () => {});
    expect(summarize(rows)).toBe(1);
    expect(lines).toEqual([
      "failed: suite/b.json (ai.onnx.RotaryEmbedding-23): no",
      "2 passed, 1 failed, 0 skipped",
    ]);
  });

  it("refuses what it can't run", async () => {
    const nowhere = {
      server: {} as Context["server"],
      root: resolve(import.meta.dirname, "../.."),
      files: new Map(),
    };
    const refusal = (args: string[], code: "argument" | "file", message: string | RegExp) =>
      expectError(() => main({ ...nowhere, args }), code, message);
    await refusal(
      ["--engine", "ie"],
      "argument",
      "--engine must be chromium, firefox, deno, dawn, got ie.",
    );
    await refusal(
      ["--engin", "deno"],
      "argument",
      /^Unknown option '--engin'.*npm run conformance/s,
    );
    const missing = join(folder, "no");
    await refusal(["--vectors", missing], "file", `there is no folder ${missing} with vectors.`);
    await refusal(["--vectors", folder], "file", `there are no vectors in ${folder}.`);
    write({ a: TURN });
    const filtered = ["--vectors", folder, "--filter", "gelu"];
    const recorded = ["--record", "--filter", "a", "--vectors", folder];
    await refusal(recorded, "argument", "--record is of all vectors; leave --filter out.");
    await refusal(filtered, "argument", "--filter: none of the 1 vectors has gelu in it.");
    writeFileSync(join(folder, "manifest.json"), "{}");
    await refusal(["--vectors", folder], "file", /manifest\.json is no list of vectors: /);
  });
});
