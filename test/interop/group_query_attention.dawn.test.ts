// com.microsoft GroupQueryAttention against the float64 reference: pasts, rotations, windows,
// lengths of entries.

import { describe, expect, it } from "vitest";
import { type Tensor, tensor } from "../../src/index.ts";
import { GroupQueryAttention } from "../../src/interop/onnx/index.ts";
import {
  attention,
  attentionScores,
  type ReferenceOptions,
  type ReferenceTensor,
  rmsNorm,
  rotary,
} from "../../src/reference/index.ts";
import { type Float, ROUND } from "../support/cases.ts";
import { expectClose } from "../support/closeness.ts";
import { counted } from "../support/counted.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import { headsOf, type Input, Inputs, rowsOf } from "../support/operators.ts";

failOnGpuErrors();

const H = 4;
const HKV = 2;
const D = 8;
const MOST = 24; // positions that cos and sin have

interface Case {
  readonly S: number;
  /** Keys of each entry, new ones included. */
  readonly keys: readonly number[];
  /** Rows that the past has room for. Without it there is no past. */
  readonly capacity?: number;
  readonly packed?: boolean;
  /** Channels that are rotated. */
  readonly rotary?: number;
  readonly positionIds?: readonly number[];
  readonly bias?: readonly number[];
  readonly sink?: boolean;
  /** Whether q and k are normalised. */
  readonly norm?: boolean;
  readonly attributes?: {
    readonly past_present_share_buffer?: 1;
    readonly rotary_interleaved?: 1;
    readonly smooth_softmax?: 0 | 1;
    readonly causal?: 0 | 1;
    readonly qk_output?: number;
    readonly local_window_size?: number;
    readonly softcap?: number;
    readonly scale?: number;
    readonly [name: string]: number | undefined;
  };
  readonly dtype?: Float;
  /** Whether seqlens_k and other numbers are given as tensors. */
  readonly onGpu?: boolean;
  /** Whether there are no new keys and values, because the past has them. */
  readonly keysInPast?: boolean;
  readonly seed?: number;
}

/** Runs a case and compares output, presents and scores. */
async function run(problem: Case): Promise<void> {
  const device = await testDevice();
  const {
    S,
    keys,
    capacity,
    packed,
    onGpu,
    dtype = "f32",
    attributes = {},
    keysInPast,
    seed = 1,
  } = problem;
  const inputs = new Inputs(device, { dtype, seed });
  const B = keys.length;
  const total = Math.max(...keys);
  const isPrompt = S === total;
  const offsets = keys.map((count) => (isPrompt ? 0 : count - S));
  const L = keysInPast ? 0 : S;
  const rows = inputs.random([B, S, (packed ? H + 2 * HKV : H) * D]);
  const [k, v] = packed ? [] : [inputs.random([B, L, HKV * D]), inputs.random([B, L, HKV * D])];
  const pasts = [0, 1].map(() =>
    capacity === undefined ? undefined : inputs.random([B, HKV, capacity, D]),
  );
  const angles = problem.rotary
    ? [
        inputs.random([MOST, problem.rotary / 2], 0.7),
        inputs.random([MOST, problem.rotary / 2], 0.7),
      ]
    : [];
  const bias = problem.bias && inputs.random(problem.bias);
  const sink = problem.sink ? inputs.random([H]) : undefined;
  const norms = problem.norm ? [inputs.random([D]), inputs.random([D])] : [];
  const ints = (values: readonly number[]) =>
    onGpu ? inputs.given([values.length], values, "i32").gpu : values;
  const ids = problem.positionIds;
  const given = [
    rows.gpu,
    k?.gpu,
    v?.gpu,
    pasts[0]?.gpu,
    pasts[1]?.gpu,
    ints(keys.map((count) => count - 1)),
    [total],
    angles[0]?.gpu,
    angles[1]?.gpu,
    ids && (onGpu ? inputs.given([B, S], ids, "i32").gpu : ids),
    bias?.gpu,
    sink?.gpu,
    null,
    null,
    norms[0]?.gpu,
    norms[1]?.gpu,
  ];
  const shared = attributes.past_present_share_buffer;
  const qkOutput = attributes.qk_output ?? 0;
  try {
    const all = {
      num_heads: H,
      kv_num_heads: HKV,
      do_rotary: problem.rotary ? 1 : 0,
      ...attributes,
    } as const;
    const results = await GroupQueryAttention(given, all, { outputs: qkOutput ? 4 : 3 });
    for (const result of results) inputs.keep(result);
    const [output, presentKey, presentValue, qk] = results as [Tensor, Tensor, Tensor, Tensor?];

    const present = Math.max(total, capacity ?? 0);
    const position = (_: number, b: number, row: number) =>
      !ids ? offsets[b] + row : isPrompt ? ids[0] + row : ids[b * S + row];
    const [cos, sin] = angles;
    const expected = (["f64", "f32"] as const).map((precision) => {
      const turned = (given: ReferenceTensor, index: 0 | 1) => {
        const x = norms[index] ? normalised(given, norms[index], precision) : given;
        const options = {
          rotaryDim: problem.rotary ?? D,
          interleaved: Boolean(attributes.rotary_interleaved),
        };
        if (!cos || !sin) return x;
        return { data: rotary(x, { ...options, cos, sin, position, precision }), shape: x.shape };
      };
      const q = turned(headsOf(rows, H, 0, D), 0);
      const fresh = [
        turned(packed ? headsOf(rows, HKV, H * D, D) : headsOf(k as Input, HKV), 1),
        packed ? headsOf(rows, HKV, (H + HKV) * D, D) : headsOf(v as Input, HKV),
      ];
      const caches = fresh.map((one, index) => {
        const past = pasts[index];
        const starts = keysInPast ? keys : offsets;
        return {
          data: cached(one, past, starts, present, dtype, Boolean(shared)),
          shape: [B, HKV, present, D],
        };
      });
      const options = optionsOf(problem, offsets, bias, sink);
      const views = caches.map((one) => ({
        ...one,
        shape: [B, HKV, total, D],
        strides: [HKV * present * D, present * D, D, 1],
      }));
      const result = attention(q, views[0], views[1], { ...options, precision });
      const stage = qkOutput === 1 ? "scores" : "probabilities";
      const scores = attentionScores(q, views[0], { ...options, stage, precision });
      return {
        caches,
        output: result.output,
        scores: scores.map((s) => (s === -Infinity ? 0 : s)),
      };
    });
    const [f64, plain] = expected;
    const both = (of: (one: (typeof expected)[0]) => ArrayLike<number>) => ({
      f64: of(f64),
      plain: Float64Array.from(of(plain), ROUND[dtype]),
    });
    const what = JSON.stringify(problem);
    const heads = [B, H, S, D];
    expectClose(
      what,
      await output.read(),
      both((one) => rowsOf(one.output, heads)),
      [B, S, H * D],
      dtype,
    );
    for (const [index, made] of [presentKey, presentValue].entries()) {
      expect(made.shape).toEqual([B, HKV, present, D]);
      expectClose(
        `${what} present ${index}`,
        await made.read(),
        both((one) => one.caches[index].data),
        made.shape,
        dtype,
      );
      if (shared) expect(made).toBe(pasts[index]?.gpu);
    }
    if (qk)
      expectClose(
        `${what} qk`,
        await qk.read(),
        both((one) => one.scores),
        [B, H, S, total],
        dtype,
      );
  } finally {
    inputs.destroy();
  }
}

/** Divides rows of heads by their root mean square, and multiplies them by a weight. */
function normalised(x: ReferenceTensor, weight: Input, precision: "f64" | "f32"): ReferenceTensor {
  const [B, heads, S] = x.shape;
  const [b, h, s] = x.strides ?? [heads * S * D, S * D, D];
  const data = new Float64Array(B * heads * S * D);
  for (let row = 0; row < B * heads * S; row++) {
    const from =
      (x.offset ?? 0) +
      Math.floor(row / (heads * S)) * b +
      (Math.floor(row / S) % heads) * h +
      (row % S) * s;
    const values = Array.from({ length: D }, (_, d) => x.data[from + d]);
    data.set(rmsNorm(values, D, { weight: weight.data, precision }), row * D);
  }
  return { data, shape: x.shape };
}

/** Joins past and new rows, as they are stored. */
function cached(
  fresh: ReferenceTensor,
  past: Input | undefined,
  starts: readonly number[],
  rows: number,
  dtype: Float,
  shared: boolean,
): Float64Array {
  const [B, heads, S] = fresh.shape;
  const steps = fresh.strides ?? [heads * S * D, S * D, D, 1];
  const P = past?.shape[2] ?? 0;
  return Float64Array.from({ length: B * heads * rows * D }, (_, i) => {
    const d = i % D;
    const row = Math.floor(i / D) % rows;
    const h = Math.floor(i / (D * rows)) % heads;
    const b = Math.floor(i / (D * rows * heads));
    const fromNew = row - starts[b];
    if (fromNew >= 0 && fromNew < S) {
      return ROUND[dtype](
        fresh.data[(fresh.offset ?? 0) + b * steps[0] + h * steps[1] + fromNew * steps[2] + d],
      );
    }
    const kept = past && (fromNew < 0 || shared);
    return kept ? past.data[((b * heads + h) * P + row) * D + d] : 0;
  });
}

function optionsOf(
  problem: Case,
  offsets: readonly number[],
  bias?: Input,
  sink?: Input,
): ReferenceOptions {
  const {
    attributes: {
      causal = 1,
      local_window_size: window = -1,
      softcap,
      scale,
      smooth_softmax: smooth,
    } = {},
  } = problem;
  return {
    causal: Boolean(causal),
    queryOffset: offsets,
    kvLengths: problem.keys,
    ...(window > 0 && { window: [window - 1, 0] as const }),
    ...(softcap && { softcap }),
    ...(scale && { scale }),
    ...(bias && {
      bias: {
        ...bias,
        shape: bias.shape.with(3, Math.max(...problem.keys)),
        strides: stridesOf(bias),
      },
    }),
    ...(sink ? { sinks: sink.data } : smooth === 1 && { sinks: new Array(H).fill(0) }),
  };
}

const stridesOf = ({ shape: [, h, m, n] }: Input) => [h * m * n, m * n, n, 1];

describe("GroupQueryAttention", () => {
  it("of a first prompt, whose entries are padded at their ends", () =>
    run({ S: 4, keys: [4, 3, 1], seed: 1 }));
  it("of a first prompt into a past with more room, rotated", () =>
    run({ S: 4, keys: [4, 3], capacity: 12, rotary: D, seed: 2 }));
  it("of a token each, after pasts of different lengths", () =>
    run({ S: 1, keys: [9, 4], capacity: 9, rotary: D, seed: 3 }));
  it("of several tokens each, after pasts of different lengths", () =>
    run({
      S: 3,
      keys: [9, 4],
      capacity: 8,
      rotary: 4,
      attributes: { rotary_interleaved: 1 },
      seed: 4,
    }));
  it("with lengths and positions on the GPU", () =>
    run({
      S: 3,
      keys: [9, 6],
      capacity: 6,
      rotary: D,
      positionIds: [7, 3, 20, 0, 9, 23],
      onGpu: true,
      seed: 5,
    }));
  it("counts on from the first of a prompt's position_ids", async () => {
    const problem = { S: 3, keys: [3, 3], rotary: D, positionIds: [5, 0, 0, 0, 0, 0] };
    await run({ ...problem, seed: 6 });
    await run({ ...problem, onGpu: true, seed: 7 });
  });
  it("with heads that are normalised before they are rotated", () =>
    run({ S: 3, keys: [9, 5], capacity: 6, norm: true, rotary: D, seed: 17 }));
  it("with a packed query", () =>
    run({ S: 3, keys: [6], capacity: 4, packed: true, rotary: D, seed: 8 }));
  it.each([1, 3, 20])("in windows of %d keys, the query's own counted", (window) =>
    run({ S: 3, keys: [11, 5], capacity: 8, attributes: { local_window_size: window }, seed: 9 }),
  );
  it("capped, scaled, with biases of more keys than there are, and a sink", () =>
    run({
      S: 3,
      keys: [9, 6],
      capacity: 6,
      bias: [1, H, 3, 12],
      sink: true,
      attributes: { softcap: 2, scale: 0.4 },
      seed: 10,
    }));
  it("in both directions, and smooth", () =>
    run({
      S: 4,
      keys: [4, 2],
      bias: [1, H, 4, 4],
      attributes: { softcap: 2, causal: 0, smooth_softmax: 1 },
      seed: 11,
    }));
  it("writes into the past if that is the present", () =>
    run({
      S: 3,
      keys: [7, 5],
      capacity: 10,
      rotary: D,
      attributes: { past_present_share_buffer: 1 },
      seed: 12,
    }));
  it("looks at a past that has the new keys already", () =>
    run({ S: 3, keys: [7, 5], capacity: 7, keysInPast: true, seed: 13 }));
  it.each([1, 2])("gives scores before and after the softmax: %d", async (qk_output) => {
    const attributes = { qk_output, local_window_size: 4, softcap: 2 };
    await run({
      S: 3,
      keys: [9, 4],
      capacity: 6,
      bias: [2, 1, 3, 9],
      sink: true,
      attributes,
      seed: 14,
    });
    if (qk_output === 1)
      await run({
        S: 3,
        keys: [3, 3],
        attributes: { qk_output, causal: 0 },
        seed: 15,
      });
  });
  it("in f16", () =>
    run({
      S: 3,
      keys: [9, 4],
      capacity: 6,
      dtype: "f16",
      bias: [1, 1, 3, 9],
      sink: true,
      attributes: { softcap: 2 },
      seed: 16,
    }));

  it("is the same a token at a time as at once", async () => {
    const device = await testDevice();
    const inputs = new Inputs(device, { seed: 20 });
    const q = inputs.random([1, 4, H * D]);
    const k = inputs.random([1, 4, HKV * D]);
    const v = inputs.random([1, 4, HKV * D]);
    const heads = {
      num_heads: H,
      kv_num_heads: HKV,
      past_present_share_buffer: true,
      local_window_size: 3,
    };
    const caches = [0, 1].map(() => inputs.keep(tensor(device, [1, HKV, 8, D])));
    const tokens: number[] = [];
    for (let t = 0; t < 4; t++) {
      const rows = [q, k, v].map((x) => x.gpu.slice(1, t, t + 1));
      const [output] = await GroupQueryAttention([...rows, ...caches, [t], [t + 1]], heads);
      tokens.push(...((await inputs.keep(output as Tensor).read()) as Float32Array));
    }
    const [whole] = await GroupQueryAttention([q.gpu, k.gpu, v.gpu, null, null, [3], [4]], heads);
    const expected = await inputs.keep(whole as Tensor).read();
    expectClose("tokens", tokens, { f64: Float64Array.from(expected), plain: expected }, [
      4,
      H * D,
    ]);
    inputs.destroy();
  });

  it.each([
    [5, 3, false],
    [3, 3, true],
    [6, 2, true],
  ])(
    "has caches of %d rows for windows of %d keys, shared: %s",
    async (capacity, window, shared) => {
      const device = await testDevice();
      const inputs = new Inputs(device, { seed: 21 });
      const cos = inputs.random([MOST, D / 2]).gpu;
      const sin = inputs.random([MOST, D / 2]).gpu;
      const heads = { num_heads: H, kv_num_heads: HKV, local_window_size: window, do_rotary: true };
      const zeros = (rows: number) =>
        [0, 1].map(() => inputs.keep(tensor(device, [2, HKV, rows, D])));
      const full = zeros(16);
      let few: Tensor[] = zeros(capacity);
      let lengths = [0, 0];
      for (const [S, added] of [
        [4, [4, 2]],
        [1, [1, 1]],
        [3, [3, 3]],
        [1, [1, 1]],
        [3, [3, 3]],
      ] as const) {
        lengths = lengths.map((length, b) => length + added[b]);
        const rows = [H, HKV, HKV].map((count) => inputs.random([2, S, count * D]).gpu);
        const sizes = [lengths.map((length) => length - 1), [Math.max(...lengths)], cos, sin];
        const whole = { ...heads, past_present_share_buffer: true };
        const part = { ...heads, sliding_window_cache: true, past_present_share_buffer: shared };
        const [expected] = await GroupQueryAttention([...rows, ...full, ...sizes], whole);
        const made = await GroupQueryAttention([...rows, ...few, ...sizes], part, { outputs: 3 });
        few = made.slice(1, 3) as Tensor[];
        for (const one of [...made, expected]) inputs.keep(one);
        const f64 = await (expected as Tensor).read();
        expectClose(`${lengths}`, await (made[0] as Tensor).read(), { f64, plain: f64 }, [
          2,
          S,
          H * D,
        ]);
        for (const [index, cache] of few.entries()) {
          expect(cache.shape).toEqual([2, HKV, capacity, D]);
          for (const [b, T] of lengths.entries()) {
            const freed = capacity - window + 1;
            const L = T <= capacity ? T : T - freed * Math.ceil((T - capacity) / freed);
            expect(L).toBeGreaterThanOrEqual(Math.min(T, window));
            const entry = (of: Tensor, from: number) =>
              of
                .slice(0, b, b + 1)
                .slice(2, from, from + L)
                .read();
            expect(await entry(cache, 0), `${index} of ${T} keys`).toEqual(
              await entry(full[index], T - L),
            );
          }
        }
      }
      inputs.destroy();
    },
  );

  it("has biases of the keys that a cache of a window holds", async () => {
    const inputs = new Inputs(await testDevice(), { seed: 22 });
    const rows = [H, HKV, HKV].map((count) => inputs.random([1, 3, count * D]).gpu);
    const keys = [inputs.random([1, HKV, 6, D]).gpu, inputs.random([1, HKV, 6, D]).gpu];
    const bias = inputs.random([1, H, 3, 9]).gpu;
    const heads = { num_heads: H, kv_num_heads: HKV, local_window_size: 3, softcap: 2 };
    const rest = [[8], [9], null, null, null, bias, inputs.random([H]).gpu];
    const [expected] = await GroupQueryAttention([...rows, ...keys, ...rest], heads);
    // 4 rows hold the last 4 of 6 keys, from key 6 - 4 = 2 on
    const lasts = keys.map((all) => all.slice(2, 2, 6));
    const [output] = await GroupQueryAttention([...rows, ...lasts, ...rest], {
      ...heads,
      sliding_window_cache: 1,
    });
    const f64 = await (inputs.keep(expected) as Tensor).read();
    expectClose("biased", await (inputs.keep(output) as Tensor).read(), { f64, plain: f64 }, [
      1,
      3,
      H * D,
    ]);
    inputs.destroy();
  });
});

describe("GroupQueryAttention refuses", () => {
  it("what does not fit, by name", async () => {
    const { device, count, buffers } = counted(await testDevice());
    const inputs = new Inputs(device);
    const make = (...shape: number[]) => inputs.keep(tensor(device, shape));
    const q = make(2, 3, H * D);
    const k = make(2, 3, HKV * D);
    const cache = make(2, HKV, 5, D);
    const heads = { num_heads: H, kv_num_heads: HKV };
    const call = (attributes: Record<string, unknown>, ...given: readonly unknown[]) =>
      GroupQueryAttention(given as never, { ...heads, ...attributes } as never);
    const lengths = [[2, 2], [3]] as const;
    const cases: [Promise<unknown> | (() => unknown), string][] = [
      [() => GroupQueryAttention([q, k, k, null, null, ...lengths], {}), "attribute num_heads must be 1 or more, got undefined."],
      [() => call({ kv_num_heads: 0 }, q, k, k, null, null, ...lengths), "attribute kv_num_heads must be 1 or more, got 0."],
      [() => call({ kv_num_heads: 3 }, q, k, k, null, null, ...lengths), "num_heads must be a multiple of kv_num_heads, got 4 and 3."],
      [() => call({}, q, k, null, null, null, ...lengths), "key and value belong together; only one was given."],
      [() => call({}, make(3, 4), k, k, null, null, ...lengths), "query must be [B, S, H * D], got [3,4]."],
      [() => call({}, make(2, 3, 31), k, k, null, null, ...lengths), "query [2,3,31] can't be split into num_heads = 4."],
      [() => call({}, make(2, 3, 65), null, null, null, null, ...lengths), "query [2,3,65] without key must be packed, [B, S, (H + 2 Hkv) * D] with H + 2 Hkv = 8."],
      [() => call({}, q, k, make(2, 3, 9), null, null, ...lengths), "value must be [B, S, Hkv * D] = [2,3,16], got [2,3,9]."],
      [() => call({}, q, k, k, cache, null, ...lengths), "past_key and past_value belong together; only one was given."],
      [() => call({}, q, k, k, cache, make(2, HKV, 4, D), ...lengths), "past_value must be [B, Hkv, P, D], as past_key has it, = [2,2,5,8], got [2,2,4,8]."],
      [() => call({}, q, k, k, null, null, [2, 2], [3, 3]), "total_sequence_length must be one whole number, got 3,3."],
      [() => call({}, q, k, k, null, null, [2, 3], [3]), "seqlens_k must be 2 whole numbers from 0 to 2, the keys of each entry less one (S = 3, total_sequence_length = 3), got 2,3."],
      [() => call({}, q, k, k, cache, cache, [1, 4], [5]), "seqlens_k must be 2 whole numbers from 2 to 4, the keys of each entry less one (S = 3, total_sequence_length = 5), got 1,4."],
      [() => call({}, q, k, k, null, null, [2, 4], [5]), "past_key must have the 2 rows that seqlens_k and total_sequence_length say are there, got none."],
      [() => call({}, q, k, k, cache, cache, [9, 9], [10]), "past_key must have the 7 rows that seqlens_k and total_sequence_length say are there, got [2,2,5,8]."],
      [() => call({ local_window_size: 0 }, q, k, k, null, null, ...lengths), "attribute local_window_size must be -1, or 1 or more where causal is 1, got 0."],
      [() => call({ local_window_size: 2, causal: 0 }, q, k, k, null, null, ...lengths), "attribute local_window_size must be -1, or 1 or more where causal is 1, got 2."],
      [() => call({ softcap: -1 }, q, k, k, null, null, ...lengths), "attribute softcap must be 0 for none, or more, got -1."],
      [() => call({ qk_output: 3 }, q, k, k, null, null, ...lengths), "attribute qk_output must be 0, 1 or 2, got 3."],
      [() => GroupQueryAttention([q, k, k, null, null, ...lengths], heads, { outputs: 4 }), "output_qk needs attribute qk_output: 1 for scores, 2 for probabilities."],
      [() => call({ do_rotary: 1 }, q, k, k, null, null, ...lengths), "cos_cache and sin_cache are required where do_rotary is 1."],
      [() => call({ sliding_window_cache: 1 }, q, k, k, null, null, ...lengths), "attribute sliding_window_cache needs a local_window_size."],
      [() => call({ sliding_window_cache: 1, local_window_size: 6 }, q, k, k, cache, cache, ...lengths), "attribute sliding_window_cache needs keys of all new tokens, and a past_key of at least local_window_size = 6 rows, got 3 tokens and [2,2,5,8]."],
      [() => call({ sliding_window_cache: 1, local_window_size: 4 }, q, k, k, cache, cache, [5, 8], [9], null, null, null, make(1, 1, 3, 9)), "attention_bias needs pasts that begin at the same key where sliding_window_cache is 1, got keys 0,2."],
      [() => GroupQueryAttention([q, k, k, cache, cache, ...lengths], { ...heads, qk_output: 2, local_window_size: 4, sliding_window_cache: 1 }, { outputs: 4 }), "output_qk is not to be had where sliding_window_cache is 1."],
      [() => call({ k_quant_type: "PER_TENSOR" }, q, k, k, null, null, ...lengths), 'attribute k_quant_type must be "NONE", got "PER_TENSOR"; createKvCache has quantised caches.'],
      [() => call({}, q, k, k, null, null, ...lengths, null, null, null, null, null, null, make(1)), "v_scale is of quantised caches, which are not taken; createKvCache has them."],
      [() => call({}, q, k, k, null, null, ...lengths, null, null, null, make(2, H, 3, 2)), "attention_bias must be [B or 1, H or 1, S, T] = [2,4,3,3], got [2,4,3,2]."],
      [() => call({}, q, k, k, null, null, ...lengths, null, null, null, null, make(3)), "head_sink must be [H] = [4], got [3]."],
    ]; // biome-ignore format: a table
    for (const [work, message] of cases) {
      await expectError(
        work as () => unknown,
        "argument",
        `com.microsoft.GroupQueryAttention: ${message}`,
      );
    }
    // all was refused before the GPU saw anything
    expect(count).toMatchObject({ pipelines: 0, submits: 0 });
    inputs.destroy();
    expect(buffers()).toBe(0);
  });
});
