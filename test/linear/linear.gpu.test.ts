// linearAttention and planLinearAttention: what they refuse, in whole sentences, what they leave
// behind, and decoding.

import { describe, expect, it } from "vitest";
import {
  type LinearAttentionOptions,
  type LinearAttentionProblem,
  linearAttention,
  planLinearAttention,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import { linearAttention as reference } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { expectClose } from "../support/closeness.ts";
import { counted } from "../support/counted.ts";
import {
  failOnGpuErrors,
  newDevice,
  overridden,
  testDevice,
  withLimits,
} from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import { idle } from "../support/idle.ts";

failOnGpuErrors();

const q = { shape: [2, 4, 5, 8] };
const k = { shape: [2, 2, 5, 8] };
const v = { shape: [2, 2, 5, 6] };
const GOOD = { q, k, v };
const gate = { shape: [2, 2, 5, 1] };
const state = { shape: [2, 2, 8, 6] };
const normalizer = { shape: [2, 2, 8] };
const SHAPES = "(axes BHMD): q is [2, 4, 5, 8], k";

/** Each message names what is wrong. */
const PROBLEMS: readonly [what: string, problem: unknown, message: string | RegExp][] = [
  [
    "no problem",
    undefined,
    "linearAttention: q must be a tensor, or { shape, strides?, offset?, dtype? }, got undefined.",
  ],
  [
    "a layout that is none",
    { ...GOOD, layout: "bhnd" },
    /layout must be "bhmd" or "bmhd", got "bhnd"/,
  ],
  [
    "a rule that is none",
    { ...GOOD, updateRule: "rwkv" },
    'linearAttention: updateRule must be one of "linear", "gated", "delta", "gated_delta", got "rwkv".',
  ],
  [
    "a feature map that is none",
    { ...GOOD, featureMap: "relu" },
    'linearAttention: featureMap must be "elu" or "none", got "relu".',
  ],
  [
    "a rule without order",
    { ...GOOD, updateRule: "gated", causal: false, decay: gate },
    'linearAttention: updateRule "gated" depends on the order of the tokens; causal can\'t be false.',
  ],
  [
    "a normalised delta rule",
    { ...GOOD, updateRule: "delta", normalized: true, beta: gate },
    'linearAttention: updateRule "delta" has no normaliser; normalized can\'t be true.',
  ],
  [
    "a scale that cancels",
    { ...GOOD, scale: 2 },
    "linearAttention: scale has no effect where the output is normalised. Leave it out, or set normalized to false.",
  ],
  [
    "an infinite scale",
    { ...GOOD, updateRule: "linear", scale: Number.POSITIVE_INFINITY },
    "linearAttention: scale must be a finite number, got Infinity. Leave it out for 1 / sqrt(D).",
  ],
  [
    "no work",
    { ...GOOD, maxDispatchFlops: 0 },
    "linearAttention: maxDispatchFlops must be a positive number, got 0.",
  ],
  [
    "different batch sizes",
    { ...GOOD, v: { shape: [1, 2, 5, 6] } },
    `linearAttention: q, k and v must have the same batch size ${SHAPES} [2, 2, 5, 8], v [1, 2, 5, 6].`,
  ],
  [
    "different head dims",
    { ...GOOD, k: { shape: [2, 2, 5, 7] } },
    `linearAttention: q and k must have the same head dim ${SHAPES} [2, 2, 5, 7], v [2, 2, 5, 6].`,
  ],
  [
    "different numbers of keys",
    { ...GOOD, k: { shape: [2, 2, 6, 8] } },
    `linearAttention: k and v must have the same number of keys ${SHAPES} [2, 2, 6, 8], v [2, 2, 5, 6].`,
  ],
  [
    "heads that don't share evenly",
    { ...GOOD, v: { shape: [2, 3, 5, 6] } },
    `linearAttention: one of the 4 query heads and 3 value heads must be a multiple of the other ${SHAPES} [2, 2, 5, 8], v [2, 3, 5, 6].`,
  ],
  [
    "key heads that don't share evenly",
    { ...GOOD, k: { shape: [2, 4, 5, 8] } },
    `linearAttention: the 2 value heads must be a multiple of the 4 key heads ${SHAPES} [2, 4, 5, 8], v [2, 2, 5, 6].`,
  ],
  [
    "causal attention with fewer queries than keys",
    { q: { shape: [2, 4, 3, 8] }, k, v, causal: true },
    "linearAttention: causal attention has a query for each key; what came before is in the state (pastState) (axes BHMD): q is [2, 4, 3, 8], k [2, 2, 5, 8], v [2, 2, 5, 6].",
  ],
  [
    "no decay",
    { ...GOOD, updateRule: "gated" },
    'linearAttention: updateRule "gated" needs decay.',
  ],
  [
    "a beta that nothing reads",
    { ...GOOD, updateRule: "linear", beta: gate },
    'linearAttention: updateRule "linear" has no beta; "delta" and "gated_delta" have.',
  ],
  [
    "a decay of another shape",
    { ...GOOD, updateRule: "gated", decay: { shape: [2, 4, 5, 1] } },
    "linearAttention: decay must be [2, 2, 5, 1] or [2, 2, 5, 8] (axes BHMD), got [2, 4, 5, 1].",
  ],
  [
    "a beta of another shape",
    { ...GOOD, updateRule: "delta", beta: { shape: [2, 2, 5, 8] } },
    "linearAttention: beta must be [2, 2, 5, 1] or [2, 1, 5, 1] (axes BHMD), got [2, 2, 5, 8].",
  ],
  [
    "an output of another shape",
    { ...GOOD, output: { shape: [2, 2, 5, 6] } },
    "linearAttention: output must be [2, 4, 5, 6] (axes BHMD), got [2, 2, 5, 6].",
  ],
  [
    "a mask of another shape",
    { ...GOOD, keyMask: { shape: [2, 4], dtype: "u8" } },
    "linearAttention: keyMask must be [2, 5] or [1, 5], got [2, 4].",
  ],
  [
    "a mask of floats",
    { ...GOOD, keyMask: { shape: [2, 5] } },
    "linearAttention: keyMask must be u8, got f32.",
  ],
  [
    "lengths beyond the keys",
    { ...GOOD, kvLengths: [5, 6] },
    "linearAttention: kvLengths must be 2 whole numbers from 0 to 5, or a tensor, got [5,6].",
  ],
  [
    "a state without its normaliser",
    { ...GOOD, causal: true, pastState: state },
    "linearAttention: the attention is normalised: pastState and pastNormalizer go together.",
  ],
  [
    "a normaliser of nothing",
    { ...GOOD, updateRule: "linear", normalizer },
    "linearAttention: the attention is not normalised: there is no normalizer.",
  ],
  [
    "a state of another shape",
    { ...GOOD, updateRule: "linear", state: { shape: [2, 4, 8, 6] } },
    "linearAttention: state must be [2, 2, 8, 6] [B, Hkv, D, Dv], got [2, 4, 8, 6].",
  ],
  [
    "a state of 16 bits",
    { ...GOOD, updateRule: "linear", state: { ...state, dtype: "f16" } },
    "linearAttention: state must be f32, got f16.",
  ],
  [
    "a state with gaps",
    { ...GOOD, updateRule: "linear", state: { ...state, strides: [200, 100, 8, 1] } },
    "linearAttention: state must be dense, strides [96,48,6,1], got [200,100,8,1].",
  ],
  [
    "a state in place and before",
    { ...GOOD, updateRule: "linear", state, pastState: state },
    "linearAttention: state is read and written in place; it can't be combined with pastState or presentState.",
  ],
  [
    "delta rules in chunks",
    { ...GOOD, updateRule: "delta", beta: gate, variant: "chunked" },
    'linearAttention: variant must be "recurrent", or "chunked" for rules without delta and decays of a head, got "chunked".',
  ],
  [
    "no order, token by token",
    { ...GOOD, variant: "recurrent" },
    'linearAttention: variant "recurrent" is for causal attention.',
  ],
];

describe("planLinearAttention refuses", () => {
  it.each(PROBLEMS)("%s", async (_, problem, message) => {
    const { device, buffers } = counted(await testDevice());
    await expectError(
      () => planLinearAttention(device, problem as LinearAttentionProblem),
      "argument",
      message,
    );
    expect(buffers()).toBe(0);
  });

  it("what a workgroup can't hold, and what a binding can't", async () => {
    const device = await testDevice();
    const wide = { shape: [1, 1, 100, 4000] };
    await expectError(
      () =>
        planLinearAttention(device, {
          q: wide,
          k: wide,
          v: wide,
          causal: true,
          variant: "recurrent",
        }),
      "limit",
      "linearAttention: head dim 4000 is too large to run token by token; the largest is 1024.",
    );
    const many = { shape: [1, 100, 100, 1000] };
    const one = { shape: [1, 1, 100, 1000] };
    await expectError(
      () =>
        planLinearAttention(device, {
          q: many,
          k: one,
          v: one,
          causal: true,
          variant: "recurrent",
        }),
      "limit",
      "linearAttention: head dim 1000 with 100 query heads a state needs 20280 bytes of workgroup memory to run token by token; there are 16384. Run groups of heads one after the other on slices.",
    );
    const small = withLimits(device, { maxStorageBufferBindingSize: 200 });
    await expectError(
      () => planLinearAttention(small, GOOD),
      "limit",
      /^linearAttention: q spans 1280 bytes;/,
    );
  });
});

const values = (seed: number, shape: readonly number[]) =>
  normal(
    seed,
    shape.reduce((product, size) => product * size, 1),
  );
const make = (device: GPUDevice, seed: number, shape: readonly number[]) =>
  tensor(device, shape, { data: values(seed, shape) });

describe("what goes wrong at a run", () => {
  it("is said before anything is recorded, and leaves nothing behind", async () => {
    const { device, buffers } = counted(idle(await testDevice()));
    const [Q, K, V] = [q, k, v].map(({ shape }, seed) => make(device, seed + 1, shape));
    const [S, Z] = [state, normalizer].map(({ shape }) => tensor(device, shape));
    const before = buffers();
    const refused = (options: LinearAttentionOptions, message: string | RegExp) =>
      expectError(() => linearAttention(Q, K, V, options), "overlap", message);
    await refused(
      { output: Q.view({ shape: [2, 4, 5, 6] }) },
      /^linearAttention: output and q are in the same GPUBuffer/,
    );
    await refused(
      {
        causal: true,
        pastState: S,
        pastNormalizer: Z,
        presentState: S,
        presentNormalizer: tensor(device, [2, 2, 8]),
      },
      /are in the same GPUBuffer/,
    );
    const other = await newDevice();
    const foreign = make(other, 1, k.shape);
    await expectError(
      () => linearAttention(Q, foreign, V),
      "device",
      "linearAttention: k belongs to another GPUDevice; tensors can't move between devices.",
    );
    other.destroy();
    await expectError(
      () => linearAttention(Q, undefined as unknown as Tensor, V),
      "argument",
      "linearAttention: k must be a Tensor; make one with tensor().",
    );
    expect(buffers()).toBe(before + 1); // the normaliser above is the test's own

    const plan = await planLinearAttention(device, { ...GOOD, q: Q, k: K });
    const encoder = device.createCommandEncoder();
    await expectError(
      () => plan.encode(encoder, { output: tensor(device, [2, 4, 5, 6]) }),
      "argument",
      "linearAttention: v is missing: the plan was made without a tensor for it.",
    );
    await expectError(
      () => plan.encode(encoder, { v: V, state: S }),
      "argument",
      'linearAttention: the plan has no use for "state"; it takes q, k, v, output. What else a problem has is said when its plan is made.',
    );
    plan.destroy();
    await expectError(
      () => plan.encode(encoder),
      "destroyed",
      "linearAttention: the plan was destroyed.",
    );
    encoder.finish();
  });
});

describe("decoding", () => {
  it("goes on from a prompt token by token, in place, and allocates, compiles and binds nothing on the way", async () => {
    const { device, count, buffers } = counted(await testDevice());
    const B = 1;
    const H = 2;
    const N = 12;
    const D = 16;
    const prompt = 8;
    const [Q, K, V] = [1, 2, 3].map((seed) => make(device, seed, [B, H, N, D]));
    const S = tensor(device, [B, H, D, D]);
    const Z = tensor(device, [B, H, D]);
    const head = (one: Tensor) => one.slice(2, 0, prompt);
    const shared = { causal: true, state: S, normalizer: Z } as const;
    const first = await linearAttention(head(Q), head(K), head(V), shared);

    const one = () => tensor(device, [B, H, 1, D]);
    const qOne = one();
    const kOne = one();
    const vOne = one();
    const output = one();
    const plan = await planLinearAttention(device, {
      q: qOne,
      k: kOne,
      v: vOne,
      output,
      ...shared,
    });
    expect(plan.kernel).toBe("linear recurrent");
    const results: number[][] = [];
    let after: unknown[] = [];
    for (let n = prompt; n < N; n++) {
      const encoder = device.createCommandEncoder();
      for (const [from, to] of [
        [Q, qOne],
        [K, kOne],
        [V, vOne],
      ] as const) {
        for (let h = 0; h < H; h++)
          encoder.copyBufferToBuffer(from.buffer, 4 * D * (h * N + n), to.buffer, 4 * D * h, 4 * D);
      }
      plan.encode(encoder);
      const left = [buffers(), count.pipelines, count.modules, count.bindGroups];
      if (n > prompt) expect(left).toEqual(after);
      after = left;
      device.queue.submit([encoder.finish()]);
      results.push([...(await output.read())]);
    }
    const cpu = (seed: number) => ({ data: values(seed, [B, H, N, D]), shape: [B, H, N, D] });
    const at = (all: Float64Array) =>
      [0, 1, 2, 3].flatMap((i) =>
        [0, 1].flatMap((h) => [
          ...all.slice((h * N + prompt + i) * D, (h * N + prompt + i + 1) * D),
        ]),
      );
    const f64 = reference(cpu(1), cpu(2), cpu(3), { causal: true });
    const plain = reference(cpu(1), cpu(2), cpu(3), { causal: true, precision: "f32" });
    expectClose("decoded", results.flat(), { f64: at(f64.output), plain: at(plain.output) }, [
      4,
      H,
      D,
    ]);
    expectClose("state", await S.read(), { f64: f64.state, plain: plain.state }, [B, H, D, D]);
    plan.destroy();
    for (const used of [Q, K, V, S, Z, first.output, qOne, kOne, vOne, output]) used.destroy();
    expect(buffers()).toBe(0);
  });

  it("runs token by token if that is faster: few tokens, or narrow heads on a software adapter", async () => {
    const device = idle(await testDevice());
    const { vendor, architecture, description } = device.adapterInfo;
    const hardware = overridden(device, { adapterInfo: { vendor, architecture, description } });
    const kernel = async (on: GPUDevice, N: number, D: number) => {
      const shape = [1, 1, N, D];
      const plan = await planLinearAttention(on, {
        q: { shape },
        k: { shape },
        v: { shape },
        causal: true,
      });
      plan.destroy();
      return plan.kernel;
    };
    expect(await kernel(device, 64, 16)).toBe("linear recurrent");
    expect(await kernel(device, 64, 72)).toBe("linear chunked");
    expect(await kernel(hardware, 63, 16)).toBe("linear recurrent");
    expect(await kernel(hardware, 64, 16)).toBe("linear chunked");
  });

  it("keeps memory and dispatches bounded while the tokens grow", async () => {
    const device = idle(await testDevice());
    const planned = (N: number) => {
      const shape = [1, 8, N, 64];
      const problem = { q: { shape }, k: { shape }, v: { shape }, causal: true };
      return planLinearAttention(device, { ...problem, variant: "chunked" });
    };
    const short = await planned(2 ** 15);
    const long = await planned(2 ** 17);
    for (const plan of [short, long]) expect(plan.workspaceBytes).toBeLessThan(2 ** 26 + 2 ** 20);
    short.destroy();
    long.destroy();
  });
});
