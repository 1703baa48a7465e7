// The gradients of a merge against the float64 reference, which test/reference compares with central
// differences.

import { describe, expect, it } from "vitest";
import {
  attention,
  attentionBackward,
  type MergeBackwardProblem,
  mergeAttention,
  mergeAttentionBackward,
  planMergeBackward,
  type Tensor,
  tensor,
} from "../../../src/index.ts";
import { mergeAttentionBackward as reference, worstElement } from "../../../src/reference/index.ts";
import { normal } from "../../../src/reference/random.ts";
import { product } from "../../support/cases.ts";
import { counted } from "../../support/counted.ts";
import { failOnGpuErrors, testDevice } from "../../support/device.ts";
import { expectError } from "../../support/errors.ts";
import { expectGradientsClose } from "../../support/gradients.ts";

failOnGpuErrors();

const NONE = Number.NEGATIVE_INFINITY;

interface Case {
  readonly sizes: readonly [B: number, H: number, M: number, Dv: number];
  /** The LSEs of each partial lie around its centre. */
  readonly centres: readonly number[];
  readonly layout?: "bhmd" | "bmhd";
  readonly dLse?: boolean;
  /** Rows of partials that have no key. */
  readonly empty?: (part: number, row: number) => boolean;
  readonly infinityIsEmpty?: boolean;
}

const shared = { dLse: true } as const;
const CASES: readonly (readonly [name: string, given: Case])[] = [
  ["two partials", { sizes: [2, 3, 7, 16], centres: [0, 1], ...shared }],
  ["one partial", { sizes: [1, 2, 5, 8], centres: [3], ...shared }],
  [
    "five partials, and no gradient of the LSE",
    { sizes: [1, 2, 9, 20], centres: [0, 2, -1, 1, 0] },
  ],
  [
    "a head dim of 1, in the other layout",
    { sizes: [2, 3, 5, 1], centres: [0, 0], layout: "bmhd" },
  ],
  ["wide rows", { sizes: [1, 1, 3, 300], centres: [0, 1, 2], layout: "bmhd", ...shared }],
  ["LSEs of 10,000", { sizes: [1, 2, 6, 8], centres: [1e4, 1e4, -1e4], ...shared }],
  [
    "rows without keys",
    {
      sizes: [1, 2, 8, 8],
      centres: [0, 1, 0],
      empty: (part, row) => row % 4 === part || row % 8 === 3,
      ...shared,
    },
  ],
  [
    "rows that +Infinity marks",
    {
      sizes: [1, 1, 6, 4],
      centres: [0, 1],
      empty: (part, row) => row % 3 === part,
      infinityIsEmpty: true,
      ...shared,
    },
  ],
];

const poisoned = (device: GPUDevice, shape: readonly number[]) =>
  tensor(device, shape, { data: new Float32Array(product(shape)).fill(Number.NaN) });

/** [rows of B, H, M] and columns in the order of a layout, and back: the order is its own inverse. */
function ordered(
  data: ArrayLike<number>,
  [B, H, M, Dv]: Case["sizes"],
  from: "bhmd" | "bmhd",
): Float32Array {
  if (from === "bhmd") return Float32Array.from(data);
  const result = new Float32Array(data.length);
  for (let at = 0; at < data.length; at++) {
    const d = at % Dv;
    const h = Math.floor(at / Dv) % H;
    const m = Math.floor(at / (Dv * H)) % M;
    const b = Math.floor(at / (Dv * H * M));
    result[((b * H + h) * M + m) * Dv + d] = data[at];
  }
  expect(B * H * M * Dv).toBe(data.length);
  return result;
}

describe("gradients of a merge", () => {
  it.each(CASES)("are right with %s", async (_, given) => {
    const { sizes, centres, layout = "bhmd", empty = () => false, infinityIsEmpty } = given;
    const device = await testDevice();
    const [B, H, M, Dv] = sizes;
    const shape = layout === "bhmd" ? sizes : [B, M, H, Dv];
    const rows = [B, H, M];
    const settings = { layout, ...(infinityIsEmpty && { infinityIsEmpty }) };
    const parts = centres.map((centre, part) => {
      const output = normal(20 + part, product(sizes));
      const lse = normal(40 + part, product(rows)).map((value) => centre + value);
      for (const row of lse.keys()) {
        if (!empty(part, row)) continue;
        lse[row] = infinityIsEmpty ? Number.POSITIVE_INFINITY : NONE;
        if (layout === "bhmd") output.fill(Number.NaN, row * Dv, (row + 1) * Dv);
      }
      return { output, lse };
    });
    const used: Tensor[] = [];
    const make = (size: readonly number[], data: Float32Array<ArrayBuffer>) => {
      const made = tensor(device, size, { data });
      used.push(made);
      return made;
    };
    const partials = parts.map(({ output, lse }) => ({
      output: make(shape, output),
      lse: make(rows, lse),
    }));
    const dOutput = normal(1, product(sizes));
    const dLse = normal(2, product(rows));
    const { output, lse } = await mergeAttention(partials, settings);
    const results = centres.map(() => ({
      dOutput: poisoned(device, shape),
      dLse: poisoned(device, rows),
    }));
    const { dPartials } = await mergeAttentionBackward(partials, {
      ...settings,
      output,
      dOutput: make(shape, dOutput),
      ...(given.dLse && { dLse: make(rows, dLse) }),
      dPartials: results,
    });
    const flat = parts.map((part) => ({ ...part, output: ordered(part.output, sizes, layout) }));
    const options = {
      dOutput: ordered(dOutput, sizes, layout),
      ...(given.dLse && { dLse }),
      ...(infinityIsEmpty && { infinityIsEmpty }),
    };
    const f64 = reference(flat, options);
    const plain = reference(flat, { ...options, precision: "f32" });
    const bhmd = (rows: Tensor) => (layout === "bhmd" ? rows : rows.permute(0, 2, 1, 3));
    for (const [index, found] of dPartials.entries()) {
      expect(found).toEqual(results[index]);
      const seen = { dOutput: bhmd(found.dOutput), dLse: found.dLse };
      await expectGradientsClose(seen, { ...f64[index] }, { ...plain[index] });
    }
    for (const one of [output, lse, ...used]) one.destroy();
    for (const one of results.flatMap((result) => Object.values(result))) one.destroy();
  });

  it("are 0 for one partial's log-sum-exp without a gradient of the merged one", async () => {
    const device = await testDevice();
    const output = tensor(device, [1, 1, 4, 8], { data: normal(1, 32) });
    const lse = tensor(device, [1, 1, 4], { data: normal(2, 4) });
    const dOutput = tensor(device, [1, 1, 4, 8], { data: normal(3, 32) });
    const { dPartials } = await mergeAttentionBackward([{ output, lse }], { output, dOutput });
    expect(Array.from(await dPartials[0].dLse.read())).toEqual([0, 0, 0, 0]);
    expect(await dPartials[0].dOutput.read()).toEqual(await dOutput.read());
  });

  it("go on into attention over parts of the keys as those of attention over all of them", async () => {
    const device = await testDevice();
    const make = (seed: number, rows: number) =>
      tensor(device, [1, 2, rows, 8], { data: normal(seed, 16 * rows) });
    const q = make(1, 9);
    const k = make(2, 21);
    const v = make(3, 21);
    const dOutput = make(4, 9);
    const dLse = tensor(device, [1, 2, 9], { data: normal(5, 18) });
    const whole = await attention(q, k, v, { lse: true });
    const { output, lse } = whole as Required<typeof whole>;
    const all = await attentionBackward(q, k, v, { output, lse, dOutput, dLse });
    const ranges = [
      [0, 13],
      [13, 21],
    ];
    const keys = ranges.map(([a, b]) => [k.slice(2, a, b), v.slice(2, a, b)] as const);
    const partials = [];
    for (const [ofK, ofV] of keys) partials.push(await attention(q, ofK, ofV, { lse: true }));
    const merged = await mergeAttention(partials);
    const { dPartials } = await mergeAttentionBackward(partials, {
      output: merged.output,
      dOutput,
      dLse,
    });
    const dQ = new Float32Array(q.size);
    for (const [index, [ofK, ofV]] of keys.entries()) {
      const found = await attentionBackward(q, ofK, ofV, {
        ...(partials[index] as Required<(typeof partials)[number]>),
        ...dPartials[index],
      });
      const values = await found.dQ.read();
      for (const at of dQ.keys()) dQ[at] += values[at];
      const [from, to] = ranges[index];
      const expected = await all.dK.slice(2, from, to).read();
      expect(worstElement(await found.dK.read(), expected, ofK.shape).error).toBeLessThan(2e-6);
    }
    expect(worstElement(dQ, await all.dQ.read(), q.shape).error).toBeLessThan(4e-6);
  });

  it("of a row that an LSE of NaN makes NaN are NaN, and of no other", async () => {
    const device = await testDevice();
    const lses = [
      [Number.NaN, 1, Number.POSITIVE_INFINITY],
      [0, 2, 1],
      [NONE, 0, 0],
    ];
    const parts = lses.map((lse, part) => ({
      output: normal(30 + part, 12),
      lse: Float32Array.from(lse),
    }));
    const partials = parts.map(({ output, lse }) => ({
      output: tensor(device, [1, 1, 3, 4], { data: output }),
      lse: tensor(device, [1, 1, 3], { data: lse }),
    }));
    const dOutput = tensor(device, [1, 1, 3, 4], { data: normal(1, 12) });
    const { output } = await mergeAttention(partials);
    const { dPartials } = await mergeAttentionBackward(partials, { output, dOutput });
    const found = await Promise.all(
      dPartials.map(async ({ dLse }) => Array.from(await dLse.read())),
    );
    const areNaN = found.map((row) => row.map(Number.isNaN));
    // The third partial has no key in the first row.
    expect(areNaN).toEqual([
      [true, false, true],
      [true, false, true],
      [false, false, true],
    ]);
    const expected = reference(parts, { dOutput: await dOutput.read() });
    expect(expected.map((one) => Array.from(one.dLse, Number.isNaN))).toEqual(areNaN);
  });

  it("are encoded from a plan into an encoder, and leave nothing behind", async () => {
    const { device, buffers } = counted(await testDevice());
    const partial = { output: { shape: [1, 2, 3, 4] }, lse: { shape: [1, 2, 3] } };
    const plan = await planMergeBackward(device, { partials: [partial, partial], dLse: true });
    expect(plan.kernel).toBe("merge backward");
    expect(plan.dispatchCount).toBe(4);
    expect(plan.workspaceBytes).toBe(8 * 6);
    const used: Tensor[] = [];
    const make = (shape: readonly number[], seed: number) => {
      used.push(tensor(device, shape, { data: normal(seed, product(shape)) }));
      return used[used.length - 1];
    };
    const both = (seed: number) => ({
      output: make([1, 2, 3, 4], seed),
      lse: make([1, 2, 3], seed),
    });
    const given = { partials: [both(1), both(2)], output: make([1, 2, 3, 4], 3) };
    const dOutput = make([1, 2, 3, 4], 4);
    const dLse = make([1, 2, 3], 5);
    const dPartials = [6, 7].map((seed) => {
      const { output, lse } = both(seed);
      return { dOutput: output, dLse: lse };
    });
    const encoder = device.createCommandEncoder();
    plan.encode(encoder, { ...given, dOutput, dLse, dPartials });
    device.queue.submit([encoder.finish()]);
    const { dPartials: same } = await mergeAttentionBackward(given.partials, {
      output: given.output,
      dOutput,
      dLse,
    });
    for (const [index, one] of same.entries()) {
      expect(await dPartials[index].dOutput.read()).toEqual(await one.dOutput.read());
      expect(await dPartials[index].dLse.read()).toEqual(await one.dLse.read());
    }
    await expectError(
      () => plan.encode(encoder, { ...given, dOutput, dLse, dPartials: dPartials.slice(1) }),
      "argument",
      "mergeAttentionBackward: the plan has 2 of dPartials, got 1.",
    );
    plan.destroy();
    for (const one of [...used, ...same.flatMap((each) => Object.values(each))]) one.destroy();
    expect(buffers()).toBe(0);
  });

  it("of no rows are nothing to compute", async () => {
    const device = await testDevice();
    const none = { output: tensor(device, [1, 2, 0, 4]), lse: tensor(device, [1, 2, 0]) };
    const { dPartials } = await mergeAttentionBackward([none, none], {
      output: none.output,
      dOutput: none.output,
    });
    expect(dPartials.map(({ dLse }) => dLse.shape)).toEqual([
      [1, 2, 0],
      [1, 2, 0],
    ]);
  });
});

const output = { shape: [2, 4, 5, 6] };
const lse = { shape: [2, 4, 5] };
const partials = [
  { output, lse },
  { output, lse },
];

describe("planMergeBackward refuses", () => {
  it.each<[what: string, problem: object, message: string]>([
    [
      "no partials",
      { partials: [] },
      "mergeAttentionBackward: partials must be a list of one or more results { output, lse }, got an empty one.",
    ],
    [
      "an output of another shape",
      { partials, output: lse },
      "mergeAttentionBackward: output must be [2, 4, 5, 6] like partials[0].output, got [2, 4, 5].",
    ],
    [
      "a gradient of another dtype",
      { partials, dOutput: { ...output, dtype: "f16" } },
      "mergeAttentionBackward: dOutput must be f32, got f16.",
    ],
    [
      "gradients for another number of partials",
      { partials, dPartials: [{}] },
      "mergeAttentionBackward: dPartials must be a list of 2 of { dOutput, dLse }, one for each partial, got 1.",
    ],
    [
      "a gradient of another name",
      { partials, dPartials: [{}, { dOut: output }] },
      'mergeAttentionBackward: dPartials[1] has dOutput and dLse, and no "dOut".',
    ],
    [
      "a gradient of the LSE of another shape",
      { partials, dLse: { shape: [2, 5, 4] } },
      "mergeAttentionBackward: dLse must be [2, 4, 5] for partials[0].output [2, 4, 5, 6], got [2, 5, 4].",
    ],
  ])("%s", async (_, problem, message) => {
    await expectError(
      async () => planMergeBackward(await testDevice(), problem as MergeBackwardProblem),
      "argument",
      message,
    );
  });

  it("results that share elements with what is read", async () => {
    const device = await testDevice();
    const make = (shape: readonly number[]) => tensor(device, shape);
    const partial = { output: make([1, 1, 2, 4]), lse: make([1, 1, 2]) };
    const dOutput = make([1, 1, 2, 4]);
    await expectError(
      () =>
        mergeAttentionBackward([partial], {
          output: partial.output,
          dOutput,
          dPartials: [{ dOutput }],
        }),
      "overlap",
      /^mergeAttentionBackward: dPartials\[0\]\.dOutput and dOutput are in the same GPUBuffer/,
    );
  });
});
