// Gradients of what a score function captures, and of q, k and v through it, against the float64
// reference.

import { describe, expect, it } from "vitest";
import {
  type AttentionBackwardOptions,
  alibiScore,
  attention,
  attentionBackward,
  checkGradients,
  planAttentionBackward,
  scoreFunction,
  type Tensor,
  tensor,
} from "../../../src/index.ts";
import {
  type ReferenceBackwardOptions,
  type ReferencePosition,
  attentionBackward as reference,
} from "../../../src/reference/index.ts";
import { normal } from "../../../src/reference/random.ts";
import { breadth } from "../../support/breadth.ts";
import { product } from "../../support/cases.ts";
import { expectClose } from "../../support/closeness.ts";
import { failOnGpuErrors, overridden, testDevice } from "../../support/device.ts";
import { expectError } from "../../support/errors.ts";
import { idle } from "../../support/idle.ts";

failOnGpuErrors();

const H = 4;
const THIRDS = 3;
/** Reads an element of w, two of b, and a number; hides keys; has a bend at 0. */
const SCORE = `fn bent(s: f32) -> f32 {
  return 1.0 / (1.0 + abs(s));
}
fn distance(at: Position) -> u32 {
  return u32(abs(at.position - i32(at.kv_idx)));
}
fn score(s: f32, at: Position) -> f32 {
  if (at.kv_idx % 7 == 5) {
    return HIDDEN;
  }
  let biases = b[at.head] * b[${H} + at.kv_idx % ${THIRDS}];
  return s * w[distance(at)] + strength * s * bent(s) + biases;
}`;
const GRADIENT = `fn gradient(s: f32, at: Position) -> f32 {
  return w[distance(at)] + strength * bent(s) * bent(s);
}
fn gradient_strength(s: f32, at: Position) -> f32 {
  return s * bent(s);
}
fn index_w(at: Position) -> u32 {
  return distance(at);
}
fn gradient_w(s: f32, at: Position) -> f32 {
  return s;
}
fn index_b(at: Position) -> array<u32, 2> {
  return array<u32, 2>(at.head, ${H} + at.kv_idx % ${THIRDS});
}
fn gradient_b(s: f32, at: Position) -> array<f32, 2> {
  let both = index_b(at);
  return array<f32, 2>(b[both[1]], b[both[0]]);
}`;

interface Case {
  readonly M: number;
  readonly N: number;
  readonly spread?: number;
  readonly gradientSpread?: number;
  readonly options?: Partial<AttentionBackwardOptions & ReferenceBackwardOptions>;
}

const STRENGTH = 0.7;
const functionOf = (w: Tensor, b: Tensor) =>
  scoreFunction(SCORE, { captures: { w, b, strength: STRENGTH }, gradient: GRADIENT });

const B = 2;
const Hkv = 2;
const D = 16;

async function run(device: GPUDevice, problem: Case) {
  const { M, N, spread = 1, gradientSpread = 1, options = {} } = problem;
  const used: Tensor[] = [];
  const keep = <T extends Tensor>(made: T): T => {
    used.push(made);
    return made;
  };
  const make = (seed: number, shape: readonly number[], deviation = 1) => {
    const data = normal(seed, product(shape), deviation);
    return { shape, data, gpu: keep(tensor(device, shape, { data })) };
  };
  try {
    const q = make(1, [B, H, M, D], spread);
    const k = make(2, [B, Hkv, N, D], spread);
    const v = make(3, [B, Hkv, N, D]);
    const dOutput = make(4, [B, H, M, D], gradientSpread);
    const w = make(5, [M + N]);
    const b = make(6, [H + THIRDS]);
    const settings = { ...options, causal: true, scoreFunction: functionOf(w.gpu, b.gpu) } as const;
    const lse = keep(tensor(device, [B, H, M]));
    const output = keep(tensor(device, [B, H, M, D]));
    await attention(q.gpu, k.gpu, v.gpu, { ...(settings as object), output, lse });
    const nowhere = (shape: readonly number[]) =>
      keep(tensor(device, shape, { data: new Float32Array(product(shape)).fill(Number.NaN) }));
    const results = {
      dQ: nowhere(q.shape),
      dK: nowhere(k.shape),
      dV: nowhere(v.shape),
      dCaptures: { w: nowhere(w.shape), b: nowhere(b.shape), strength: nowhere([1]) },
    };
    await attentionBackward(q.gpu, k.gpu, v.gpu, {
      ...(settings as object),
      ...results,
      output,
      lse,
      dOutput: dOutput.gpu,
      variant: "8x32",
    });
    const cpu: ReferenceBackwardOptions = {
      ...(options as ReferenceBackwardOptions),
      causal: true,
      dOutput: dOutput.data,
      ...twin(w.data, b.data, M),
    };
    const f64 = reference(q, k, v, cpu);
    const plain = reference(q, k, v, { ...cpu, precision: "f32" });
    const found: Record<string, ArrayLike<number>> = {};
    for (const name of ["dQ", "dK", "dV"] as const) {
      found[name] = await results[name].read();
      const both = { f64: f64[name], plain: plain[name] };
      expectClose(name, found[name], both, results[name].shape);
    }
    const ofNumber = sumOfRows(f64.dCaptures.strength, plain.dCaptures.strength);
    for (const name of ["w", "b", "strength"] as const) {
      found[name] = await results.dCaptures[name].read();
      const both =
        name === "strength" ? ofNumber : { f64: f64.dCaptures[name], plain: plain.dCaptures[name] };
      expectClose(`dCaptures.${name}`, found[name], both, results.dCaptures[name].shape);
    }
    return found;
  } finally {
    for (const one of used) one.destroy();
  }
}

/**
 * The sum of what rows add, and what a plain evaluation would be off by if the errors of its rows
 * did not cancel out: a single number says nothing of the errors that its terms had.
 */
function sumOfRows(f64: Float64Array, plain: Float64Array) {
  const sum = f64.reduce((total, x) => total + x, 0);
  const error = f64.reduce((total, x, row) => total + Math.abs(plain[row] - x), 0);
  return { f64: [sum], plain: [sum + error] };
}

/**
 * The function in JavaScript, for the reference. The number stands there once for each row, for
 * {@link sumOfRows}.
 */
function twin(w: ArrayLike<number>, b: ArrayLike<number>, M: number) {
  const bent = (s: number) => 1 / (1 + Math.abs(s));
  const placesOf = ({ head, kvIdx, position }: ReferencePosition) => ({
    distance: Math.abs(position - kvIdx),
    first: head,
    second: H + (kvIdx % THIRDS),
  });
  return {
    scoreFunction: (s: number, at: ReferencePosition) => {
      if (at.kvIdx % 7 === 5) return Number.NEGATIVE_INFINITY;
      const { distance, first, second } = placesOf(at);
      return s * w[distance] + Math.fround(STRENGTH) * s * bent(s) + b[first] * b[second];
    },
    scoreGradient: {
      derivative: (s: number, at: ReferencePosition) =>
        w[placesOf(at).distance] + Math.fround(STRENGTH) * bent(s) ** 2,
      captures: { w: w.length, b: b.length, strength: B * H * M },
      captured: (s: number, at: ReferencePosition) => {
        const { distance, first, second } = placesOf(at);
        const row = (at.batch * H + at.head) * M + at.qIdx;
        return [
          { name: "w", index: distance, derivative: s },
          { name: "b", index: first, derivative: b[second] },
          { name: "b", index: second, derivative: b[first] },
          { name: "strength", index: row, derivative: s * bent(s) },
        ];
      },
    },
  };
}

describe("gradients of captures", () => {
  it.each<[what: string, problem: Case]>([
    ["sums over rows, heads and entries", { M: 37, N: 70 }],
    ["large gradients, of large scores", { M: 20, N: 33, gradientSpread: 1e12, spread: 2 }],
    ["small gradients", { M: 20, N: 33, gradientSpread: 1e-12, spread: 0.1 }],
    ["rows that see no key, in windows", { M: 40, N: 30, options: { window: [9, 0] } }],
    ...breadth<[string, Case]>([
      "scores of unit vectors",
      { M: 20, N: 33, options: { similarity: "cosine" } },
    ]),
    ["dispatches that are cut", { M: 20, N: 33, options: { maxDispatchFlops: 1000 } }],
  ])("%s", async (_, problem) => {
    await run(await testDevice(), problem);
  });

  it("are the same bits every time", async () => {
    const device = await testDevice();
    const first = await run(device, { M: 20, N: 33 });
    for (let i = 0; i < 5; i++) expect(await run(device, { M: 20, N: 33 })).toEqual(first);
  });

  it("are NaN where a term is, and nowhere else", async () => {
    const device = await testDevice();
    const M = 20;
    const data = [1, 2, 3].map((seed) => normal(seed, H * M * D));
    const [q, k, v] = data.map((one) => tensor(device, [1, H, M, D], { data: one }));
    const w = tensor(device, [M], { data: normal(4, M) });
    const b = tensor(device, [H + THIRDS], { data: normal(5, H + THIRDS) });
    const scoreFunction = functionOf(w, b);
    const { output, lse } = await attention(q, k, v, { causal: true, scoreFunction, lse: true });
    if (!lse) throw new Error("there is no lse");
    // The last query of head 1 sees all keys that aren't hidden.
    const dOutput = normal(6, H * M * D);
    dOutput[(2 * M - 1) * D] = Number.NaN;
    const { dCaptures } = await attentionBackward(q, k, v, {
      causal: true,
      scoreFunction,
      output,
      lse,
      dOutput: tensor(device, [1, H, M, D], { data: dOutput }),
      dCaptures: { w: true, b: true, strength: true },
    });
    const spoilt = async (name: string) => Array.from(await dCaptures[name].read(), Number.isNaN);
    const distances = Array.from({ length: M }, (_, distance) => (M - 1 - distance) % 7 !== 5);
    expect(await spoilt("w")).toEqual(distances);
    expect(await spoilt("b")).toEqual([false, true, false, false, true, true, true]);
    expect(await spoilt("strength")).toEqual([true]);
  });

  it("are zeros if there is no score", async () => {
    const device = await testDevice();
    const empty = tensor(device, [0, H, 3, D]);
    const w = tensor(device, [0]);
    const b = tensor(device, [H + THIRDS]);
    const { dCaptures } = await attentionBackward(empty, empty, empty, {
      output: empty,
      lse: tensor(device, [0, H, 3]),
      dOutput: empty,
      scoreFunction: functionOf(w, b),
      dCaptures: {
        w: true,
        b: true,
        strength: tensor(device, [1], { data: [Number.NaN] }),
      },
    });
    expect(dCaptures.w.shape).toEqual([0]);
    expect([...(await dCaptures.b.read())]).toEqual(new Array(H + THIRDS).fill(0));
    expect([...(await dCaptures.strength.read())]).toEqual([0]);
  });

  it("refuse what is wrong before the GPU sees it", async () => {
    const device = idle(await testDevice());
    const q = { shape: [1, 4, 5, 8] };
    const slopes = tensor(device, [4]);
    const problem = { q, k: q, v: q, scoreFunction: alibiScore(slopes) };
    const text = "fn score(s: f32, at: Position) -> f32 { return s * c; }";
    const gradient = "fn gradient(s: f32, at: Position) -> f32 { return c; }";
    const partly = scoreFunction(text, { captures: { c: 1 }, gradient });
    const refused: [object, string | RegExp][] = [
      [
        { dCaptures: { slopes: true } },
        'attentionBackward: dCaptures: the score function captures alibi_slopes, and no "slopes".',
      ],
      [{ dCaptures: true }, /dCaptures must be { name: true or tensor }, got true/],
      [{ dCaptures: { alibi_slopes: 1 } }, /dCaptures.alibi_slopes must be a tensor/],
      [
        { dCaptures: { alibi_slopes: { shape: [5] } } },
        /dCaptures.alibi_slopes must be \[4\] the shape of the capture, got \[5\]/,
      ],
      [
        { dCaptures: { alibi_slopes: { shape: [4], strides: [2] } } },
        /dCaptures.alibi_slopes is written, and must be dense/,
      ],
      [
        { scoreFunction: partly, dCaptures: { c: true } },
        /dCaptures: the score function has no derivative by c. Its option gradient needs/,
      ],
      [
        { similarity: { kind: "additive", vector: 1 }, dCaptures: { alibi_slopes: true } },
        "attentionBackward: dCaptures can't be computed with additive similarity.",
      ],
      [{ scoreFunction: undefined, dCaptures: { c: true } }, /captures nothing, and no "c"/],
    ];
    for (const [change, message] of refused) {
      const work = () => planAttentionBackward(device, { ...problem, ...change } as never);
      await expectError(work, "argument", message);
    }
    const plan = await planAttentionBackward(device, {
      ...problem,
      dCaptures: { alibi_slopes: true },
    });
    const encoder = device.createCommandEncoder();
    const bind = (dCaptures: object) => () => plan.encode(encoder, { dCaptures } as never);
    await expectError(bind({ w: slopes }), "argument", /the plan has no gradient of a capture "w"/);
    await expectError(bind({}), "argument", /missing/);
    plan.destroy();
  });
});

describe("checkGradients", () => {
  it("finds this device right", async () => {
    const { within, off } = await checkGradients(await testDevice());
    expect(within).toBe(true);
    for (const [name, part] of Object.entries(off)) expect(part, name).toBeLessThan(1e-5);
  });

  it("finds wrong numbers, and says where", async () => {
    const real = await testDevice();
    const faulty = (label: string, text: RegExp, replacement: string) =>
      overridden(real, {
        createShaderModule(given: GPUShaderModuleDescriptor) {
          const wrong = given.label?.startsWith(label)
            ? { ...given, code: given.code.replace(text, replacement) }
            : given;
          if (wrong !== given) expect(wrong.code).not.toBe(given.code);
          return real.createShaderModule(wrong);
        },
      });
    const zeros = await checkGradients(idle(real));
    expect(zeros.within).toBe(false);
    expect(zeros.worst.given).toBe(0);
    const slightly = faulty("backward keys", /(\w*idx) < rows/g, "$1 + 1u < rows");
    const { within, off, worst } = await checkGradients(slightly, { seed: 7 });
    expect(within).toBe(false);
    expect(["dK", "dV"]).toContain(worst.result);
    expect(worst.index).toHaveLength(4);
    expect(worst.index[2]).toBe(36); // the last key
    expect(off.dQ).toBeLessThan(1e-5);
  });

  it("refuses options that are none", async () => {
    const device = await testDevice();
    await expectError(() => checkGradients(device, { seed: 1.5 }), "argument", /seed must be a wh/);
    await expectError(() => checkGradients(device, { tolerance: 0 }), "argument", /tolerance must/);
  });
});
