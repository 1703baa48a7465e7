// ONNX Runtime's rotary embeddings and position biases, and linear attention, in cases that no
// vector of another suite has.

import { describe, expect, it } from "vitest";
import { splitHeads, type Tensor, t5Buckets, tensor } from "../../src/index.ts";
import {
  GatedRelativePositionBias,
  LinearAttention,
  MicrosoftLinearAttention,
  MicrosoftRotaryEmbedding,
  MRotaryEmbedding,
  RelativePositionBias,
} from "../../src/interop/onnx/index.ts";
import {
  type ReferenceTensor,
  rotary as reference,
  linearAttention as referenceLinear,
} from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { type Float, product, ROUND } from "../support/cases.ts";
import { expectClose } from "../support/closeness.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

async function made(seed: number, shape: readonly number[], dtype: Float = "f32", spread = 1) {
  const data = normal(seed, product(shape), spread).map(ROUND[dtype]);
  return { gpu: tensor(await testDevice(), shape, { data, dtype }), cpu: { data, shape } };
}

/** Brings [B, S, H * D] into the reference's order, [B, H, S, D]. */
function inHeads({ data, shape }: ReferenceTensor, heads: number): ReferenceTensor {
  const [batch, tokens, width] = shape;
  const D = width / heads;
  return { data, shape: [batch, heads, tokens, D], strides: [tokens * width, D, width, 1] };
}

const outOfHeads = async (output: Tensor, heads: number) => splitHeads(output, heads).read();

describe("MicrosoftRotaryEmbedding", () => {
  it("takes one position for all entries or one a token, from the host or the GPU", async () => {
    const input = await made(1, [2, 3, 16]);
    const cos = await made(2, [9, 4]);
    const sin = await made(3, [9, 4]);
    const ids = [4, 0, 8, 7, 1, 1];
    const device = await testDevice();
    const i32 = (shape: number[], data: number[]) => tensor(device, shape, { dtype: "i32", data });
    for (const [positions, position] of [
      [[5], (_: number, __: number, row: number) => 5 + row],
      [i32([1], [5]), (_: number, __: number, row: number) => 5 + row],
      [i32([], [2]), (_: number, __: number, row: number) => 2 + row],
      [ids, (_: number, b: number, row: number) => ids[3 * b + row]],
      [i32([2, 3], ids), (_: number, b: number, row: number) => ids[3 * b + row]],
    ] as const) {
      const [output] = await MicrosoftRotaryEmbedding([input.gpu, positions, cos.gpu, sin.gpu]);
      const options = { rotaryDim: 8, cos: cos.cpu, sin: sin.cpu, position };
      const f64 = reference(inHeads(input.cpu, 2), options);
      const plain = reference(inHeads(input.cpu, 2), { ...options, precision: "f32" });
      expectClose("output", await outOfHeads(output as Tensor, 2), { f64, plain }, [2, 2, 3, 8]);
      output?.destroy();
    }
  });
  it("copies channels past R, and tokens whose position has no row", async () => {
    const input = await made(4, [1, 2, 16]);
    const cos = await made(5, [3, 2]);
    const sin = await made(6, [3, 2]);
    const attributes = { num_heads: 2, rotary_embedding_dim: 4, interleaved: 1 } as const;
    const [output] = await MicrosoftRotaryEmbedding(
      [input.gpu, [3, 1], cos.gpu, sin.gpu],
      attributes,
    );
    const options = {
      rotaryDim: 4,
      interleaved: true,
      cos: cos.cpu,
      sin: sin.cpu,
      position: () => 1,
    };
    const turned = reference(inHeads(input.cpu, 2), options);
    const heads = inHeads(input.cpu, 2);
    const expected = turned.map((value, i) => {
      const h = Math.floor(i / 16);
      const row = Math.floor(i / 8) % 2;
      const d = i % 8;
      return row === 0 ? heads.data[16 * row + 8 * h + d] : value;
    });
    expectClose(
      "output",
      await outOfHeads(output as Tensor, 2),
      { f64: expected, plain: expected },
      [1, 2, 2, 8],
    );
  });
  it("names what is wrong", async () => {
    const device = await testDevice();
    const input = tensor(device, [1, 3, 16]);
    const cos = tensor(device, [9, 4]);
    const name = "com.microsoft.RotaryEmbedding";
    const cases: [() => unknown, string][] = [
      [
        () => MicrosoftRotaryEmbedding([input, [0], cos, cos], { scale: 2 }),
        `${name}: attribute scale must be 1, got 2.`,
      ],
      [
        () => MicrosoftRotaryEmbedding([input, [0, 1], cos, cos]),
        `${name}: position_ids must be [1,3], or one number, got 2 numbers.`,
      ],
      [
        () =>
          MicrosoftRotaryEmbedding([input, [0], cos, cos], {
            rotary_embedding_dim: 4,
            num_heads: 2,
          }),
        `${name}: attribute rotary_embedding_dim is 4, and cos_cache [9,4] is for 8.`,
      ],
      [
        () => MicrosoftRotaryEmbedding([input, [0], cos, cos], { rotary_embedding_dim: 8 }),
        `${name}: attribute num_heads is required where rotary_embedding_dim is given.`,
      ],
      [
        () => MicrosoftRotaryEmbedding([tensor(device, [1, 3, 12]), [0], cos, cos]),
        `${name}: input [1,3,12] can't be split into heads of 8.`,
      ],
    ];
    for (const [work, message] of cases) await expectError(work, "argument", message);
  });
});

describe("MRotaryEmbedding", () => {
  it("gives time what does not fit if sections alternate", async () => {
    const input = await made(7, [2, 2, 3, 8]);
    const cos = await made(8, [9, 4]);
    const sin = await made(9, [9, 4]);
    const ids = Array.from({ length: 18 }, (_, i) => (5 * i) % 9);
    for (const [sections, streams] of [
      [
        [0, 2, 2],
        [0, 1, 2, 0], // the streams of columns 0..3
      ],
      [
        [4, 0, 0],
        [0, 0, 0, 0],
      ],
    ]) {
      const attributes = { mrope_section: sections, mrope_layout: 1, scale: 0.5 };
      const [output] = await MRotaryEmbedding([input.gpu, ids, cos.gpu, sin.gpu], attributes);
      // Each token has a cache, filled column by column from the stream of the column.
      const { data } = input.cpu;
      const expected = data.map((value, i) => {
        const b = Math.floor(i / 48);
        const row = Math.floor(i / 8) % 3;
        const d = i % 8;
        const column = d % 4;
        const at = 4 * ids[6 * streams[column] + 3 * b + row] + column;
        const other = d < 4 ? -data[i + 4] : data[i - 4];
        return 0.5 * (value * cos.cpu.data[at] + other * sin.cpu.data[at]);
      });
      expectClose(
        "output",
        await (output as Tensor).read(),
        { f64: expected, plain: expected },
        [2, 2, 3, 8],
      );
      output?.destroy();
    }
  });
  it("names what is wrong", async () => {
    const device = await testDevice();
    const input = tensor(device, [1, 3, 16]);
    const cos = tensor(device, [9, 4]);
    const name = "com.microsoft.MRotaryEmbedding";
    const ids = new Array(9).fill(0);
    const cases: [() => unknown, string][] = [
      [
        () => MRotaryEmbedding([input, ids, cos, cos], { mrope_section: [1, 2] }),
        `${name}: attribute mrope_section must be three numbers from 0 up whose sum is the 4 columns of cos_cache, got [1,2].`,
      ],
      [
        () => MRotaryEmbedding([input, ids, cos, cos], { mrope_section: [2, 1, 1] }),
        `${name}: attribute num_heads is required where input is [B, S, H * D] = [1,3,16].`,
      ],
      [
        () => MRotaryEmbedding([input, [0], cos, cos], { mrope_section: [2, 1, 1], num_heads: 2 }),
        `${name}: position_ids must be [3,1,3], got 1 numbers.`,
      ],
    ];
    for (const [work, message] of cases) await expectError(work, "argument", message);
  });
});

describe("LinearAttention", () => {
  const sizes = { q_num_heads: 2, kv_num_heads: 1 };
  const all = async (tokens: number) => ({
    query: await made(10, [2, tokens, 8]),
    key: await made(11, [2, tokens, 4], "f32", 0.5),
    value: await made(12, [2, tokens, 8]),
    beta: await made(13, [2, tokens, 1], "f32", 0.3),
  });
  type Some = Awaited<ReturnType<typeof all>>;
  /** Computes the states after each token, and the output. */
  function expected(
    { query, key, value, beta }: Some,
    pastState: Float32Array,
    precision: "f64" | "f32",
  ) {
    const [batch, tokens] = query.cpu.shape;
    const until = (count: number) => {
      const first = (given: ReferenceTensor, heads: number) => {
        const spec = inHeads(given, heads);
        return { ...spec, shape: [batch, heads, count, spec.shape[3]] };
      };
      const q = first(query.cpu, 2);
      const k = first(key.cpu, 1);
      const v = first(value.cpu, 1);
      const options = { updateRule: "delta", pastState, precision } as const;
      return referenceLinear(q, k, v, { ...options, beta: first(beta.cpu, 1) });
    };
    return {
      output: until(tokens).output,
      states: Array.from({ length: tokens }, (_, t) => until(t + 1).state),
    };
  }
  it("keeps the states after the last tokens, in the dtype of the state before", async () => {
    for (const tokens of [5, 2]) {
      const given = await all(tokens);
      const past = await made(14, [3, 2, 1, 4, 8], "f16");
      const inputs = [given.query, given.key, given.value].map(({ gpu }) => gpu);
      const attributes = { ...sizes, update_rule: "delta", state_window: 3 } as const;
      const [output, present] = await MicrosoftLinearAttention(
        [...inputs, past.gpu, null, given.beta.gpu],
        attributes,
      );
      const before = past.cpu.data.slice(-64); // the state of the last slot
      const [f64, plain] = (["f64", "f32"] as const).map((precision) =>
        expected(given, before, precision),
      );
      const rows = await outOfHeads(output as Tensor, 2);
      expectClose("output", rows, { f64: f64.output, plain: plain.output }, [2, 2, tokens, 8]);
      expect(present?.dtype).toBe("f16");
      const window = ({ states }: typeof f64) =>
        [
          ...Array.from({ length: Math.max(0, 3 - tokens) }, () => new Float64Array(64)),
          ...states.slice(-3),
        ].flatMap((state) => [...state]);
      const both = { f64: window(f64), plain: window(plain).map(ROUND.f16) };
      expectClose("present_state", await (present as Tensor).read(), both, [3, 2, 1, 4, 8], "f16");
      for (const one of [output, present]) one?.destroy();
    }
  });
  it("names what is wrong", async () => {
    const { query, key, value, beta } = await all(2);
    const inputs = [query.gpu, key.gpu, value.gpu];
    const cases: [() => unknown, string][] = [
      [
        () => LinearAttention(inputs, { q_num_heads: 2 }),
        "attribute kv_num_heads must be 1 or more, got undefined",
      ],
      [
        () => LinearAttention(inputs, { q_num_heads: 2, kv_num_heads: 4 }),
        "attribute q_num_heads = 2 must be a multiple of kv_num_heads = 4",
      ],
      [
        () => LinearAttention(inputs, { ...sizes, update_rule: "deltas" }),
        'attribute update_rule must be linear, gated, delta, gated_delta, got "deltas"',
      ],
      [
        () =>
          LinearAttention([...inputs, null, null, beta.gpu, beta.gpu], {
            ...sizes,
            update_rule: "delta",
          }),
        "erase_gate is not supported; its keys are those that are written",
      ],
      [
        () =>
          LinearAttention([...inputs, null, beta.gpu.slice(1, 0, 1)], {
            ...sizes,
            update_rule: "gated",
          }),
        "decay must be [B, T, ..] = [2,2,1], got [2,1,1]",
      ],
      [
        () => LinearAttention(inputs, { ...sizes, update_rule: "delta" }),
        'updateRule "delta" needs beta',
      ],
    ];
    for (const [work, message] of cases) {
      await expectError(work, "argument", `ai.onnx.LinearAttention: ${message}.`);
    }
    await expectError(
      () => MicrosoftLinearAttention(inputs, { ...sizes, state_window: 9 }),
      "argument",
      "com.microsoft.LinearAttention: attribute state_window must be from 0 up to 8, got 9.",
    );
  });
});

describe("position biases", () => {
  it("look buckets up head by head", async () => {
    const device = await testDevice();
    const table = Float32Array.from({ length: 24 }, (_, i) => i); // 8 buckets of 3 heads
    const attributes = { max_distance: 20, is_bidirectional: true } as const;
    const lengths = tensor(device, [1], { dtype: "i32", data: [5] });
    const bias_table = tensor(device, [8, 3], { data: table });
    const [bias] = await RelativePositionBias([bias_table, lengths, [7]], attributes);
    const buckets = t5Buckets(5, 7, { buckets: 8, maxDistance: 20 });
    expect(bias?.shape).toEqual([1, 3, 5, 7]);
    expect([...(await (bias as Tensor).read())]).toEqual(
      [0, 1, 2].flatMap((h) => Array.from(buckets, (b) => table[8 * h + b])),
    );
    await expectError(
      () => RelativePositionBias([bias_table, [5, 5], [7]], attributes),
      "argument",
      "com.microsoft.RelativePositionBias: query_length must be one whole number from 0 up, got [5,5].",
    );
    await expectError(
      () => RelativePositionBias([bias_table, [5], [7]]),
      "argument",
      "com.microsoft.RelativePositionBias: attribute max_distance is required.",
    );
  });
  it("are gated by sums of halves", async () => {
    // One head, whose channels but the first are 0; queries 1 and 0, plus 2.
    const device = await testDevice();
    const put = (shape: number[], data: number[]) => tensor(device, shape, { data });
    const first = (...row: number[]) => [...row, ...new Array(12).fill(0)];
    const inputs = [
      put([1, 2, 4], [1, 0, 0, 0, 0, 0, 0, 0]),
      put([4], [2, 0, 0, 0]),
      put([1, 1, 2, 2], [1, 2, 3, 4]),
      put([4, 4], first(0.1, 0.2, 0.3, 0.4)),
      put([4], [0, 0, 1, -1]),
      put([1, 1, 1, 1], [5]),
    ];
    const [output] = await GatedRelativePositionBias(inputs, { num_heads: 1 });
    const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
    const gate = (q: number) => sigmoid(0.3 * q) * (5 * sigmoid(0.7 * q) - 1) + 2;
    const values = await (output as Tensor).read();
    for (const [i, value] of [gate(3), 2 * gate(3), 3 * gate(2), 4 * gate(2)].entries()) {
      expect(values[i] / value).toBeCloseTo(1, 6);
    }
  });
  it("puts tokens without padding into their rows, and the bias alone into the others", async () => {
    const B = 2;
    const S = 3;
    const H = 2;
    const D = 4;
    const K = 8;
    const device = await testDevice();
    const tokens = await made(21, [4, H * D]);
    const given = [
      await made(22, [H * D]),
      await made(23, [1, H, S, S]),
      await made(24, [D, K]),
      await made(25, [K]),
    ];
    const rest = [...given.map(({ gpu }) => gpu), (await made(26, [1, H, 1, 1])).gpu];
    const offsets = [0, 1, 2, 4, 3, 5]; // of four tokens, and then of padding
    const padded = new Float32Array(B * S * H * D);
    for (const [token, row] of offsets.slice(0, 4).entries()) {
      for (let d = 0; d < H * D; d++) padded[row * H * D + d] = tokens.cpu.data[token * H * D + d];
    }
    const query = tensor(device, [B, S, H * D], { data: padded });
    const [whole] = await GatedRelativePositionBias([query, ...rest], { num_heads: H });
    const expected = Array.from(await (whole as Tensor).read());
    for (const places of [
      tensor(device, [B, S], { dtype: "i32", data: offsets }),
      BigInt64Array.from(offsets, BigInt),
    ]) {
      const [output] = await GatedRelativePositionBias([tokens.gpu, ...rest, places], {
        num_heads: H,
      });
      expect((output as Tensor).shape).toEqual([B, H, S, S]);
      expect(Array.from(await (output as Tensor).read())).toEqual(expected);
      output?.destroy();
    }
    const name = "com.microsoft.GatedRelativePositionBias: ";
    const call = (places: readonly number[] | Tensor) => () =>
      GatedRelativePositionBias([tokens.gpu, ...rest, places], { num_heads: H });
    const rows =
      "token_offset must begin with the rows of the 4 tokens of query_layer, each another one below B * S = 6";
    const cases: [() => unknown, string][] = [
      [call([0, 1, 2, 6, 3, 5]), `${name}${rows}, got [0,1,2,6].`],
      [call([0, 1, 2, 2, 3, 5]), `${name}${rows}, got [0,1,2,2].`],
      [
        call([0, 1, 2, 3]),
        `${name}token_offset must be [B, S] with S = 3 as in rel_pos, got 4 numbers.`,
      ],
      [
        call(tensor(device, [3, 2], { dtype: "i32" })),
        `${name}token_offset must be [B, S] with S = 3 as in rel_pos, got [3,2].`,
      ],
      [
        () => GatedRelativePositionBias([query, ...rest, offsets], { num_heads: H }),
        `${name}query_layer must be [tokens, H * D], got [2,3,8].`,
      ],
    ];
    for (const [work, message] of cases) await expectError(work, "argument", message);
  });
});
