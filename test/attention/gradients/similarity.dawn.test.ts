// The gradients of attention through similarities other than products, and those of what the
// similarities hold, against the float64 reference.

import { describe, expect, it } from "vitest";
import { attention, attentionBackward, planAttentionBackward, tensor } from "../../../src/index.ts";
import { normal } from "../../../src/reference/random.ts";
import { type BackwardCase, runBackwardCase } from "../../support/backward_cases.ts";
import { title } from "../../support/cases.ts";
import { failOnGpuErrors, testDevice } from "../../support/device.ts";
import { expectError } from "../../support/errors.ts";

failOnGpuErrors();

function cases(what: string, problems: readonly BackwardCase[]): void {
  describe(what, () => {
    for (const problem of problems)
      it(title(problem), async () => runBackwardCase(await testDevice(), problem));
  });
}

const SMALL = { H: 2, D: 8 } as const;
const WEIGHTS = ["dQWeights", "dKWeights"] as const;

// One kernel for rows of each norm: magnitudes and lengths are no constants.
const RMS = {
  ...SMALL,
  similarity: { kind: "rms", weights: true },
  ofOptions: WEIGHTS,
} as const;
cases("normalised rows", [
  { ...RMS, M: 9, N: 37, dLse: true },
  { ...RMS, B: 2, H: 4, Hkv: 2, M: 70, N: 133, causal: true },
  { ...RMS, M: 9, N: 37, spread: 1e-19, gradientSpread: 1e3 },
  { ...RMS, M: 9, N: 37, spread: 1e19, gradientSpread: 1e-3 },
  {
    ...RMS,
    B: 3,
    M: 20,
    N: 37,
    qLengths: [20, 7, 0],
    kvLengths: [37, 0, 13],
    causal: true,
    poison: true,
  },
  {
    ...RMS,
    M: 60,
    N: 90,
    cuSeqlensQ: [0, 5, 5, 40, 57],
    cuSeqlensKv: [0, 40, 45, 45, 80],
    causal: true,
    poison: true,
  },
]);
cases("rows of length 1", [
  { H: 1, M: 9, N: 20, D: 6, similarity: "cosine", temperature: "log", given: true },
  {
    H: 2,
    M: 20,
    N: 37,
    D: 6,
    layout: "bmhd",
    dtype: ["bf16", "f16", "bf16", "f32"],
    similarity: { kind: "l2", weights: true },
    ofOptions: WEIGHTS,
    softcap: 1,
    given: true,
  },
]);

const ADDITIVE = {
  ...SMALL,
  similarity: { kind: "additive", innerBias: true, innerScale: 0.7 },
  ofOptions: ["dVector", "dInnerBias", "dInnerScale"],
} as const;
cases("additive attention", [
  { ...ADDITIVE, M: 9, N: 37, dLse: true },
  { ...ADDITIVE, B: 2, H: 4, Hkv: 2, M: 70, N: 45, causal: true },
  { ...ADDITIVE, M: 0, N: 0 },
  { ...ADDITIVE, B: 3, H: 4, Hkv: 2, M: 3, N: 37, causal: true, dLse: true }, // few queries
  { ...ADDITIVE, B: 3, M: 1, N: 9, kvLengths: [9, 2, 0], poison: true, hidden: true, sinks: true },
  { ...ADDITIVE, M: 9, N: 37, spread: 1e-3, gradientSpread: 1e3 },
  { ...ADDITIVE, M: 9, N: 37, spread: 40, gradientSpread: 1e-3 },
  {
    ...ADDITIVE,
    M: 30,
    N: 50,
    cuSeqlensQ: [0, 5, 5, 20, 27],
    cuSeqlensKv: [0, 10, 15, 15, 44],
    causal: true,
    poison: true,
  },
  {
    H: 3,
    M: 20,
    N: 37,
    D: 6,
    layout: "bmhd",
    dtype: ["f16", "bf16", "f32", "f32"],
    similarity: { kind: "additive", perHead: true, innerBias: true, normalize: true },
    ofOptions: ["dVector", "dInnerBias", "dGain"],
    softcap: 2,
    dropout: { p: 0.3, seed: 7 },
    given: true,
  },
  {
    H: 3,
    M: 8,
    N: 19,
    D: 6,
    Dv: 10,
    layout: "bmhd",
    dtype: ["f16", "bf16", "f32", "f32"],
    similarity: { kind: "additive", perHead: true, innerBias: true, normalize: true },
    ofOptions: ["dVector", "dInnerBias", "dGain"],
    softcap: 2,
    dropout: { p: 0.3, seed: 7, step: 3 },
    given: true,
  },
]);

describe("gradients through similarities", () => {
  const spec = (...shape: number[]) => ({ shape });
  const problem = { q: spec(1, 2, 5, 8), k: spec(1, 2, 7, 8), v: spec(1, 2, 7, 8) };
  const refused: readonly [what: string, options: object, message: string][] = [
    [
      "of weights that are not there",
      { similarity: "cosine", dQWeights: true },
      "attentionBackward: dQWeights is the gradient of similarity.qWeights, which the problem doesn't have.",
    ],
    [
      "of another similarity",
      { dVector: true },
      "attentionBackward: dVector is the gradient of the vector of additive similarity, which the problem doesn't have.",
    ],
    [
      "of a gain without a unit vector",
      { similarity: { kind: "additive" }, dGain: true },
      "attentionBackward: dGain is the gradient of gain of additive similarity with normalize: true, which the problem doesn't have.",
    ],
    [
      "of another shape",
      {
        similarity: { kind: "additive", innerBias: new Array(16).fill(1) },
        dInnerBias: spec(8),
      },
      "attentionBackward: dInnerBias must be [2, 8], got [8].",
    ],
  ];
  it.each(refused)("are refused %s", async (_, options, message) => {
    const device = await testDevice();
    const work = () => planAttentionBackward(device, { ...problem, ...options });
    await expectError(work, "argument", message);
  });

  const rows = (device: GPUDevice, count: number, seed: number) =>
    tensor(device, [1, 2, count, 8], { data: normal(seed, count * 16) });
  const layer = {
    kind: "additive",
    vector: Array.from(normal(5, 8)),
    innerBias: Array.from(normal(6, 8)),
    innerScale: 0.7,
  } as const;
  const asked = { similarity: layer, dVector: true, dInnerBias: true, dInnerScale: true };

  it("are the same bits every time, in tensors that a plan is told of", async () => {
    const device = await testDevice();
    const q = rows(device, 9, 1);
    const k = rows(device, 37, 2);
    const v = rows(device, 37, 3);
    const { output, lse } = await attention(q, k, v, { similarity: layer, lse: true });
    if (!lse) throw new Error("there is no lse");
    const plan = await planAttentionBackward(device, { q, k, v, ...asked });
    const bits = async () => {
      const results = {
        dQ: tensor(device, q.shape),
        dK: tensor(device, k.shape),
        dV: tensor(device, v.shape),
        dVector: tensor(device, [8]),
        dInnerBias: tensor(device, [8]),
        dInnerScale: tensor(device, [1]),
      };
      const encoder = device.createCommandEncoder();
      plan.encode(encoder, { output, lse, dOutput: rows(device, 9, 4), ...results });
      device.queue.submit([encoder.finish()]);
      return Promise.all(Object.values(results).map((one) => one.read()));
    };
    const first = await bits();
    for (let run = 0; run < 50; run++) expect(await bits()).toEqual(first);
    expect(plan.workspaceBytes).toBe(4 * (4 * 18 + 3 * 18 * 8 + 8));
    plan.destroy();
  });

  it("are 0 of numbers of a layer that no key meets", async () => {
    const device = await testDevice();
    const q = rows(device, 9, 1);
    const none = rows(device, 0, 2);
    const lse = tensor(device, [1, 2, 9], {
      data: new Float32Array(18).fill(Number.NEGATIVE_INFINITY),
    });
    const given = { output: rows(device, 9, 3), lse, dOutput: rows(device, 9, 4) };
    const found = await attentionBackward(q, none, none, { ...asked, ...given });
    const { dQ, dVector, dInnerBias, dInnerScale } = found;
    for (const one of [dQ, dVector, dInnerBias, dInnerScale])
      expect((await one?.read())?.every((x) => x === 0)).toBe(true);
  });

  it("keep a NaN to what sees it", async () => {
    const device = await testDevice();
    const spoilt = normal(2, 37 * 16);
    spoilt[25 * 8 + 3] = Number.NaN; // key 25 of the first head, which queries from 25 on see
    const q = rows(device, 37, 1);
    const k = tensor(device, [1, 2, 37, 8], { data: spoilt });
    const settings = { similarity: layer, causal: true } as const;
    const { output, lse } = await attention(q, k, q, { ...settings, lse: true });
    if (!lse) throw new Error("there is no lse");
    const dOutput = rows(device, 37, 4);
    const { dQ } = await attentionBackward(q, k, q, { ...settings, output, lse, dOutput });
    const found = Array.from(await dQ.read());
    const rowsOfNaN = Array.from({ length: 74 }, (_, row) =>
      found.slice(row * 8, row * 8 + 8).some(Number.isNaN),
    );
    expect(rowsOfNaN).toEqual(Array.from({ length: 74 }, (_, row) => row >= 25 && row < 37));
  });
});
