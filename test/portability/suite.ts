// What runs on another WebGPU implementation (wgpu with naga, in Deno) and another driver
// (lavapipe): the kernels with shader-f16, which Chromium's software adapter lacks, and one case of
// everything else. It is a program that prints a line of JSON for the device, one for each kernel
// that is not valid there, then one for each case.

import {
  attention,
  layerNorm,
  logSoftmax,
  requestFoveaDevice,
  rmsNorm,
  softmax,
  tensor,
} from "../../src/index.ts";
import {
  attention as attentionReference,
  layerNorm as layerNormReference,
} from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { link } from "../../src/shader/link.ts";
import {
  activate,
  checkGradients,
  crossEntropy,
  drawn,
  linearLayer,
  parametersOf,
  recordProgram,
  under,
} from "../../src/training/index.ts";
import { type Case, ROUND, runCase, title } from "../support/cases.ts";
import { expectClose } from "../support/closeness.ts";
import { KERNEL_VARIANTS } from "../support/kernels.ts";

const CASES: readonly Case[] = [
  { H: 2, M: 70, N: 100, D: 64, dtype: "f16" },
  { H: 2, M: 70, N: 100, D: 64, dtype: "f16", causal: true },
  { H: 4, Hkv: 2, M: 37, N: 45, D: 128, Dv: 40, dtype: "f16", causal: true },
  { B: 2, H: 2, M: 33, N: 70, D: 80, dtype: "f16", layout: "bmhd", kvLengths: [70, 31] },
  {
    H: 2,
    M: 37,
    N: 70,
    D: 16,
    dtype: ["f16", "f16", "f16", "f32"],
    sinks: true,
    softcap: 5,
    causal: true,
  },
  { H: 2, M: 37, N: 70, D: 16, dtype: ["f32", "f16", "bf16", "f16"], window: [9, 3], alibi: "H" },
  { H: 2, M: 37, N: 70, D: 16, dtype: "f16", spread: 5, variant: "64x32" },
  { H: 2, M: 37, N: 70, D: 16, dtype: "f16", spread: 1e-4, variant: "32x32" },
  { H: 2, M: 70, N: 100, D: 64, dtype: "f16", causal: true, variant: "64x4" },
  { H: 2, M: 1, N: 509, D: 32, dtype: "f16" },
  { H: 4, Hkv: 2, M: 2, N: 300, D: 32, dtype: "f16", causal: true, variant: "decode-64" },
  // odd rows take the form without shader-f16
  { H: 2, M: 37, N: 70, D: 5, Dv: 7, dtype: "f16", causal: true },
  { H: 2, M: 37, N: 70, D: 16, dtype: "bf16" },
  {
    H: 2,
    M: 61,
    N: 90,
    D: 8,
    dtype: "f16",
    cuSeqlensQ: [0, 17, 61],
    cuSeqlensKv: [0, 50, 90],
    causal: true,
  },
  { H: 2, M: 37, N: 70, D: 64, causal: true },
  {
    H: 2,
    M: 37,
    N: 70,
    D: 8,
    mask: { axes: "HMN" },
    bias: { axes: "MN", blocked: 0.2 },
    rowMax: true,
  },
  {
    H: 2,
    M: 37,
    N: 70,
    D: 8,
    relativeBias: { buckets: 8 },
    dropout: { p: 0.2, seed: 4 },
    onGpu: true,
  },
  {
    H: 2,
    M: 130,
    N: 200,
    D: 8,
    scoreFunction: "sloped",
    maskFunction: "window",
    blockSize: [64, 64],
  },
  {
    H: 2,
    M: 37,
    N: 70,
    D: 16,
    similarity: { kind: "additive", innerBias: true },
    causal: true,
    spread: 5,
  },
  { H: 2, M: 70, N: 70, D: 16, similarity: { kind: "additive" }, variant: "64x4", spread: 12 },
];

/**
 * Problems with products in f16: lengths at the edges of tiles, what the kernel has, and what it
 * multiplies in f32.
 */
const WIDE = { H: 4, dtype: "f16", D: 64, variant: "64x64-f16" } as const;
const DEEP = { H: 4, dtype: "f16", D: 128, variant: "64x32-f16" } as const;
const HALF_CASES: readonly Case[] = [
  ...[1, 63, 64, 65, 130].map((N, index) => ({ ...WIDE, M: [1, 65, 64, 63, 129][index], N })),
  { ...WIDE, Hkv: 2, M: 65, N: 129, causal: true },
  // rows that first see a key in later tiles
  { ...WIDE, M: 150, N: 300, window: [40, 9], sinkTokens: 5, queryOffset: -20 },
  { ...WIDE, M: 70, N: 300, spread: 1.5, seed: 2 },
  { ...WIDE, M: 70, N: 100, spread: 1e-4 },
  { ...WIDE, M: 70, N: 100, spread: 5 },
  { ...WIDE, M: 70, N: 100, spread: 50, causal: true },
  { ...WIDE, M: 70, N: 100, spread: 1e4 }, // products and scores are beyond f16
  { ...WIDE, M: 70, N: 100, scale: 0 },
  { ...WIDE, M: 70, N: 100, scale: -2 },
  // f16 would lose the products, though not the scores
  { ...WIDE, M: 70, N: 100, spread: 1e-3, scale: 1e5 },
  { ...WIDE, M: 70, N: 100, valueSpread: 1e4 },
  { ...WIDE, M: 70, N: 100, valueSpread: 1e-4 },
  {
    ...WIDE,
    B: 3,
    M: 33,
    N: 70,
    layout: "bmhd",
    kvLengths: [70, 31, 0],
    qLengths: [33, 20, 5],
    causal: true,
    poison: true,
  },
  {
    ...WIDE,
    M: 61,
    N: 190,
    cuSeqlensQ: [0, 17, 61],
    cuSeqlensKv: [0, 150, 190],
    sinks: true,
    poison: true,
  },
  { ...DEEP, M: 70, N: 100 },
  { ...DEEP, M: 33, N: 45, Dv: 40, causal: true, dtype: ["f16", "f16", "f16", "f32"] },
  { ...DEEP, D: 40, M: 33, N: 45, Dv: 300 },
];

/** What a line of the output says. */
export type Line =
  | { readonly features: readonly string[] }
  | { readonly name: string; readonly error?: string };

/**
 * Naga, as Deno has it, does not know the feature subgroups; the quads of software adapters are for
 * Chromium's.
 */
const isForAny = ({ root, modules }: (typeof KERNEL_VARIANTS)[number]) =>
  !link(root, modules).code.includes("enable subgroups;");

// biome-ignore lint/suspicious/noConsole: what a program says
const say = (line: Line) => console.log(JSON.stringify(line));

const device = await requestFoveaDevice();
say({ features: [...device.features] });
for (const { name, root, modules } of KERNEL_VARIANTS.filter(isForAny)) {
  device.pushErrorScope("validation");
  device.createShaderModule({ code: link(root, modules).code });
  const invalid = await device.popErrorScope();
  if (invalid) say({ name, error: invalid.message });
}
for (const problem of [...CASES, ...HALF_CASES]) {
  try {
    // The smallest tile compiles fastest. The first case takes what the tile table chooses.
    await runCase(device, problem === CASES[0] ? problem : { variant: "8x32", ...problem });
    say({ name: title(problem) });
  } catch (error) {
    say({ name: title(problem), error: String(error) });
  }
}

/**
 * Puts NaN into keys and values that some rows of a tile see, and others don't. The others must be
 * as if it weren't there.
 */
async function meetsNaN(variant: string): Promise<void> {
  const M = 40;
  const N = 100;
  const D = 64;
  const seen = 20;
  const dense = (what: number, rows: number) => ({
    shape: [1, 1, rows, D],
    data: normal(what, rows * D).map(ROUND.f16),
  });
  const q = dense(1, M);
  const k = dense(2, N);
  const v = dense(3, N);
  const options = {
    causal: "top-left",
    rows: Array.from({ length: seen }, (_, row) => row),
  } as const;
  const f64 = attentionReference(q, k, v, options).output;
  const plain = attentionReference(q, k, v, {
    ...options,
    precision: "f32",
    store: ROUND.f16,
  }).output;
  for (const { data } of [k, v]) data.fill(Number.NaN, seen * D);
  const [qGpu, kGpu, vGpu] = [q, k, v].map(({ shape, data }) =>
    tensor(device, shape, { data, dtype: "f16" }),
  );
  const { output } = await attention(qGpu, kGpu, vGpu, { causal: "top-left", variant });
  const values = (await output.read()).slice(0, seen * D);
  expectClose("output", values, { f64, plain }, [1, 1, seen, D], "f16-products");
}

/**
 * Puts NaN into slices of softmax and rows of norms: it must show there and nowhere else.
 * lavapipe's max drops one of its operands.
 */
async function showsNaN(): Promise<void> {
  const { NaN: nan } = Number;
  const width = 68;
  const rows = Array.from({ length: 3 }, (_, row) => Array.from(normal(row, width)));
  rows[1][width - 1] = nan;
  const x = tensor(device, [3, width], { data: rows.flat() });
  for (const operation of [softmax, logSoftmax, layerNorm, rmsNorm]) {
    const values = await (await operation(x)).output.read();
    for (const [i, value] of values.entries()) {
      const spoilt = Math.floor(i / width) === 1;
      if (Number.isNaN(value) !== spoilt)
        throw new Error(`${operation.name}: element ${i} is ${value}`);
    }
  }
}

/** Normalises rows whose squares are beyond f32, and rows of equal numbers. */
async function normalisesExtremes(): Promise<void> {
  const width = 64;
  const noise = normal(4, width);
  const rows = [1e-30, 1e-19, 1, 1e19, 1e37].map((scale) => noise.map((value) => value * scale));
  const data = Float32Array.from([
    ...rows.flatMap((row) => [...row]),
    ...new Array(width).fill(1000.1),
  ]);
  const shape = [rows.length + 1, width];
  const x = tensor(device, shape, { data });
  for (const rms of [false, true]) {
    const { output } = await (rms ? rmsNorm : layerNorm)(x, { epsilon: 0 });
    const f64 = layerNormReference({ data, shape }, { epsilon: 0, rms }).output;
    expectClose(
      rms ? "rms" : "mean",
      await output.read(),
      { f64, plain: f64.map(Math.fround) },
      shape,
    );
  }
}

/** Makes a tensor over a buffer of the caller's, reads it, and lets an operation read it. */
async function takesBuffers(): Promise<void> {
  const { COPY_DST, COPY_SRC, STORAGE } = GPUBufferUsage;
  const usage = COPY_DST | COPY_SRC | STORAGE;
  const buffer = device.createBuffer({ size: 64, usage });
  const data = normal(9, 16);
  device.queue.writeBuffer(buffer, 0, data);
  const x = tensor(device, [4, 4], { buffer });
  if (String(await x.read()) !== String(data)) throw new Error("other elements than the buffer's");
  const f64 = layerNormReference({ data, shape: [4, 4] }, {}).output;
  const { output } = await layerNorm(x);
  expectClose("output", await output.read(), { f64, plain: f64.map(Math.fround) }, [4, 4]);
}

/** Trains a small program, and compares its gradients with differences of its loss. */
async function trains(): Promise<void> {
  using program = await recordProgram(
    device,
    (graph) => {
      const parameters = parametersOf(graph, drawn(1));
      const rows = linearLayer(graph.input("x", [6, 5]), under(parameters, "first"), 8);
      const logits = linearLayer(activate(rows, "tanh"), under(parameters, "second"), 3);
      return { loss: crossEntropy(logits, graph.input("targets", [6], "i32")) };
    },
    { optimizer: { kind: "AdamW", lr: 0.05, clip: { maxNorm: 1 } } },
  );
  const batch = { x: normal(5, 30), targets: [0, 2, 1, 1, 0, 2] };
  for (const { name, within } of await checkGradients(program, batch))
    if (!within) throw new Error(`the gradient of ${name} is wrong`);
  const first = (await program.run(batch)) as number;
  let last = first;
  for (let step = 0; step < 30; step++) last = (await program.run(batch)) as number;
  if (!(last < first / 2)) throw new Error(`the loss went from ${first} to ${last}`);
}

const CHECKS: readonly (readonly [name: string, check: () => Promise<void>])[] = [
  ["NaN in keys that only later rows see", () => meetsNaN(WIDE.variant)],
  ["NaN in rows of softmax and norms", showsNaN],
  ["norms of rows of any magnitude", normalisesExtremes],
  ["a tensor over a caller's buffer", takesBuffers],
  ["a program that trains", trains],
];
for (const [name, check] of CHECKS) {
  try {
    await check();
    say({ name });
  } catch (error) {
    say({ name, error: String(error) });
  }
}
