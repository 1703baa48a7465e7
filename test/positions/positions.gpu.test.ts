// Position encodings refuse bad input in whole sentences, and leave nothing behind.

import { describe, expect, it } from "vitest";
import {
  alibiSlopes,
  type PositionEncodingProblem,
  planPositionEncoding,
  planRotary,
  positionEncoding,
  type RotaryProblem,
  rotary,
  rotaryFrequencies,
  sinusoidalPositions,
  type Tensor,
  t5Buckets,
  tensor,
} from "../../src/index.ts";
import { counted } from "../support/counted.ts";
import { failOnGpuErrors, newDevice, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

const x = { shape: [2, 3, 5, 16] };
const rows = { shape: [2, 5, 16] };
const cos = { shape: [50, 4] };
const perRow = { shape: [2, 5, 4] };
const yarn = { type: "yarn", factor: 4, originalMaxPositions: 4096 };

const SCALING_TYPES =
  'rotary: scaling.type must be "linear", "ntk", "dynamic", "yarn", "llama3" or "longrope", got ';

type Refusal = [what: string, problem: unknown, message: string | RegExp];
/** Each message names what is wrong. */
const ROTARY: readonly Refusal[] = [
  [
    "no problem",
    null,
    "rotary: x must be a tensor, or { shape, strides?, offset?, dtype? }, got undefined.",
  ],
  [
    "no x",
    {},
    "rotary: x must be a tensor, or { shape, strides?, offset?, dtype? }, got undefined.",
  ],
  [
    "an x of three axes",
    { x: rows },
    "rotary: x must have the four axes BHMD, got shape [2,5,16]. Use view() to add axes of size 1, or splitHeads() to take heads apart.",
  ],
  ["whole numbers", { x: { ...x, dtype: "i32" } }, "rotary: x must be f32, f16 or bf16, got i32."],
  [
    "an output of another shape",
    { x, output: { shape: [2, 3, 5, 8] } },
    "rotary: output must be [2, 3, 5, 16] like x, got [2, 3, 5, 8].",
  ],
  [
    "an output in place",
    { x, output: x, inPlace: true },
    "rotary: in place there is no output; leave out output or inPlace.",
  ],
  [
    "an unknown layout",
    { x, layout: "bhdm" },
    'rotary: layout must be "bhmd" or "bmhd", got "bhdm".',
  ],
  [
    "an odd head dim",
    { x: { shape: [1, 1, 1, 5] } },
    "rotary: rotaryDim must be an even number from 2 to the head dim 5, got 5 (the head dim).",
  ],
  [
    "more channels than there are",
    { x, rotaryDim: 18 },
    "rotary: rotaryDim must be an even number from 2 to the head dim 16, got 18.",
  ],
  ["a base of 0", { x, base: 0 }, "rotary: base must be a positive number, got 0."],
  [
    "an attention factor that is none",
    { x, attentionFactor: -1 },
    "rotary: attentionFactor must be a positive number, got -1.",
  ],
  ...Object.entries({
    fancy: "others can be given as frequencies and attentionFactor",
    toString: "others can be given as frequencies and attentionFactor",
    default: 'leave scaling out: "default" changes nothing',
    su: 'it is called "longrope" here',
    mrope: "M-RoPE is no scaling; give sections",
    deepseek_yarn: 'it is called "yarn" here, with mscale and mscaleAllDim',
  }).map(
    ([type, advice]) =>
      [
        `the scaling ${type}`,
        { x, scaling: { type, factor: 2 } },
        `${SCALING_TYPES}"${type}"; ${advice}.`,
      ] as Refusal,
  ),
  [
    "a scaling by the name of configurations",
    { x, scaling: { rope_type: "llama3", factor: 2 } },
    `${SCALING_TYPES}undefined; rope_type is called "type" here.`,
  ],
  [
    "LongRoPE with too few factors",
    { x, scaling: { ...yarn, type: "longrope", length: 5, shortFactor: [1, 2], longFactor: [] } },
    "rotary: scaling.shortFactor must be 8 positive numbers, one for each pair, got [1, 2].",
  ],
  [
    "dynamic NTK without a length",
    { x, scaling: { type: "dynamic", factor: 2, originalMaxPositions: 4096 } },
    "rotary: scaling.length must be a positive number, got undefined.",
  ],
  [
    "LongRoPE with the names of configurations",
    { x, scaling: { type: "longrope", factor: 2, short_factor: [1] } },
    'rotary: scaling: there is no option "short_factor". Did you mean shortFactor?',
  ],
  [
    "no factor",
    { x, scaling: { type: "linear" } },
    "rotary: scaling.factor must be a positive number, got undefined.",
  ],
  [
    "no length of training",
    { x, scaling: { type: "llama3", factor: 8 } },
    "rotary: scaling.originalMaxPositions must be a positive number, got undefined.",
  ],
  [
    "factors the wrong way round",
    { x, scaling: { ...yarn, type: "llama3", lowFreqFactor: 4 } },
    "rotary: scaling.highFreqFactor must be above lowFreqFactor 4, got 4.",
  ],
  [
    "betas the wrong way round",
    { x, scaling: { ...yarn, betaFast: 1, betaSlow: 2 } },
    "rotary: scaling.betaFast must be at least betaSlow 2, got 1.",
  ],
  [
    "one mscale of two",
    { x, scaling: { ...yarn, mscale: 1 } },
    "rotary: scaling.mscale and scaling.mscaleAllDim belong together; only one was given.",
  ],
  [
    "YaRN of a base of 1",
    { x, base: 1, scaling: yarn },
    "rotary: YaRN needs a base above 1, got 1.",
  ],
  [
    "frequencies and a base",
    { x, base: 2, frequencies: [1, 2, 3, 4, 5, 6, 7, 8] },
    "rotary: frequencies take the place of base and scaling; give one or the other.",
  ],
  [
    "too few frequencies",
    { x, frequencies: [1, 2] },
    "rotary: frequencies must be 8 finite numbers, one for each pair, got [1, 2].",
  ],
  [
    "frequencies beyond what angles are right for",
    { x, frequencies: [1, 1, 1, 1, 1, 1, -257, 1] },
    /^rotary: pair 6 would turn by -257 radians a position; at most 256 are taken/,
  ],
  [
    "a base that turns too fast",
    { x, base: 1e-300 },
    /^rotary: pair 1 would turn by .* at most 256 are taken/,
  ],
  [
    "an attention factor beyond f32",
    { x, attentionFactor: 1e39 },
    /attentionFactor must be a number of f32, got 1e\+39/,
  ],
  [
    "sections that do not add up",
    { x, sections: [4, 4, 4] },
    "rotary: sections must be three whole numbers, pairs of time, height and width, that add up to 8, half of rotaryDim; got [4,4,4].",
  ],
  [
    "interleaved sections without room",
    { x, sections: [2, 2, 4], sectionLayout: "interleaved" },
    "rotary: interleaved sections [2,2,4] don't fit: height and width have every third of 8 pairs.",
  ],
  [
    "an unknown layout of sections",
    { x, sections: [8, 0, 0], sectionLayout: "thw" },
    'rotary: sectionLayout must be "blocks" or "interleaved", got "thw".',
  ],
  [
    "ids and an offset",
    { x, positionIds: [0, 1, 2, 3, 4], positionOffset: 1 },
    "rotary: give positionIds or positionOffset, not both.",
  ],
  [
    "too few ids",
    { x, positionIds: [0, 1, 2] },
    "rotary: positionIds must be a tensor, or 10 numbers [2, 5], got 3.",
  ],
  [
    "ids of one position for sections",
    { x, sections: [8, 0, 0], positionIds: [0, 1, 2, 3, 4] },
    "rotary: positionIds must be a tensor, or 30 numbers [3, 2, 5], got 5.",
  ],
  [
    "an offset too many",
    { x, positionOffset: [1, 2, 3] },
    "rotary: positionOffset must be a whole number, or 2 of them (one a batch entry), got 1,2,3.",
  ],
  [
    "half a position",
    { x, positionOffset: [0, 1.5] },
    "rotary: positionOffset[1] is 1.5, and 4 rows follow; positions are whole numbers from -8388608 to 8388607, those that tables of angles cover.",
  ],
  [
    "a position too far",
    { x, positionOffset: 2 ** 23 - 4 },
    "rotary: positionOffset[0] is 8388604, and 4 rows follow; positions are whole numbers from -8388608 to 8388607, those that tables of angles cover.",
  ],
  ["cos alone", { x, cos }, "rotary: cos and sin belong together; only one was given."],
  [
    "cos and a base",
    { x, cos, sin: cos, base: 500_000 },
    "rotary: cos and sin take the place of base; give one or the other.",
  ],
  [
    "a sin of another shape",
    { x, cos, sin: { shape: [49, 4] } },
    "rotary: sin must be [50, 4] like cos, got [49, 4].",
  ],
  [
    "a sin of another dtype",
    { x, cos, sin: { ...cos, dtype: "f16" } },
    "rotary: cos and sin must have one dtype, got f32 and f16.",
  ],
  [
    "cos of four axes",
    { x, cos: x, sin: x },
    "rotary: cos must be [positions, R / 2] or [B, M, R / 2], got [2,3,5,16].",
  ],
  [
    "cos for other rows",
    { x, cos: { shape: [2, 4, 4] }, sin: { shape: [2, 4, 4] } },
    "rotary: cos must be [2, 5, 4] for x, or [positions, R / 2], got [2, 4, 4].",
  ],
  [
    "cos for each row, and positions",
    { x, cos: perRow, sin: perRow, positionOffset: 3 },
    "rotary: cos and sin [B, M, R / 2] are for each row already; leave out positionIds and positionOffset.",
  ],
  [
    "cos of another number of channels",
    { x, cos, sin: cos, rotaryDim: 16 },
    "rotary: rotaryDim 16 needs rows of 8 in cos, got [50,4].",
  ],
  [
    "cos in columns",
    { x, cos: { shape: [50, 4], strides: [1, 50] }, sin: cos },
    "rotary: cos [50,4] must be dense in its last axis; got strides [1,50].",
  ],
  [
    "a position that cos has no row for",
    { x, cos, sin: cos, positionOffset: [0, 46] },
    "rotary: positionOffset[1] is 46, and 4 rows follow; positions are whole numbers from 0 to 49, rows of cos and sin.",
  ],
];

const ENCODING: readonly [what: string, problem: unknown, message: string | RegExp][] = [
  [
    "no problem",
    null,
    "positionEncoding: there is neither x to add encodings to nor an output to write them to.",
  ],
  [
    "neither x nor output",
    {},
    "positionEncoding: there is neither x to add encodings to nor an output to write them to.",
  ],
  [
    "an output in place",
    { x: rows, output: rows, inPlace: true },
    "positionEncoding: in place there is an x and no output; leave out output or inPlace.",
  ],
  [
    "a scale that is none",
    { x: rows, scale: Number.NaN },
    "positionEncoding: scale must be a finite number of f32, got NaN.",
  ],
  ["an x of four axes", { x }, "positionEncoding: x must be [B, M, D], got [2,3,5,16]."],
  [
    "an output of another shape",
    { x: rows, output: { shape: [2, 5, 8] } },
    "positionEncoding: output must be [2, 5, 16] like x, got [2, 5, 8].",
  ],
  [
    "a table of another width",
    { x: rows, table: { shape: [50, 8] } },
    "positionEncoding: table must be [P, 16], one row a position, got [50,8].",
  ],
  [
    "a table and a wavelength",
    { x: rows, table: { shape: [50, 16] }, maxWavelength: 100 },
    "positionEncoding: maxWavelength is for sinusoidal encodings, and a table of learned ones was given; leave one out.",
  ],
  [
    "more rows than the table",
    { x: rows, table: { shape: [4, 16] } },
    "positionEncoding: positionOffset[0] is 0, and 4 rows follow; positions are whole numbers from 0 to 3, rows of the table.",
  ],
  [
    "an id without a row",
    { x: rows, table: { shape: [4, 16] }, positionIds: [0, 1, 2, 3, 4] },
    "positionEncoding: positionIds[4] is 4; positions are whole numbers from 0 to 3, rows of the table.",
  ],
  [
    "an unknown order",
    { x: rows, order: "sincos" },
    'positionEncoding: order must be "interleaved" or "halves", got "sincos".',
  ],
  [
    "halves of an odd row",
    { x: { shape: [1, 1, 3] }, order: "halves" },
    "positionEncoding: halves need an even number of elements in a row, got 3.",
  ],
  [
    "a wavelength of 0",
    { x: rows, maxWavelength: 0 },
    "positionEncoding: maxWavelength must be a positive number, got 0.",
  ],
  [
    "too few frequencies",
    { x: rows, frequencies: [1] },
    "positionEncoding: frequencies must be 8 finite numbers, one for each pair, got [1].",
  ],
  [
    "frequencies and a wavelength",
    { x: rows, frequencies: [1], maxWavelength: 9 },
    "positionEncoding: frequencies take the place of maxWavelength; give one or the other.",
  ],
];

describe("planRotary refuses", () => {
  it.each(ROTARY)("%s", async (_, problem, message) => {
    await expectError(
      async () => planRotary(await testDevice(), problem as RotaryProblem),
      "argument",
      message,
    );
  });
  it("positions on the GPU that are not those of x", async () => {
    const device = await testDevice();
    const ids = tensor(device, [5, 2], { dtype: "i32" });
    const attempt = (positionIds: Tensor) => planRotary(device, { x, positionIds });
    await expectError(
      () => attempt(ids),
      "argument",
      "rotary: positionIds must be [2, 5], [1, 5], [5], got [5,2].",
    );
    await expectError(
      () => attempt(tensor(device, [2, 5])),
      "argument",
      "rotary: positionIds must be i32, whole numbers on the GPU, got f32.",
    );
    await expectError(
      () => planRotary(device, { x, positionOffset: ids }),
      "argument",
      "rotary: positionOffset must be [2] (one position a batch entry), got [5, 2].",
    );
  });
  it("rows that share memory", async () => {
    await expectError(
      async () =>
        planRotary(await testDevice(), { x: { ...x, strides: [0, 80, 16, 1] }, inPlace: true }),
      "overlap",
      "rotary: elements of x share memory (shape [2,3,5,16], strides [0,80,16,1]); an output needs a place for each.",
    );
  });
});

describe("planPositionEncoding refuses", () => {
  it.each(ENCODING)("%s", async (_, problem, message) => {
    const attempt = async () =>
      planPositionEncoding(await testDevice(), problem as PositionEncodingProblem);
    await expectError(attempt, "argument", message);
  });
});

describe("the one-liners refuse", () => {
  it("what isn't a tensor", async () => {
    await expectError(
      () => rotary([1] as never),
      "argument",
      "rotary: x must be a Tensor; make one with tensor().",
    );
    await expectError(
      () => positionEncoding([1] as never, { label: "mine" }),
      "argument",
      "mine: x must be a Tensor; make one with tensor().",
    );
  });
  it("x as its own output, and an output in its buffer", async () => {
    const both = tensor(await testDevice(), [2, 2, 3, 5, 16]);
    const [first, second] = [0, 1].map((half) => both.slice(0, half, half + 1).view(x));
    await expectError(
      () => rotary(first, { output: first }),
      "overlap",
      "rotary: output is x itself; { inPlace: true } writes the result there.",
    );
    await expectError(
      () => rotary(first, { output: second }),
      "overlap",
      "rotary: output and x are in the same GPUBuffer, and WebGPU lets a kernel write no part of a buffer that it reads. Give output a buffer of its own.",
    );
  });
  it("a destroyed tensor, and one of another device", async () => {
    const given = tensor(await testDevice(), x.shape);
    const other = await newDevice();
    const output = tensor(other, x.shape);
    await expectError(
      () => rotary(given, { output }),
      "device",
      "rotary: output belongs to another GPUDevice; tensors can't move between devices.",
    );
    other.destroy();
    given.destroy();
    await expectError(() => rotary(given), "destroyed", "rotary: x: the tensor was destroyed.");
  });
});

describe("helpers refuse", () => {
  it("numbers that make no sense", async () => {
    await expectError(
      () => rotaryFrequencies(7),
      "argument",
      "rotaryFrequencies: rotaryDim must be an even number below 2^29, got 7.",
    );
    await expectError(
      () => sinusoidalPositions(-1, 4),
      "argument",
      "sinusoidalPositions: positions must be a list of numbers, or how many there are from 0 up, got -1.",
    );
    await expectError(
      () => sinusoidalPositions(2, 0),
      "argument",
      "sinusoidalPositions: a row has a whole number of elements from 1 up, got 0.",
    );
    await expectError(
      () => t5Buckets(2, 2, { buckets: 3 }),
      "argument",
      "t5Buckets needs at least 4 buckets, an even number, got 3.",
    );
    await expectError(
      () => alibiSlopes(0),
      "argument",
      "alibiSlopes: heads must be a whole number from 1 to 2^29 - 1, got 0.",
    );
  });
});

describe("encode", () => {
  it("refuses what does not fit, and records nothing", async () => {
    const device = await testDevice();
    const plan = await planRotary(device, { x, inPlace: true });
    const encoder = device.createCommandEncoder();
    await expectError(
      () => plan.encode(encoder),
      "argument",
      "rotary: x is missing: the plan was made without a tensor for it.",
    );
    const given = tensor(device, x.shape);
    await expectError(
      () => plan.encode(encoder, { x: given, output: tensor(device, x.shape) }),
      "argument",
      /^rotary: the plan has no use for "output"; it takes x/,
    );
    await expectError(
      () => plan.encode(encoder, { x: tensor(device, [2, 3, 5, 8]) }),
      "argument",
      "rotary: x is f32 [2,3,5,8]; the plan was made for f32 [2,3,5,16].",
    );
    plan.destroy();
    await expectError(
      () => plan.encode(encoder, { x: given }),
      "destroyed",
      "rotary: the plan was destroyed.",
    );
    device.queue.submit([encoder.finish()]);
  });
});

describe("memory and pipelines", () => {
  it("nothing is left but the output, and nothing after a failure; encode allocates nothing", async () => {
    const { device, count, buffers } = counted(await testDevice());
    const given = tensor(device, x.shape);
    const embeddings = tensor(device, rows.shape);
    const table = tensor(device, [9, 16]);
    expect(buffers()).toBe(3);
    const positionOffset = [1, 2];
    const made = [
      await rotary(given, { positionOffset }),
      await positionEncoding(embeddings, { positionOffset }),
      await positionEncoding(embeddings, { positionOffset, table }),
    ];
    expect(buffers()).toBe(6);
    await rotary(given, { positionOffset, inPlace: true });
    await expect(rotary(given, { positionOffset, output: embeddings })).rejects.toThrow(
      "four axes",
    );
    await expect(rotary(given, { positionIds: [1] })).rejects.toThrow("10 numbers");
    await expect(
      positionEncoding(embeddings, { positionOffset, output: made[0].output }),
    ).rejects.toThrow("[B, M, D]");
    await expect(
      positionEncoding(embeddings, { positionOffset, output: embeddings.view(rows) }),
    ).rejects.toThrow("GPU");
    expect(buffers()).toBe(6);

    const plan = await planRotary(device, { x, positionOffset });
    const before = { ...count, buffers: buffers() };
    const encoder = device.createCommandEncoder();
    for (let again = 0; again < 20; again++)
      plan.encode(encoder, { x: given, output: made[0].output });
    expect({ ...count, buffers: buffers() }).toEqual({
      ...before,
      bindGroups: before.bindGroups + 1,
    });
    device.queue.submit([encoder.finish()]);
    plan.destroy();
    for (const used of [given, embeddings, table, ...made.map(({ output }) => output)])
      used.destroy();
    expect(buffers()).toBe(0);
  });
  it("other lengths, positions and frequencies compile nothing", async () => {
    const { device, count } = counted(await testDevice());
    const plans = [await planRotary(device, { x, positionOffset: 3 })];
    const compiled = count.pipelines;
    const scaling = { type: "linear", factor: 2 } as const;
    plans.push(
      await planRotary(device, {
        x: { shape: [7, 1, 99, 16] },
        scaling,
        base: 77,
        conjugate: true,
      }),
    );
    expect(count.pipelines).toBe(compiled);
    for (const plan of plans) plan.destroy();
  });
});
