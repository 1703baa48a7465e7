// Choices of tokens, run and compared with the float64 reference.

import { expect } from "vitest";
import { type Tensor, tensor } from "../../src/index.ts";
import { planSampling, planTopTokens, type SamplingSettings } from "../../src/models/index.ts";
import {
  samplingProbabilities,
  topTokens as topTokens64,
  uniformOfDraw,
} from "../../src/reference/index.ts";
import { overridden } from "./overridden.ts";

/** Rows of logits, and how they are sampled. */
export interface SamplingCase extends SamplingSettings {
  readonly rows: readonly ArrayLike<number>[];
  /** What was said of each row. */
  readonly history?: readonly (readonly number[])[];
  readonly step?: number;
  /** Whether the axes of all tensors lie the other way round in memory. */
  readonly turned?: boolean;
}

/** The device as one that is not taken for a CPU, so that it gets the kernels of GPUs. */
export const asGpu = (device: GPUDevice): GPUDevice =>
  overridden(device, { adapterInfo: { isFallbackAdapter: false } });

const bitsOf = (ids: Iterable<number>, words: number): number[] => {
  const bits = new Uint32Array(words);
  for (const id of ids) bits[id >> 5] |= 1 << (id & 31);
  return [...bits];
};

/** What a run has written. */
export interface Sampled {
  readonly token: number[];
  readonly logprob: number[];
  readonly probabilities: number[][];
  readonly seen: number[][];
}

/** Tensors [B, n] of some rows. */
function rowsOf(device: GPUDevice, rows: readonly ArrayLike<number>[], dtype: "f32" | "u32") {
  const width = rows[0].length;
  const data = rows.flatMap((row) => Array.from(row));
  return (turned: boolean) => {
    if (!turned) return tensor(device, [rows.length, width], { dtype, data });
    return tensor(device, [rows.length, width], { dtype, data, strides: [1, rows.length] });
  };
}

export async function sampled(device: GPUDevice, one: SamplingCase): Promise<Sampled> {
  const { rows, history, step = 0, turned = false, ...settings } = one;
  const B = rows.length;
  const V = rows[0].length;
  const words = Math.ceil(V / 32);
  const said = rows.map((_, b) => bitsOf(history?.[b] ?? [], words));
  const nothing = rows.map(() => new Float32Array(V).fill(Number.NaN));
  const tensors = {
    logits: rowsOf(device, rows, "f32")(turned),
    token: tensor(device, [B], { dtype: "i32", data: new Int32Array(B).fill(-7) }),
    logprob: tensor(device, [B], { data: new Float32Array(B).fill(Number.NaN) }),
    probabilities: rowsOf(device, nothing, "f32")(turned),
    seen: rowsOf(device, said, "u32")(turned),
  };
  const steps = tensor(device, [1], { dtype: "u32", data: [step] });
  const plan = await planSampling(device, { ...tensors, ...settings, step: steps });
  const encoder = device.createCommandEncoder();
  plan.encode(encoder);
  device.queue.submit([encoder.finish()]);
  const read = async (name: "probabilities" | "seen") => {
    const all = Array.from(await tensors[name].read());
    const width = all.length / B;
    return rows.map((_, b) => all.slice(b * width, (b + 1) * width));
  };
  const result = {
    token: Array.from(await tensors.token.read()),
    logprob: Array.from(await tensors.logprob.read()),
    probabilities: await read("probabilities"),
    seen: await read("seen"),
  };
  plan.destroy();
  for (const made of [...Object.values(tensors), steps]) made.destroy();
  return result;
}

/** Of probabilities, absolute, and of the number that a draw is made by. */
const CLOSE = 1e-6;

/** The logarithm of the softmax of logits. */
function logprobOf(logits: ArrayLike<number>, id: number): number {
  const { ids, logprobs } = topTokens64(logits, logits.length);
  return logprobs[ids.indexOf(id)];
}

/** Runs a case and compares all that it writes with the reference. */
export async function expectSampled(device: GPUDevice, one: SamplingCase): Promise<Sampled> {
  const found = await sampled(device, one);
  const { rows, history, step = 0, seed = 0, turned: _, ...settings } = one;
  for (const [b, row] of rows.entries()) {
    const said = history?.[b] ?? [];
    const logits = Float32Array.from(row);
    const expected = samplingProbabilities(logits, { ...settings, history: said });
    const got = found.probabilities[b];
    const stay = (list: ArrayLike<number>) =>
      Array.from(list, (p, id) => (p === 0 ? -1 : id)).filter((id) => id >= 0);
    expect(stay(got), `tokens of row ${b} that stay`).toEqual(stay(expected));
    const worst = got.reduce((most, p, id) => Math.max(most, Math.abs(p - expected[id])), 0);
    expect(worst, `probabilities of row ${b}`).toBeLessThan(CLOSE);
    const token = found.token[b];
    const before = expected.slice(0, token).reduce((sum, p) => sum + p, 0);
    expect(expected[token]).toBeGreaterThan(0);
    if (settings.temperature !== 0) {
      const u = uniformOfDraw(seed, step, b);
      expect(before - CLOSE, `the draw of row ${b}`).toBeLessThanOrEqual(u);
      expect(before + expected[token] + CLOSE, `the draw of row ${b}`).toBeGreaterThan(u);
    }
    const logprob = logprobOf(logits, token);
    const bound = 2e-6 * Math.max(1, Math.abs(logprob));
    expect(Math.abs(found.logprob[b] - logprob), `logprob of row ${b}`).toBeLessThan(bound);
    expect(found.seen[b]).toEqual(bitsOf([...said, token], found.seen[b].length));
  }
  return found;
}

/** Finds the largest logits of rows, and compares them with the reference. */
export async function expectTopTokens(
  device: GPUDevice,
  rows: readonly ArrayLike<number>[],
  k: number,
  turned = false,
): Promise<void> {
  const B = rows.length;
  const logits = rowsOf(device, rows, "f32")(turned);
  const strides = turned ? { strides: [1, B] } : {};
  const minus = new Int32Array(B * k).fill(-7);
  const nan = new Float32Array(B * k).fill(Number.NaN);
  const ids: Tensor = tensor(device, [B, k], { dtype: "i32", data: minus, ...strides });
  const logprobs = tensor(device, [B, k], { data: nan, ...strides });
  const plan = await planTopTokens(device, { logits, k, ids, logprobs });
  const encoder = device.createCommandEncoder();
  plan.encode(encoder);
  device.queue.submit([encoder.finish()]);
  const found = { ids: await ids.read(), logprobs: await logprobs.read() };
  for (const [b, row] of rows.entries()) {
    const expected = topTokens64(Float32Array.from(row), k);
    expect(Array.from(found.ids.slice(b * k, (b + 1) * k)), `ids of row ${b}`).toEqual(
      expected.ids,
    );
    for (const [i, logprob] of expected.logprobs.entries()) {
      const got = found.logprobs[b * k + i];
      if (Number.isFinite(logprob))
        expect(Math.abs(got - logprob)).toBeLessThan(2e-6 * Math.max(1, Math.abs(logprob)));
      else expect(got).toBe(logprob);
    }
  }
  plan.destroy();
  for (const one of [logits, ids, logprobs]) one.destroy();
}
