// com.microsoft Attention, MultiHeadAttention, their packed forms and DecoderAttention against the
// float64 reference: masks of every shape, pasts, packings.

import { afterAll, describe, expect, it } from "vitest";
import type { Tensor } from "../../src/index.ts";
import {
  DecoderAttention,
  MicrosoftAttention,
  MultiHeadAttention,
  PackedAttention,
  PackedMultiHeadAttention,
} from "../../src/interop/onnx/index.ts";
import {
  attention,
  attentionScores,
  project,
  type ReferenceTensor,
  rotary,
} from "../../src/reference/index.ts";
import { expectClose } from "../support/closeness.ts";
import { counted } from "../support/counted.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import { headsOf, type Input, Inputs, rowsOf } from "../support/operators.ts";

failOnGpuErrors();

const B = 3;
const S = 3;
const H = 2;
const D = 8;
const E = H * D;
type Precision = "f64" | "f32";
const PRECISIONS = ["f64", "f32"] as const;

/** A problem of attention. All heads are [B, H, rows, D]. */
interface Problem {
  readonly q: ReferenceTensor;
  readonly k: ReferenceTensor;
  readonly v: ReferenceTensor;
  /** Rows before k and v. */
  readonly past?: readonly [k: ReferenceTensor, v: ReferenceTensor];
  readonly causal?: boolean;
  readonly scale?: number;
  /** What is added to scores. */
  readonly bias?: (b: number, h: number, s: number, t: number) => number;
}

/**
 * Computes output rows, scores and presents of the problem that `problem` returns for a precision.
 */
function expected(problem: (precision: Precision) => Problem) {
  return PRECISIONS.map((precision) => {
    const { q, k, v, past, causal = false, scale, bias } = problem(precision);
    const [all, values] = [k, v].map((rows, index) => concat(past?.[index], rows));
    const [batch, heads, rows] = q.shape;
    const keys = all.shape[2];
    const biases = Float64Array.from({ length: batch * heads * rows * keys }, (_, i) => {
      const t = i % keys;
      const s = Math.floor(i / keys) % rows;
      const h = Math.floor(i / (keys * rows)) % heads;
      return bias?.(Math.floor(i / (keys * rows * heads)), h, s, t) ?? 0;
    });
    const options = {
      causal,
      precision,
      bias: { data: biases, shape: [batch, heads, rows, keys] },
      ...(scale && { scale }),
    };
    const { output } = attention(q, all, values, options);
    const scores = attentionScores(q, all, { ...options, stage: "scores" });
    return {
      output: rowsOf(output, [batch, heads, rows, values.shape[3]]),
      scores,
      k: all,
      v: values,
    };
  });
}

/** Joins past and rows [B, H, rows, D]. */
function concat(past: ReferenceTensor | undefined, rows: ReferenceTensor) {
  const [batch, heads, count, width] = rows.shape;
  const P = past?.shape[2] ?? 0;
  const N = P + count;
  const value = (one: ReferenceTensor, b: number, h: number, row: number, d: number) => {
    const [, , n, D] = one.shape;
    const [sb, sh, sn, sd] = one.strides ?? [heads * n * D, n * D, D, 1];
    return one.data[(one.offset ?? 0) + b * sb + h * sh + row * sn + d * sd];
  };
  const data = Float64Array.from({ length: batch * heads * N * width }, (_, i) => {
    const d = i % width;
    const row = Math.floor(i / width) % N;
    const h = Math.floor(i / (width * N)) % heads;
    const b = Math.floor(i / (width * N * heads));
    if (past && row < P) return value(past, b, h, row, d);
    return value(rows, b, h, row - P, d);
  });
  return { data, shape: [batch, heads, N, width] };
}

/** Compares a result with one that {@link expected} returns. */
async function compare<T>(
  what: string,
  actual: Tensor | undefined,
  results: readonly T[],
  of: (one: T) => ArrayLike<number>,
  shape: readonly number[],
): Promise<void> {
  expect((actual as Tensor).shape).toEqual(shape);
  expectClose(
    what,
    await (actual as Tensor).read(),
    { f64: of(results[0]), plain: of(results[1]) },
    shape,
  );
}

const all: Inputs[] = [];
async function inputsOf(seed: number): Promise<Inputs> {
  const inputs = new Inputs(await testDevice(), { seed });
  all.push(inputs);
  return inputs;
}
afterAll(() => {
  for (const inputs of all) inputs.destroy();
});
const keep = (inputs: Inputs, results: readonly (Tensor | undefined)[]) =>
  results.map((result) => inputs.keep(result));

/** Adds a part of a bias to rows, rounded as the GPU has it. */
function plus({ data, shape }: Input, bias: Input, from: number, precision: Precision): Input {
  const width = shape[shape.length - 1];
  const round = precision === "f32" ? Math.fround : (x: number) => x;
  const gpu = undefined as never;
  return {
    shape,
    gpu,
    data: Float64Array.from(data, (x, i) => round(x + bias.data[from + (i % width)])),
  };
}

const P = 2;
const T = P + S;
/** Masks of T = 5 keys, of which 2 are past, by shape; \`counts\` says what each means. */
const MASKS: readonly (readonly [
  shape: readonly number[],
  values: (index: number) => number,
  counts: (b: number, s: number, t: number) => boolean,
])[] = [
  [[B], (b) => [5, 2, 0][b], (b, _, t) => t < [5, 2, 0][b]],
  [[2 * B], (i) => [5, 9, 3, 0, 2, 3][i], (b, _, t) => t < [5, 9, 3][b] && t >= [0, 2, 3][b]],
  [[3 * B + 2], (i) => [5, 1, 3, 0, 3, 6, 9, 0, 5, 10, 15][i], (b, _, t) => t < [5, 1, 3][b]],
  [[B, T], (i) => Number(i % 3 !== 1 && i < 10), (b, _, t) => (b * T + t) % 3 !== 1 && b < 2],
  [[B, S], (i) => Number(i % 3 !== 1), (_, __, t) => t < P || (t - P) % 3 !== 1],
  [[B, S, T], (i) => Number(i % 4 !== 0), (b, s, t) => (b * S * T + s * T + t) % 4 !== 0],
  [[B, 1, 7, 7], (i) => Number(i % 5 !== 0), (b, s, t) => (b * 49 + (P + s) * 7 + t) % 5 !== 0],
  [[B, 1], () => 0, () => true],
];

describe("a mask of com.microsoft", () => {
  const cases = MASKS.flatMap((mask) => [
    ["i32", ...mask] as const,
    ...(mask[0].length > 1 ? [["u8", ...mask] as const] : []),
  ]);
  it.each(cases)(
    "%s [%s] adds a finite value to what it masks",
    async (dtype, shape, values, counts) => {
      const inputs = await inputsOf(1);
      const [q, k, v] = [0, 1, 2].map(() => inputs.random([B, S, E]));
      const past = [inputs.random([B, H, P, D]), inputs.random([B, H, P, D])] as const;
      const count = shape.reduce((product, size) => product * size, 1);
      // The mask lies in the middle of its buffer: i32 after a place at which bindings may begin,
      // u8 before the first one.
      const before = new Array(67).fill(1);
      const padded = [...before, ...Array.from({ length: count }, (_, i) => values(i))];
      const mask = inputs
        .given([padded.length], padded, dtype)
        .gpu.view({ shape, offset: before.length });
      const filter = -50; // so small that masked keys still count
      const given = [q.gpu, k.gpu, v.gpu, null, mask, null, past[0].gpu, past[1].gpu];
      const [output] = keep(
        inputs,
        await MultiHeadAttention(given, { num_heads: H, mask_filter_value: filter }),
      );
      const results = expected(() => ({
        q: headsOf(q, H),
        k: headsOf(k, H),
        v: headsOf(v, H),
        past,
        bias: (b, _, s, t) => (counts(b, s, t) ? 0 : filter),
      }));
      await compare(`mask [${shape}]`, output, results, (one) => one.output, [B, S, E]);
    },
  );

  it("of numbers, by which all keys of an entry are padding, masks none of them", async () => {
    const inputs = await inputsOf(2);
    const [q, k, v] = [0, 1, 2].map(() => inputs.random([B, S, E]));
    const [output] = keep(
      inputs,
      await MultiHeadAttention([q.gpu, k.gpu, v.gpu, null, [3, 0, 2]], { num_heads: H }),
    );
    const bias = (b: number, _: number, __: number, t: number) => (t < [3, 0, 2][b] ? 0 : -10_000);
    const results = expected(() => ({
      q: headsOf(q, H),
      k: headsOf(k, H),
      v: headsOf(v, H),
      bias,
    }));
    await compare("no word", output, results, (one) => one.output, [B, S, E]);
  });
});

it("MultiHeadAttention adds key and value [B, H, L, D] to a past", async () => {
  const inputs = await inputsOf(31);
  const q = inputs.random([B, S, E]);
  const k = inputs.random([B, H, S, D]);
  const v = inputs.random([B, H, S, D]);
  const past = [inputs.random([B, H, P, D]), inputs.random([B, H, P, D])] as const;
  const given = [q.gpu, k.gpu, v.gpu, null, null, null, past[0].gpu, past[1].gpu];
  const attributes = { num_heads: H, unidirectional: 1 } as const;
  const results = keep(inputs, await MultiHeadAttention(given, attributes, { outputs: 3 }));
  const all = expected(() => ({ q: headsOf(q, H), k, v, past, causal: true }));
  await compare("output", results[0], all, (one) => one.output, [B, S, E]);
  await compare("present_key", results[1], all, (one) => one.k.data, [B, H, T, D]);
  await compare("present_value", results[2], all, (one) => one.v.data, [B, H, T, D]);
});

describe("MultiHeadAttention", () => {
  it("adds biases, keeps a past, and gives scores", async () => {
    const inputs = await inputsOf(3);
    const q = inputs.random([B, S, E]);
    const k = inputs.random([B, S, E]);
    const v = inputs.random([B, S, E]);
    const bias = inputs.random([3 * E]);
    const past = [inputs.random([B, H, P, D]), inputs.random([B, H, P, D])] as const;
    const scores = inputs.random([1, H, S, T]);
    const given = [q.gpu, k.gpu, v.gpu, bias.gpu, null, scores.gpu, past[0].gpu, past[1].gpu];
    const attributes = { num_heads: H, unidirectional: 1, scale: 0.3 } as const;
    const made = keep(inputs, await MultiHeadAttention(given, attributes, { outputs: 4 }));
    const results = expected((precision) => ({
      q: headsOf(plus(q, bias, 0, precision), H),
      k: headsOf(plus(k, bias, E, precision), H),
      v: headsOf(plus(v, bias, 2 * E, precision), H),
      past,
      causal: true,
      scale: 0.3,
      bias: (_, h, s, t) => scores.data[(h * S + s) * T + t],
    }));
    await compare("output", made[0], results, (one) => one.output, [B, S, E]);
    await compare("present key", made[1], results, (one) => one.k.data, [B, H, T, D]);
    await compare("present value", made[2], results, (one) => one.v.data, [B, H, T, D]);
    // -Infinity is left out, since it has no error
    const seen = (one: (typeof results)[0]) => one.scores.map((s) => Math.max(s, -1e4));
    const qk = (await made[3]?.read()) as Float32Array;
    const [f64, plain] = results.map(seen);
    expectClose(
      "qk",
      qk.map((s) => Math.max(s, -1e4)),
      { f64, plain },
      [B, H, S, T],
    );
  });

  it("takes q, k and v however they are packed", async () => {
    const inputs = await inputsOf(4);
    const bias = inputs.random([3 * E]);
    const packed = inputs.random([B, S, H, 3, D]);
    const part = (from: Input, count: number, index: number) => {
      const steps = [S * H * count * D, count * D, H * count * D, 1];
      return { data: from.data, shape: [B, H, S, D], strides: steps, offset: index * D };
    };
    const heads = { num_heads: H };
    const [alone] = keep(
      inputs,
      await MultiHeadAttention([packed.gpu, null, null, bias.gpu], heads),
    );
    const added = (from: number, precision: Precision): Input => {
      const rows = { data: concat(undefined, part(packed, 3, from / E)).data, shape: [B, H, S, D] };
      const wide = {
        shape: [B, S, E],
        data: rowsOf(rows.data, rows.shape),
        gpu: undefined as never,
      };
      return plus(wide, bias, from, precision);
    };
    const results = expected((precision) => ({
      q: headsOf(added(0, precision), H),
      k: headsOf(added(E, precision), H),
      v: headsOf(added(2 * E, precision), H),
    }));
    await compare("packed", alone, results, (one) => one.output, [B, S, E]);

    const q = inputs.random([B, S, E]);
    const kv = inputs.random([B, S, H, 2, D]);
    const [both] = keep(inputs, await MultiHeadAttention([q.gpu, kv.gpu], heads));
    const ofBoth = expected(() => ({ q: headsOf(q, H), k: part(kv, 2, 0), v: part(kv, 2, 1) }));
    await compare("packed keys and values", both, ofBoth, (one) => one.output, [B, S, E]);

    const k = inputs.random([B, H, S, D]);
    const v = inputs.random([B, H, S, D]);
    const made = keep(
      inputs,
      await MultiHeadAttention([q.gpu, k.gpu, v.gpu], heads, { outputs: 2 }),
    );
    const ofHeads = expected(() => ({ q: headsOf(q, H), k, v }));
    await compare("heads", made[0], ofHeads, (one) => one.output, [B, S, E]);
    await compare("their present", made[1], ofHeads, () => k.data, k.shape);
    expect(made[1]?.buffer).not.toBe(k.gpu.buffer);
  });

  it("writes into a past with room if past_sequence_length says how much of it counts", async () => {
    const inputs = await inputsOf(5);
    const [q, k, v] = [0, 1, 2].map(() => inputs.random([B, S, E]));
    const past = [inputs.random([B, H, 9, D]), inputs.random([B, H, 9, D])] as const;
    const given = [q.gpu, k.gpu, v.gpu, null, null, null, past[0].gpu, past[1].gpu, [P]];
    const made = await MultiHeadAttention(
      given,
      { num_heads: H, unidirectional: 1 },
      { outputs: 3 },
    );
    inputs.keep(made[0]);
    const used = past.map(({ data }) => ({
      data,
      shape: [B, H, P, D],
      strides: [H * 9 * D, 9 * D, D, 1],
    }));
    const results = expected(() => ({
      q: headsOf(q, H),
      k: headsOf(k, H),
      v: headsOf(v, H),
      past: [used[0], used[1]],
      causal: true,
    }));
    await compare("output", made[0], results, (one) => one.output, [B, S, E]);
    expect(made[1]).toBe(past[0].gpu);
    expect(made[2]).toBe(past[1].gpu);
    const written = (await past[0].gpu.read()) as Float32Array;
    const [first] = results;
    expect(Array.from(written.subarray(0, T * D))).toEqual(
      Array.from(first.k.data.subarray(0, T * D)),
    );
    expect(Array.from(written.subarray(T * D, 9 * D))).toEqual(
      Array.from(past[0].data).slice(T * D, 9 * D),
    );
  });
});

/** Multiplies x [rows..., E] by weights [E, W], stored that way, and adds a bias. */
function projected(x: Input, weights: Input, bias: Input | undefined, precision: Precision): Input {
  const [inner, W] = weights.shape;
  const stored = { data: weights.data, shape: [W, inner], strides: [1, W] };
  const data = project(x, stored, bias && { data: bias.data, shape: [W] }, { precision });
  return { data, shape: [...x.shape.slice(0, -1), W], gpu: undefined as never };
}

describe("MicrosoftAttention", () => {
  it.each([false, true])(
    "projects, rotates, and keeps a past, that it shares: %s",
    async (shared) => {
      const inputs = await inputsOf(6);
      const x = inputs.random([B, S, 12]);
      const weights = inputs.random([12, 3 * E], 0.3);
      const bias = inputs.random([3 * E]);
      const room = shared ? 9 : P;
      const past = inputs.random([2, B, H, room, D]);
      const attributes = {
        num_heads: H,
        unidirectional: true,
        do_rotary: true,
        rotary_embedding_dim: 6,
        past_present_share_buffer: shared,
        mask_filter_value: -50,
      } as const;
      const mask = { ends: [5, 4, 3], begins: [0, 2, 1] };
      const given = [
        x.gpu,
        weights.gpu,
        bias.gpu,
        [...mask.ends, ...mask.begins],
        past.gpu,
        null,
        [P],
      ];
      const made = await MicrosoftAttention(given, attributes, { outputs: 2 });
      inputs.keep(made[0]);
      if (!shared) inputs.keep(made[1]);
      const results = expected((precision) => {
        const rows = projected(x, weights, bias, precision);
        const turned = (from: number) => {
          const position = (_: number, __: number, row: number) => P + row;
          const heads = headsOf(rows, H, from, D);
          return { shape: heads.shape, data: rotary(heads, { rotaryDim: 6, position, precision }) };
        };
        const pastOf = (index: number) => {
          const strides = [H * room * D, room * D, D, 1];
          return {
            data: past.data,
            shape: [B, H, P, D],
            strides,
            offset: index * B * H * room * D,
          };
        };
        return {
          q: turned(0),
          k: turned(E),
          v: headsOf(rows, H, 2 * E, D),
          past: [pastOf(0), pastOf(1)],
          causal: true,
          bias: (b, _, __, t) => (t < mask.ends[b] && t >= mask.begins[b] ? 0 : -50),
        };
      });
      await compare("output", made[0], results, (one) => one.output, [B, S, E]);
      expect(made[1]?.shape).toEqual([2, B, H, shared ? 9 : T, D]);
      const present = (made[1] as Tensor).slice(3, 0, T);
      const both = (one: (typeof results)[0]) => Float64Array.of(...one.k.data, ...one.v.data);
      await compare("present", present, results, both, [2, B, H, T, D]);
      if (shared) expect(made[1]).toBe(past.gpu);
    },
  );

  it("has values of another width, and no bias", async () => {
    const inputs = await inputsOf(7);
    const x = inputs.random([B, S, 12]);
    const weights = inputs.random([12, 4 * E], 0.3);
    const scores = inputs.random([B, 1, S, S]);
    const sizes = { num_heads: H, qkv_hidden_sizes: [E, E, 2 * E] };
    const given = [x.gpu, weights.gpu, null, null, null, scores.gpu];
    const [output] = keep(inputs, await MicrosoftAttention(given, sizes));
    const results = expected((precision) => {
      const rows = projected(x, weights, undefined, precision);
      return {
        q: headsOf(rows, H, 0, D),
        k: headsOf(rows, H, E, D),
        v: headsOf(rows, H, 2 * E, 2 * D),
        bias: (b, _, s, t) => scores.data[(b * S + s) * S + t],
      };
    });
    await compare("output", output, results, (one) => one.output, [B, S, 2 * E]);
  });
});

describe("sequences one after the other", () => {
  const lengths = [2, 0, 4];
  const starts = [0, 2, 2, 6];
  const PADDED = 5;

  /** Computes output rows [tokens, E] of sequences of rows [1, tokens, ...]. */
  function expectedOf(rows: (precision: Precision) => readonly Input[], bias?: Input) {
    return PRECISIONS.map((precision) => {
      const heads = rows(precision).map((one) => headsOf(one, H));
      const biases = bias && {
        data: bias.data,
        shape: bias.shape,
        strides: [H * 25, 25, PADDED, 1],
      };
      const output = new Float64Array(6 * E);
      for (const [b, length] of lengths.entries()) {
        const [q, k, v] = heads.map((one) => ({
          ...one,
          shape: [1, H, length, D],
          offset: one.offset + starts[b] * one.strides[2],
        }));
        const own = biases && { ...biases, shape: [1, H, length, length], offset: b * H * 25 };
        if (length === 0) continue;
        const part = attention(q, k, v, { precision, ...(own && { bias: own }) }).output;
        output.set(rowsOf(part, [1, H, length, D]), starts[b] * E);
      }
      return output;
    });
  }

  it("are projected and attended to by PackedAttention", async () => {
    const inputs = await inputsOf(8);
    const x = inputs.random([6, 12]);
    const weights = inputs.random([12, 3 * E], 0.3);
    const bias = inputs.random([3 * E]);
    const offsets = inputs.given([3, PADDED], new Array(15).fill(0), "i32");
    const scores = inputs.random([3, H, PADDED, PADDED]);
    const results = expectedOf((precision) => {
      const rows = projected({ ...x, shape: [1, 6, 12] }, weights, bias, precision).data;
      return [0, 1, 2].map((part) => ({
        shape: [1, 6, E],
        gpu: undefined as never,
        data: Float64Array.from(
          { length: 6 * E },
          (_, i) => rows[Math.floor(i / E) * 3 * E + part * E + (i % E)],
        ),
      }));
    }, scores);
    for (const ends of [starts, inputs.given([4], starts, "i32").gpu]) {
      const given = [x.gpu, weights.gpu, bias.gpu, offsets.gpu, ends, scores.gpu];
      const [output] = keep(inputs, await PackedAttention(given, { num_heads: H }));
      await compare("packed", output, results, (one) => one, [6, E]);
    }
  });

  it("are attended to by PackedMultiHeadAttention, with biases, or packed", async () => {
    const inputs = await inputsOf(9);
    const [q, k, v] = [0, 1, 2].map(() => inputs.random([6, E]));
    const bias = inputs.random([3 * E]);
    const offsets = new Array(15).fill(0);
    const heads = { num_heads: H };
    const given = [q.gpu, k.gpu, v.gpu, bias.gpu, offsets, starts];
    const [output] = keep(inputs, await PackedMultiHeadAttention(given, heads));
    const wide = (x: Input): Input => ({ ...x, shape: [1, 6, E] });
    const results = expectedOf((precision) =>
      [q, k, v].map((x, part) => plus(wide(x), bias, part * E, precision)),
    );
    await compare("apart", output, results, (one) => one, [6, E]);

    const packed = inputs.random([6, H, 3, D]);
    const [alone] = keep(
      inputs,
      await PackedMultiHeadAttention([packed.gpu, null, null, null, offsets, starts], heads),
    );
    const part = (index: number): Input => ({
      shape: [1, 6, E],
      gpu: undefined as never,
      data: Float64Array.from({ length: 6 * E }, (_, i) => {
        const d = i % D;
        const h = Math.floor(i / D) % H;
        const token = Math.floor(i / E);
        return packed.data[((token * H + h) * 3 + index) * D + d];
      }),
    });
    const ofPacked = expectedOf(() => [part(0), part(1), part(2)]);
    await compare("packed", alone, ofPacked, (one) => one, [6, E]);
  });
});

describe("DecoderAttention", () => {
  it.each([
    [0, 0],
    [0, 1],
    [1, 0],
    [1, 1],
  ])("static_kv: %d, use_past: %d", async (isStatic, usesPast) => {
    const inputs = await inputsOf(10);
    const L = 4;
    const query = inputs.random([S, B, E]);
    const key = inputs.random([L, B, E]);
    const qWeight = inputs.random([E, E], 0.3);
    const kvWeight = inputs.random([E, 2 * E], 0.3);
    const bias = inputs.random([3 * E]);
    const caches = [inputs.random([B, H, P, D]), inputs.random([B, H, P, D])];
    const keys = isStatic ? (usesPast ? P : L) : usesPast ? P + S : S;
    const padding = inputs.given(
      [B, keys],
      Array.from({ length: B * keys }, (_, i) => Number(i % 3 === 1)),
      "u8",
    );
    const flags = [isStatic, usesPast, 1].map((flag) => [flag]);
    const onGpu = inputs.given([1], [1], "u8").gpu;
    const given = [query, key, qWeight, kvWeight, bias, padding, ...caches].map(({ gpu }) => gpu);
    const attributes = { num_heads: H, mask_filter_value: -50 };
    const made = keep(
      inputs,
      await DecoderAttention([...given, ...flags, onGpu], attributes, { outputs: 3 }),
    );
    const results = expected((precision) => {
      const first = (x: Input, count: number): Input => ({
        shape: [B, count, E],
        gpu: undefined as never,
        data: Float64Array.from({ length: B * count * E }, (_, i) => {
          const e = i % E;
          const row = Math.floor(i / E) % count;
          const b = Math.floor(i / (E * count));
          return x.data[(row * B + b) * E + e];
        }),
      });
      const [from, count] = isStatic ? [key, L] : [query, S];
      const biasOf = (begin: number) => ({ ...bias, data: Array.from(bias.data).slice(begin) });
      const kv = projected(first(from, count), kvWeight, biasOf(E), precision);
      const added = isStatic && usesPast ? 0 : count;
      const rows = (begin: number) => ({ ...headsOf(kv, H, begin, D), shape: [B, H, added, D] });
      return {
        q: headsOf(projected(first(query, S), qWeight, { ...biasOf(0), shape: [E] }, precision), H),
        k: rows(0),
        v: rows(E),
        ...(usesPast && { past: [caches[0], caches[1]] as const }),
        bias: (b, _, __, t) => ((b * keys + t) % 3 === 1 ? -50 : 0),
      };
    });
    const batchFirst = (made[0] as Tensor).permute(1, 0, 2);
    expect(made[0]?.shape).toEqual([S, B, E]);
    await compare("output", batchFirst, results, (one) => one.output, [B, S, E]);
    await compare("new key cache", made[1], results, (one) => one.k.data, [B, H, keys, D]);
    await compare("new value cache", made[2], results, (one) => one.v.data, [B, H, keys, D]);
  });
});

describe("what does not fit is refused, by name", () => {
  it("of all five", async () => {
    const { device, count, buffers } = counted(await testDevice());
    const inputs = new Inputs(device);
    const make = (...shape: number[]) => inputs.random(shape).gpu;
    const x = make(2, 3, 12);
    const w = make(12, 48);
    const q = make(2, 3, 16);
    const i32 = (...shape: number[]) =>
      inputs.given(shape, new Array(shape.reduce((a, b) => a * b)).fill(1), "i32").gpu;
    const heads = { num_heads: 2 };
    const tokens = make(6, 16);
    const cache = make(3, 2, 4, 8);
    const decoder = [make(3, 2, 16), make(4, 2, 16), make(16, 16), make(16, 32), make(48)];
    const off = [[0], [0], [0], [0]] as const;
    const cases: [() => unknown, string][] = [
      [() => MicrosoftAttention([x, w]), "Attention: attribute num_heads must be 1 or more, got undefined."],
      [() => MicrosoftAttention([w, w], heads), "Attention: input must be [B, S, input hidden size], got [12,48]."],
      [() => MicrosoftAttention([x, q], heads), "Attention: weights must be [input hidden size, q + k + v], got [2,3,16]."],
      [() => MicrosoftAttention([x, make(12, 50)], heads), "Attention: weights [12,50] are no q, k and v of one width for num_heads = 2; qkv_hidden_sizes says others."],
      [() => MicrosoftAttention([x, make(13, 48)], heads), "Attention: weights must have as many rows as input [2,3,12] has columns, got [13,48]."],
      [() => MicrosoftAttention([x, w, make(3)], heads), "Attention: bias must be [q + k + v] = [48], got [3]."],
      [() => MicrosoftAttention([x, w], { ...heads, qkv_hidden_sizes: [8, 16, 24] }), "Attention: attribute qkv_hidden_sizes must be three multiples of num_heads = 2, the first two alike, got [8,16,24]."],
      [() => MicrosoftAttention([x, w], { ...heads, qkv_hidden_sizes: [16, 16, 18] }), "Attention: attribute qkv_hidden_sizes [16,16,18] must add up to the 48 columns of weights."],
      [() => MicrosoftAttention([x, w, null, null, make(2, 2, 2, 4, 7)], heads), "Attention: past must be [2, B, H, P, D] = [2,2,2,4,8], got [2,2,2,4,7]."],
      [() => MicrosoftAttention([x, w], { ...heads, qkv_hidden_sizes: [12, 12, 24] }, { outputs: 2 }), "Attention: past and present need q, k and v of one width, got qkv_hidden_sizes [12,12,24]."],
      [() => MicrosoftAttention([x, w, null, null, make(2, 2, 2, 4, 8), null, [2]], { ...heads, past_present_share_buffer: 1 }), "Attention: past_sequence_length must be one whole number from 0 to 1, so that 3 new rows fit into past [2,2,2,4,8], got 2."],
      [() => MicrosoftAttention([x, w, null, make(2)], heads), "Attention: mask_index must be i32, got f32 [2]."],
      [() => MicrosoftAttention([x, w, null, i32(2, 4)], heads), "Attention: mask_index must be [B], [2B], [3B + 2], [B, T], [B, L], [B, S, T] or [B, 1, N, N] with N >= T, for B = 2, S = 3, L = 3, T = 3; got [2,4]."],
      [() => MicrosoftAttention([x, w, null, null, null, make(2, 2, 3, 4)], heads), "Attention: attention_bias must be [B or 1, H or 1, S, T] = [2,2,3,3], got [2,2,3,4]."],
      [() => MultiHeadAttention([q], heads), "MultiHeadAttention: query must be packed, [B, S, H, 3, D] with H = 2, where key is left out, and value left out, too; got [2,3,16]."],
      [() => MultiHeadAttention([q, q], heads), "MultiHeadAttention: value is required where key is [2,3,16]."],
      [() => MultiHeadAttention([make(2, 3, 15), q, q], heads), "MultiHeadAttention: query [2,3,15] can't be split into num_heads = 2."],
      [() => MultiHeadAttention([q, make(2, 3, 14), q], heads), "MultiHeadAttention: key must be [B, L, H * D], as query has them, = [2,3,16], got [2,3,14]."],
      [() => MultiHeadAttention([q, q, make(2, 4, 16)], heads), "MultiHeadAttention: value must be [B, L, H * Dv] = [2,3,16], got [2,4,16]."],
      [() => MultiHeadAttention([q, make(2, 3, 2, 2, 8), q], heads), "MultiHeadAttention: value must be left out where key is packed, [B, L, H, 2, D]."],
      [() => MultiHeadAttention([q, q, q, null, null, null, make(2, 2, 4, 8)], heads), "MultiHeadAttention: past_key and past_value belong together; only one was given."],
      [() => MultiHeadAttention([q, make(2, 2, 3, 8), make(2, 2, 3, 8), make(48)], heads), "MultiHeadAttention: bias doesn't go with key and value [B, H, L, D], which have theirs."],
      [() => MultiHeadAttention([q, q, q, null, null, null, null, null, null, i32(2)], heads), "MultiHeadAttention: cache_indirection is not taken; put the beams in order yourself."],
      [() => PackedAttention([make(6, 12), w, make(48), i32(2, 2), [0, 2, 6]], heads), "PackedAttention: token_offset must be [B, S] with S at least the longest of the sequences, got S = 2 for cumulative_sequence_length 0,2,6."],
      [() => PackedAttention([make(6, 12), w, make(48), i32(3, 2), [0, 2, 6]], heads), "PackedAttention: token_offset must be [B, S], with B one less than cumulative_sequence_length has, = [2,2], got [3,2]."],
      [() => PackedMultiHeadAttention([tokens, null, null, null, i32(2, 5), [0, 2, 6]], heads), "PackedMultiHeadAttention: query must be packed, [tokens, H, 3, D] with H = 2, where key is left out, and value left out, too; got [6,16]."],
      [() => PackedMultiHeadAttention([tokens, make(5, 16), tokens, null, i32(2, 5), [0, 2, 6]], heads), "PackedMultiHeadAttention: key must be [tokens, H * D], as query is, = [6,16], got [5,16]."],
      [() => DecoderAttention([...decoder, null, null, null, [0], [1], [1], [0]], heads), "DecoderAttention: key_cache and value_cache are required where use_past and has_layer_state are true."],
      [() => DecoderAttention([...decoder, null, cache, cache, [0], [1], [1], [0]], heads), "DecoderAttention: key_cache must be [B, H, P, D] = [2,2,4,8], got [3,2,4,8]."],
      [() => DecoderAttention([...decoder, null, null, null, [0], [1], [0], [1]], heads), "DecoderAttention: key_padding_mask is required where has_key_padding_mask is true."],
      [() => DecoderAttention([...decoder, null, null, null, [0, 1], ...off.slice(1)], heads), "DecoderAttention: static_kv must be one flag, got 2."],
    ]; // biome-ignore format: a table
    for (const [work, message] of cases)
      await expectError(work, "argument", `com.microsoft.${message}`);
    // all was refused before the GPU saw anything
    expect(count).toMatchObject({ pipelines: 0, submits: 0 });
    inputs.destroy();
    expect(buffers()).toBe(0);
  });
});
