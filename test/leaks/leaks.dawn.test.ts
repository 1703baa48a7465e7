// `npm run leaks`: a few calls of some cases, what counts as a leak, and how the command complains.

import { beforeAll, describe, expect, it } from "vitest";
import { tensor } from "../../src/index.ts";
import { testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import { runProgram } from "../support/programs.ts";
import { type Call, Lab } from "./lab.ts";
import { CASES, main } from "./leaks.ts";
import { measure } from "./measure.ts";

let lab: Lab;
beforeAll(async () => {
  lab = new Lab(await testDevice());
});

describe("a few calls leave nothing behind", () => {
  it.each([
    "tensor: memory refused",
    "timer: make, time, destroy",
    "attention: options that need memory",
    "attention: memory refused to the call",
    "weights and top keys",
    "linear attention",
    "attentionBackward: options that need memory",
    "attentionBackward: refused options and tensors",
    "attentionBackward: memory refused to the call",
    "planAttentionBackward, encode, destroy",
    "gradients of rows: softmax, norms",
    "gradients of positions: rotary, encodings, biases",
    "MultiHeadAttention: plans, refusals",
    "ONNX: Attention, with all outputs",
    "caches: rejected appends",
    "caches: fork, forkEntry, reorder, grow",
    "pages: sequences come, fork and go",
    "pages: rejected calls",
    "planOptimizer, encode, destroy",
    "planOptimizer: refused options, memory refused",
    "models: whole texts, and loops that are left early",
  ])("%s", async (name) => {
    const found = CASES.find((one) => one.name === name);
    if (!found) throw new Error(`there is no case ${name}`);
    expect((await measure(lab, found, 40)).faults).toEqual([]);
  });
});

describe("what counts as a leak", () => {
  const faultsOf = async (start: () => Call, calls = 60) =>
    (await measure(lab, { name: "leaking", start }, calls)).faults;

  it("is a buffer or query set that is not destroyed, after a call or in the end", async () => {
    const buffers = await faultsOf(() => () => tensor(lab.device, [1]));
    expect(buffers).toEqual([
      "60 GPU objects after the last call, 15 early on",
      "60 GPU objects are left",
    ]);
    const sets = await faultsOf(() => (n) => {
      if (n === 0) lab.device.createQuerySet({ type: "occlusion", count: 1 });
    });
    expect(sets).toEqual(["1 GPU objects are left"]);
  });
  it("is an object of JavaScript, and none that is garbage", async () => {
    const kept: unknown[] = [];
    const faults = await faultsOf(
      () => (n) => void kept.push({ n, text: `${n}`.repeat(30) }),
      2000,
    );
    expect(faults).toEqual([expect.stringMatching(/^the heap grew by \d+ KiB$/)]);
    let last: unknown;
    const none = await faultsOf(
      () => (n) => {
        last = { n, text: `${n}`.repeat(30) };
      },
      2000,
    );
    expect([none, last]).toEqual([[], { n: 1999, text: "1999".repeat(30) }]);
  });
  it("is a call that fails, and an error of the GPU that nobody catches", async () => {
    const failing = await faultsOf(() => (n) => {
      if (n === 7) throw new Error("no");
    });
    expect(failing).toEqual(["a call failed: Error: no"]);
    const uncaught = await faultsOf(() => (n) => {
      if (n === 7)
        lab.device.createBindGroupLayout({
          entries: [0, 0].map((binding) => ({ binding, visibility: 4 })),
        });
    });
    expect(uncaught).toEqual([expect.stringMatching(/^errors that nobody caught: /)]);
  });
});

describe("npm run leaks", () => {
  it("prints a line for each case, and exits with 0", async () => {
    const { code, out } = await runProgram(
      "test/leaks/leaks.ts",
      "--case",
      "timer",
      "--calls",
      "8",
    );
    expect(out).toMatch(/│ timer: make, time, destroy .* 8 .* flat │/);
    expect(out).toMatch(/\n1 of 1 cases leave nothing behind\n$/);
    expect(code).toBe(0);
  });
  it.each([
    ["a broken number", ["--calls", "0"], "--calls must be a whole number from 1 up, got 0."],
    [
      "a case that there is not",
      ["--case", "weather"],
      /^--case: no case has "weather" in its name; there are\n {2}/,
    ],
    ["an unknown option", ["--call", "1"], /^Unknown option '--call'.*npm run leaks/s],
  ])("refuses %s", async (_, args, message) => {
    await expectError(() => main({ args }), "argument", message);
  });
});
