// Tables and plots of the READMEs follow from bench/results; and how they are made.

import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { updated } from "../../bench/bench.ts";
import { documents, rewritten } from "../../bench/readme.ts";
import type { ResultFile } from "../../bench/tables.ts";
import { expectError } from "../support/errors.ts";

const root = join(import.meta.dirname, "../..");

const times = (median: number) => ({ min: median / 2, p10: median, median, p90: 2 * median });
const row = (suite: string, name: string, impl: string, ms: number, more: object = {}) => ({
  suite,
  case: name,
  impl,
  kernel: "k",
  ms: times(ms),
  rounds: 3,
  gflops: 1.25,
  gbps: 2,
  maxError: 1.5e-7,
  correct: true,
  workspaceBytes: 0,
  ...more,
});
const FILE: ResultFile = {
  schema: 1,
  adapter: { description: "acme anvil", software: true, features: [] },
  engine: "e",
  commit: "c",
  rows: [
    row("ladder", "N=64 H=8 D=64", "1 naive", 20),
    row("ladder", "N=64 H=8 D=64", "4 forward", 8),
    row("generate", "128 keys, H=8/8 D=64", "fovea:cache", 0.5),
    row("generate", "1024 keys, H=8/8 D=64", "fovea:cache", 4),
    row("generate", "1024 keys, H=8/1 D=64", "fovea:cache", 2),
    row("start", "prefill", "fovea, prewarmed", 12, {
      phases: { import: 3, device: 4, prewarm: 500, plan: 1, run: 11 },
    }),
    row("scale", "N=2048 H=1 D=64", "fovea", 100, { dispatches: 1 }),
    row("scale", "N=2048 H=1 D=64", "jax-js", 350, { workspaceBytes: null }),
    row("scale", "N=65536 H=1 D=64 window 1024", "fovea", 2000, {
      dispatches: 5,
      workspaceBytes: 2048,
    }),
    row("backward", "S=512 causal", "fovea:backward", 30, {
      memoryBytes: 2048,
      ratios: [
        { name: "backward / forward", ...times(3), atMost: 3.5 },
        { name: "causal / full", ...times(0.5), atMost: 0.6 },
      ],
    }),
    row("backward", "S=512 causal", "tfjs", 600, {
      ratios: [{ name: "tfjs / fovea", ...times(15), atLeast: 10 }],
    }),
    row("backward-ladder", "N=512 H=8 D=64", "1 naive", 90),
    row("backward-ladder", "N=512 H=8 D=64", "2 backward", 30),
    row("backward-long", "N=8192 H=1 D=64", "fovea", 9000, {
      dispatches: 24,
      workspaceBytes: 131072,
    }),
    row("small", "S=16", "fovea", 1),
    row("small", "S=16", "ort-webgpu", 12),
    row("small", "S=16", "tfjs", 0.1, { correct: false, maxError: 2 }),
  ],
};
const filled = (name: string, before = "old\n") => {
  const page = `a\n<!-- bench:${name} acme -->\n${before}<!-- /bench -->\nb <!-- /bench -->\n`;
  const after = rewritten("page.md", page, new Map([["acme", FILE]]));
  expect(rewritten("page.md", after, new Map([["acme", FILE]]))).toBe(after);
  expect(after).toMatch(
    /^a\n<!-- bench:\w+ acme -->\n[\s\S]*\n<!-- \/bench -->\nb <!-- \/bench -->\n$/,
  );
  return after.split("\n").slice(2, -3);
};

describe("the READMEs", () => {
  const expected = documents(root);
  it.each([...expected.keys()])("%s is as `npm run bench -- --readme` writes it", (path) => {
    expect(readFileSync(join(root, path), "utf8")).toBe(expected.get(path));
  });
  it("have every plot that lies beside the results, and no other", () => {
    const plots = readdirSync(join(root, "bench/results")).filter((name) => name.endsWith(".svg"));
    const drawn = [...expected.keys()].filter((path) => path.endsWith(".svg"));
    expect(plots.map((name) => `bench/results/${name}`).sort()).toEqual(drawn.sort());
    const shown = [
      ...(expected.get("bench/README.md") as string).matchAll(/\]\((results\/[\w-]+\.svg)\)/g),
    ];
    expect(shown.map(([, name]) => `bench/${name}`).sort()).toEqual(drawn.sort());
  });
});

describe("npm run bench -- --update", () => {
  it("puts rows of the suites that ran in place of a file's own, and says when the others were measured", () => {
    const path = join(mkdtempSync(join(tmpdir(), "fovea-update-")), "acme.json");
    writeFileSync(path, JSON.stringify(FILE));
    const rows = updated(path, FILE.adapter, [
      row("scale", "N=128", "fovea", 1),
      row("prefill", "S=512", "fovea", 9),
    ]);
    const told = rows.map(({ suite, case: name, commit }) => `${suite} ${name} ${commit}`);
    expect(told.slice(0, 4)).toEqual([
      "ladder N=64 H=8 D=64 c",
      "ladder N=64 H=8 D=64 c",
      "prefill S=512 undefined",
      "small S=16 c",
    ]);
    expect(told.filter((text) => text.startsWith("scale"))).toEqual(["scale N=128 undefined"]);
    expect(told).toHaveLength(FILE.rows.length - 3 + 2);
  });
  it("refuses a file of another adapter", async () => {
    const path = join(mkdtempSync(join(tmpdir(), "fovea-update-")), "acme.json");
    writeFileSync(path, JSON.stringify(FILE));
    const message = `${path} is of acme anvil; this is other. Write another file.`;
    await expectError(() => updated(path, { description: "other" }, []), "file", message);
  });
});

describe("sections", () => {
  it("show the ladder, and how far it goes", () => {
    expect(filled("ladder")).toEqual([
      "| N | step | min | median | p90 | times faster than step 1 |",
      "|---|---|---|---|---|---|",
      "| 64 | 1 naive | 10.0 | 20.0 | 40.0 | 1.0 |",
      "| 64 | 4 forward | 4.0 | 8.0 | 16.0 | 2.5 |",
    ]);
    expect(filled("climb", "")).toEqual([
      "Step by step from the naive three kernels to this one: 2.5 times faster at N = 64 ([shaders/README.md](shaders/README.md)).",
    ]);
  });
  it("show tokens of generation by heads and keys, if they were measured", () => {
    expect(filled("generate").slice(2)).toEqual([
      "| 8 query heads, 8 key heads | 0.50 | 4.00 |",
      "| 8 query heads, 1 key head |  | 2.00 |",
    ]);
  });
  it("show starts by their parts", () => {
    expect(filled("start").at(-1)).toBe(
      "| prefill | fovea, prewarmed | 12.0 | 3.00 | 4.00 | 500 | 1.00 | 11.0 |",
    );
  });
  it("show time and memory by length", () => {
    expect(filled("scale")).toEqual([
      "| N | keys of a query | ms | GFLOP/s | dispatches | scratch | scores | jax-js |",
      "|---|---|---|---|---|---|---|---|",
      "| 2,048 | all | 100 | 1.25 | 1 | 0 B | 16.0 MiB | 350 |",
      "| 65,536 | 1,025 | 2000 | 1.25 | 5 | 2.00 KiB | 16.0 GiB |  |",
    ]);
  });
  it("show gradients beside those of libraries, with ratios and memory", () => {
    expect(filled("backward")).toEqual([
      "| case |  | min | median | p90 | times: min, median, p90 | memory | max error |",
      "|---|---|---|---|---|---|---|---|",
      "| S=512 causal | fovea:backward | 15.0 | 30.0 | 60.0 | backward / forward: 1.50, 3.00, 6.00 (asked: at most 3.5); causal / full: 0.25, 0.50, 1.00 (asked: at most 0.6) | 2.00 KiB | 1.5e-7 |",
      "| S=512 causal | tfjs | 300 | 600 | 1200 | tfjs / fovea: 7.50, 15.0, 30.0 (asked: at least 10) |  | 1.5e-7 |",
    ]);
  });
  it("show the ladder of gradients", () => {
    expect(filled("backward_ladder").at(-1)).toBe(
      "| 512 | 2 backward | 15.0 | 30.0 | 60.0 | 3.0 |",
    );
  });
  it("show gradients by length, with how their work is cut", () => {
    expect(filled("backward_long")).toEqual([
      "| N | H | ms | GFLOP/s | dispatches | operations of a dispatch, at most | scratch | scores | max error |",
      "|---|---|---|---|---|---|---|---|---|",
      "| 8,192 | 1 | 9000 | 1.25 | 24 | 2^32 | 128 KiB | 256 MiB | 1.5e-7 |",
    ]);
  });
  it("show other libraries, with what is wrong said to be", () => {
    expect(filled("others").slice(2)).toEqual([
      "| small | S=16 | fovea | 0.50 | 1.00 | 2.00 |  | 1.5e-7 |",
      "| small | S=16 | ort-webgpu | 6.00 | 12.0 | 24.0 | 12 | 1.5e-7 |",
      "| small | S=16 | tfjs | 0.05 | 0.10 | 0.20 |  | 2.0e+0 WRONG |",
    ]);
  });
  it("say what was not measured", () => {
    expect(filled("workloads")).toEqual([
      "Not measured yet: `npm run bench -- --suite workloads`.",
    ]);
  });
  it.each([
    [
      "<!-- bench:lader acme -->\n<!-- /bench -->",
      /^page\.md: there is no section bench:lader; there are workloads, /,
    ],
    [
      "<!-- bench:ladder other -->\n<!-- /bench -->",
      "page.md: bench:ladder is of bench/results/other.json, which is not there.",
    ],
    [
      "<!-- bench:ladder acme -->\n<!-- bench:scale acme -->\n<!-- /bench -->",
      "page.md: 2 sections begin and 1 of them end; write <!-- bench:NAME FILE -->, <!-- /bench -->.",
    ],
  ])("refuse %j", async (text, message) => {
    await expectError(() => rewritten("page.md", text, new Map([["acme", FILE]])), "file", message);
  });
});
