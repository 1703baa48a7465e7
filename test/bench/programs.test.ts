// The commands of the README, end to end: what they print, what they write, and how they complain.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { main as against } from "../../bench/against.ts";
import { main as bench } from "../../bench/bench.ts";
import { readNpy, writeNpy } from "../../bench/npy.ts";
import { type Context, main as start } from "../../bench/start.ts";
import { readSafetensors, writeSafetensors } from "../../src/files/safetensors.ts";
import { attention as reference, worstElement } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { runProgram } from "../support/programs.ts";

let folder = "";
const file = (name: string) => join(folder, name);

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "fovea-programs-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const run = (program: string, ...args: string[]) => runProgram(`bench/${program}.ts`, ...args);
/** Returns why a program refuses to run, which it says before it asks its process for a server. */
const refusal = (main: (context: Context) => Promise<number>, ...args: string[]) =>
  main({ args } as unknown as Context).then(
    () => "it ran",
    (error) => `${error}`,
  );

const H = 4;
const Hkv = 2;
const M = 21;
const N = 37;
const D = 16;
const Dv = 8;
const q = { shape: [H, M, D], data: normal(1, H * M * D) };
const k = { shape: [Hkv, N, D], data: normal(2, Hkv * N * D) };
const v = { shape: [Hkv, N, Dv], data: normal(3, Hkv * N * Dv) };
const expected = (causal: boolean) => {
  const batch = ({ shape, data }: typeof q) => ({ shape: [1, ...shape], data });
  return reference(batch(q), batch(k), batch(v), { causal });
};

describe("npm start -- --input", () => {
  it("computes a safetensors file, with the package as built, and writes another", async () => {
    const unused = { shape: [2], data: Float32Array.of(8, 9) };
    writeFileSync(
      file("qkv.safetensors"),
      writeSafetensors({ query: q, unused, key: k, value: v }),
    );
    const args = [
      "--built",
      "--input",
      file("qkv.safetensors"),
      "--causal",
      "--output",
      file("out.safetensors"),
    ];
    const { code, out, err } = await run("start", ...args, "--json", file("out.json"));
    expect(err).toBe("");
    expect(out).toContain("software adapter, on the CPU");
    expect(out).toContain(
      "B=1 H=4/2 M=21 N=37 D=16/8 causal  (F32, F32, F32 in the file, f32 on the GPU)",
    );
    expect(out).toMatch(/^forward 16x4-quad: .* GFLOP\/s$/m);
    expect(out).toMatch(/^all 84 rows checked against float64: largest error \d\.\de-\d$/m);
    expect(code).toBe(0);
    const result = readSafetensors("out", readFileSync(file("out.safetensors")));
    const { output, lse } = expected(true);
    expect(result.get("output")?.shape).toEqual([H, M, Dv]);
    expect(worstElement(result.get("output")?.data ?? [], output, [H, M, Dv]).error).toBeLessThan(
      1e-5,
    );
    expect(worstElement(result.get("lse")?.data ?? [], lse, [H, M]).error).toBeLessThan(1e-5);
    const json = JSON.parse(readFileSync(file("out.json"), "utf8"));
    expect(json).toMatchObject({
      schema: 1,
      adapter: { software: true },
      rows: [{ suite: "start", correct: true }],
    });
  });

  it("computes three .npy files, and writes one", async () => {
    for (const [name, { shape, data }] of Object.entries({ q, k, v }))
      writeFileSync(file(`${name}.npy`), writeNpy(data, shape));
    const names = ["q.npy", "k.npy", "v.npy"].map(file).join(",");
    const { code } = await run("start", "--built", "--input", names, "--output", file("out.npy"));
    expect(code).toBe(0);
    const result = readNpy("out", readFileSync(file("out.npy")));
    expect(result.shape).toEqual([H, M, Dv]);
    expect(worstElement(result.data, expected(false).output, [H, M, Dv]).error).toBeLessThan(1e-5);
  });

  it.each([
    [
      "a file that is not there",
      ["--input", "none.safetensors"],
      /^FoveaError: can't read none\.safetensors: ENOENT/,
    ],
    [
      "a file of another kind",
      ["--input", "qkv.pt"],
      /^FoveaError: qkv\.pt: give one \.safetensors file, or three \.npy files/,
    ],
    [
      "two files",
      ["--input", "q.npy,k.npy"],
      /^FoveaError: expected three \.npy files as q\.npy,k\.npy,v\.npy; got q\.npy,k\.npy\./,
    ],
    [
      "an unknown option",
      ["--casual"],
      /^FoveaError: Unknown option '--casual'.*npm start -- --input/s,
    ],
    [
      "an option without its other half",
      ["--output", "o.npy"],
      /^FoveaError: --output and --causal go with --input/,
    ],
  ])("refuses %s", async (_, args, message) =>
    expect(await refusal(start, ...args)).toMatch(message),
  );

  it("prints why it refuses, without what would move the cursor, and exits with 1", async () => {
    const { code, err } = await run("start", "--rounds", "many\u001b[2J");
    expect(err).toBe(
      "FoveaError: --rounds must be a whole number from 1 up, got many\\u001b[2J.\n",
    );
    expect(code).toBe(1);
  });

  it("refuses tensors that are missing or don't go together, before a browser is opened", async () => {
    writeFileSync(file("two.safetensors"), writeSafetensors({ q, k }));
    expect(await refusal(start, "--input", file("two.safetensors"))).toMatch(
      /has no tensor named v or value or values; it has q, k\./,
    );
    writeFileSync(
      file("bad.safetensors"),
      writeSafetensors({ q, k, v: { shape: [Hkv, 1, Dv], data: normal(1, Hkv * Dv) } }),
    );
    expect(await refusal(start, "--input", file("bad.safetensors"))).toMatch(
      /k and v must have the same number of keys/,
    );
    writeFileSync(
      file("flat.safetensors"),
      writeSafetensors({ q, k, v: { shape: [3], data: normal(1, 3) } }),
    );
    expect(await refusal(start, "--input", file("flat.safetensors"))).toMatch(
      /v has shape \[3\]; expected \[B, H, M, D\]/,
    );
  });

  it("explains itself", async () => {
    const { code, out } = await run("start", "--help");
    expect(out).toContain("npm start -- --input qkv.safetensors");
    expect(code).toBe(0);
  });
});

describe("npm run against", () => {
  it("checks and times this checkout and another one, here itself, in turns", async () => {
    const { code, out } = await run("against", ".", "--case", "small", "--turns", "2");
    expect(code).toBe(0);
    expect(out).toMatch(/small S=16 H=1 +here.*there.*here \/ there: min [\d.]+, median [\d.]+/);
  });

  it("explains itself, and refuses what isn't a checkout", async () => {
    expect(await refusal(against, "--help")).toBe("it ran");
    expect(await refusal(against)).toMatch(/name the folder of another checkout/);
    expect(await refusal(against, "shaders")).toMatch(/shaders\/src\/index\.ts is not one's/);
    expect(await refusal(against, ".", "--turns", "none")).toMatch(/--turns/);
  });
});

describe("npm run bench", () => {
  it("times a suite on Dawn and writes what the README promises", async () => {
    const { code, out } = await run(
      "bench",
      "--suite",
      "small",
      "--runtime",
      "dawn",
      "--rounds",
      "1",
      "--json",
      file("bench.json"),
    );
    expect(code).toBe(0);
    expect(out).toContain("Dawn in Node");
    const { schema, adapter, engine, commit, rows } = JSON.parse(
      readFileSync(file("bench.json"), "utf8"),
    );
    expect([schema, adapter.software]).toEqual([1, true]);
    expect([engine, commit]).toEqual([expect.stringContaining("Dawn"), expect.any(String)]);
    expect(rows.map(({ impl }: { impl: string }) => impl)).toEqual(["fovea", "bare dispatch"]);
    for (const row of rows) {
      expect(row).toEqual({
        suite: "small",
        case: "S=16 H=1 D=64",
        impl: expect.any(String),
        kernel: expect.any(String),
        ms: {
          min: expect.any(Number),
          p10: expect.any(Number),
          median: expect.any(Number),
          p90: expect.any(Number),
        },
        rounds: 1,
        gflops: expect.any(Number),
        gbps: expect.any(Number),
        maxError: expect.any(Number),
        correct: true,
        workspaceBytes: expect.any(Number),
        memoryBytes: expect.any(Number),
        ...(row.impl === "fovea" && { dispatches: 1 }),
      });
    }
  });
  it("times the start of the package as built, in a new browser each time", async () => {
    const { code } = await run(
      "bench",
      "--suite",
      "start",
      "--rounds",
      "1",
      "--json",
      file("start.json"),
    );
    expect(code).toBe(0);
    const { rows } = JSON.parse(readFileSync(file("start.json"), "utf8"));
    const names = rows.map((row: { case: string; impl: string }) => `${row.case}: ${row.impl}`);
    expect(names).toEqual([
      "prefill S=512 H=8 D=64: fovea",
      "prefill S=512 H=8 D=64: fovea, prewarmed",
      "decode T=1024 H=8 D=64: fovea",
      "decode T=1024 H=8 D=64: fovea, prewarmed",
    ]);
    for (const { impl, ms, phases, correct } of rows) {
      expect(correct).toBe(true);
      const ahead = impl === "fovea" ? [] : ["prewarm"];
      expect(Object.keys(phases)).toEqual(["import", "device", ...ahead, "plan", "run"]);
      const counted = impl === "fovea" ? ["import", "device", "plan", "run"] : ["plan", "run"];
      expect(ms.median).toBeCloseTo(
        counted.reduce((sum, phase) => sum + phases[phase], 0),
        6,
      );
      // A start waits for compiling, unless that was done ahead.
      expect(phases.prewarm ?? phases.plan).toBeGreaterThan(20);
      if (phases.prewarm) expect(phases.plan).toBeLessThan(phases.prewarm / 2);
    }
  });
  it.each([
    [
      "the suite of starts without pages",
      ["--suite", "start", "--runtime", "dawn"],
      "the suite start is of pages",
    ],
    [
      "an unknown suite",
      ["--suite", "prefil"],
      "there is no suite prefil; there are ladder, forward, ",
    ],
    ["an unknown runtime", ["--runtime", "node"], "--runtime must be chromium or dawn, got node."],
  ])("refuses %s", async (_, args, message) =>
    expect(await refusal(bench, ...args)).toContain(`FoveaError: ${message}`),
  );

  it("prints why it refuses, and exits with 1", async () => {
    const { code, err } = await run("bench", "--rounds", "many");
    expect(err).toBe("FoveaError: --rounds must be a whole number from 1 up, got many.\n");
    expect(code).toBe(1);
  });
});
