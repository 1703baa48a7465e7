// ai.onnx Attention against the float64 reference, whose masks are written out here by ONNX' own
// rules, and what it refuses.

import { describe, expect, it } from "vitest";
import { type Tensor, tensor } from "../../src/index.ts";
import { Attention, type OnnxInput } from "../../src/interop/onnx/index.ts";
import {
  attentionScores,
  type ReferencePosition,
  attention as reference,
} from "../../src/reference/index.ts";
import { integers, normal } from "../../src/reference/random.ts";
import { type Float, product, ROUND } from "../support/cases.ts";
import { expectClose } from "../support/closeness.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

interface Problem {
  readonly B?: number;
  /** Heads of Q, and heads of K and V. */
  readonly H?: number;
  readonly Hkv?: number;
  readonly S?: number;
  readonly L: number;
  /** Rows of the past; undefined is none, 0 an empty one. */
  readonly past?: number;
  readonly D?: number;
  readonly Dv?: number;
  /** Inputs with three axes. */
  readonly flat?: boolean;
  /** Dtypes of Q and K, and of V. */
  readonly dtypes?: readonly [Float, Float];
  readonly mask?: { readonly shape: readonly number[]; readonly dtype: "u8" | Float };
  /** A share of the mask's elements that hide. */
  readonly hides?: number;
  /** Keys that the mask hides from every query; K and V hold there what must not be seen. */
  readonly poison?: readonly number[];
  readonly causal?: boolean;
  readonly window?: readonly [left: number, right: number];
  readonly nonpad?: readonly number[];
  readonly onGpu?: boolean;
  readonly softcap?: number;
  readonly scale?: number;
  /** Modes of qk_matmul_output. */
  readonly modes?: readonly number[];
  readonly opset?: number;
}

const BAD = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];

/**
 * Makes the mask's elements, and what it adds to the score of each query and key of [B, H, S, T].
 */
function maskOf({ mask, hides = 0.3, poison = [] }: Problem, sizes: readonly number[]) {
  if (!mask) return { added: () => 0 };
  const { shape, dtype } = mask;
  const reach = shape[shape.length - 1];
  const values = normal(7, product(shape));
  const chance = integers(8, product(shape), 0, 99);
  const data = Array.from(values, (value, i) => {
    const hidden = chance[i] < 100 * hides || poison.includes(i % reach);
    if (dtype === "u8") return hidden ? 0 : 7;
    return hidden ? Number.NEGATIVE_INFINITY : ROUND[dtype](value);
  });
  const full = [...new Array<number>(4 - shape.length).fill(1), ...shape];
  const added = (index: readonly number[]) => {
    if (index[3] >= reach) return Number.NEGATIVE_INFINITY;
    const at = full.reduce(
      (place, size, axis) => place * size + (size === 1 && sizes[axis] > 1 ? 0 : index[axis]),
      0,
    );
    if (dtype === "u8") return data[at] ? 0 : Number.NEGATIVE_INFINITY;
    return data[at];
  };
  return { data, added };
}

/** Runs a problem and compares Y, present keys and values, and qk_matmul_output at each mode. */
async function run(problem: Problem): Promise<void> {
  const {
    B = 2,
    H = 4,
    Hkv = 2,
    S = 2,
    L,
    past,
    D = 8,
    Dv = D,
    flat = false,
    dtypes = ["f32", "f32"],
  } = problem;
  const {
    causal = false,
    window = [-1, -1],
    nonpad,
    softcap = 0,
    scale,
    modes = [],
    poison = [],
    opset,
  } = problem;
  const P = past ?? 0;
  const device = await testDevice();
  const T = P + L;
  const used: Tensor[] = [];
  const keep = <One extends Tensor | undefined>(made: One): One => {
    if (made) used.push(made);
    return made;
  };
  const upload = (shape: readonly number[], data: readonly number[], dtype: Float | "u8" | "i32") =>
    keep(tensor(device, shape, { data, dtype }));
  /** Makes [B, heads, rows, width] on the CPU, rounded to the dtype. */
  const random = (
    seed: number,
    heads: number,
    rows: number,
    width: number,
    dtype: Float,
    unseen: readonly number[],
  ) =>
    Array.from(normal(seed, B * heads * rows * width), (value, i) => {
      const row = Math.floor(i / width) % rows;
      const padding = nonpad && seed > 1 && row >= nonpad[Math.floor(i / (heads * rows * width))];
      return padding || unseen.includes(row) ? BAD[i % 3] : ROUND[dtype](value);
    });
  const q = random(1, H, S, D, dtypes[0], []);
  const k = random(2, Hkv, T, D, dtypes[0], poison);
  const v = random(3, Hkv, T, Dv, dtypes[1], poison);
  /** Rows `from` .. `to` of a tensor [B, heads, rows, width]. */
  const input = (
    all: readonly number[],
    heads: number,
    [from, to]: readonly number[],
    dtype: Float,
    folds = flat,
  ) => {
    const rows = all === q ? S : T;
    const width = all === v ? Dv : D;
    const order = Array.from({ length: B * heads * (to - from) * width }, (_, i) => {
      const count = to - from;
      const c = i % width;
      const outer = Math.floor(i / width);
      const b = Math.floor(i / (width * heads * count));
      const [h, m] = folds
        ? [outer % heads, Math.floor(outer / heads) % count]
        : [Math.floor(outer / count) % heads, outer % count];
      return all[((b * heads + h) * rows + from + m) * width + c];
    });
    return upload(
      folds ? [B, to - from, heads * width] : [B, heads, to - from, width],
      order,
      dtype,
    );
  };
  const sizes = [B, H, S, T];
  const mask = maskOf(problem, sizes);
  const sees = ({ batch, qIdx, kvIdx }: ReferencePosition) => {
    const position = qIdx + (nonpad ? nonpad[batch] - S : P);
    return (
      kvIdx < (nonpad?.[batch] ?? T) &&
      (!causal || kvIdx <= position) &&
      (window[0] < 0 || kvIdx >= position - window[0]) &&
      (window[1] < 0 || kvIdx <= position + window[1])
    );
  };
  const bias = Float64Array.from({ length: product(sizes) }, (_, i) => {
    const b = Math.floor(i / (H * S * T));
    const h = Math.floor(i / (S * T)) % H;
    const m = Math.floor(i / T) % S;
    const n = i % T;
    return mask.added([b, h, m, n]);
  });
  const unmasked = { ...(scale !== undefined && { scale }), ...(softcap > 0 && { softcap }) };
  const masked = { ...unmasked, maskFunction: sees, bias: { data: bias, shape: sizes } };
  const Q = { data: q, shape: [B, H, S, D] };
  const K = { data: k, shape: [B, Hkv, T, D] };
  const V = { data: v, shape: [B, Hkv, T, Dv] };
  try {
    const lengths = nonpad && problem.onGpu ? upload([B], nonpad, "i32") : nonpad;
    const inputs: OnnxInput[] = [
      input(q, H, [0, S], dtypes[0]),
      input(k, Hkv, [P, T], dtypes[0]),
      input(v, Hkv, [P, T], dtypes[1]),
      problem.mask ? upload(problem.mask.shape, mask.data as number[], problem.mask.dtype) : null,
      past === undefined ? null : input(k, Hkv, [0, P], dtypes[0], false),
      past === undefined ? null : input(v, Hkv, [0, P], dtypes[1], false),
      lengths,
    ];
    for (const mode of modes.length ? modes : [0]) {
      const attributes = {
        is_causal: causal,
        softcap,
        qk_matmul_output_mode: mode,
        ...(flat && { q_num_heads: H, kv_num_heads: Hkv }),
        ...(scale !== undefined && { scale }),
        ...(problem.window && { left_window_size: window[0], right_window_size: window[1] }),
      };
      const wanted = [true, !nonpad, !nonpad, modes.length > 0];
      const outputs = await Attention(inputs, attributes, {
        outputs: wanted,
        ...(opset && { opset }),
      });
      outputs.map(keep);
      const [Y, keys, values, qk] = outputs;
      const result = (precision: "f64" | "f32") => {
        const { output } = reference(Q, K, V, { ...masked, precision });
        if (!flat) return output;
        return output.map((_, i) => {
          const c = i % Dv;
          const h = Math.floor(i / Dv) % H;
          const m = Math.floor(i / (Dv * H)) % S;
          const b = Math.floor(i / (Dv * H * S)); // biome-ignore format: an index
          return output[((b * H + h) * S + m) * Dv + c];
        });
      };
      const shape = flat ? [B, S, H * Dv] : [B, H, S, Dv];
      expect(Y?.shape).toEqual(shape);
      expect(Y?.dtype).toBe(dtypes[0]);
      const read = async (output: Tensor | undefined) => (await output?.read()) as Float32Array;
      const plain = result("f32").map(ROUND[dtypes[0]]);
      expectClose("Y", await read(Y), { f64: result("f64"), plain }, shape, dtypes[0]);
      if (!nonpad) {
        expect([keys?.shape, values?.shape]).toEqual([K.shape, V.shape]);
        expect([...(await read(keys))]).toEqual(k);
        expect([...(await read(values))]).toEqual(v);
      }
      if (!modes.length) continue;
      expect(qk?.dtype).toBe(dtypes[0]);
      const stage = (["raw", "capped", "scores", "probabilities"] as const)[mode];
      const options = { ...(mode < 2 ? unmasked : masked), stage };
      const scores = (precision: "f64" | "f32") => attentionScores(Q, K, { ...options, precision });
      const rounded = scores("f32").map(ROUND[dtypes[0]]);
      expectClose(stage, await read(qk), { f64: scores("f64"), plain: rounded }, sizes, dtypes[0]);
    }
  } finally {
    for (const one of used) one.destroy();
  }
}

// Few queries of grouped heads, of one size, so that each kind of mask compiles one kernel with
// lengths and one without.
describe("masks", () => {
  it.each([
    { mask: { shape: [2, 20], dtype: "u8" }, modes: [0, 1, 2, 3] },
    { mask: { shape: [2, 15], dtype: "u8" }, modes: [2, 3] }, // shorter than the keys
    { mask: { shape: [2, 1], dtype: "u8" }, hides: 0 }, // it covers one key; the others are hidden
    { mask: { shape: [17], dtype: "u8" } },
    { mask: { shape: [2, 1, 1, 20], dtype: "u8" }, hides: 1 }, // nobody sees anything
    { mask: { shape: [4, 2, 20], dtype: "f32" }, modes: [2, 3] },
    { mask: { shape: [1, 19], dtype: "f32" }, modes: [2, 3] },
    { mask: { shape: [2, 4, 2, 12], dtype: "f32" } },
  ] as const)("%j", (one) => run({ L: 20, ...one }));

  it("compose with is_causal and a past", async () => {
    await run({ L: 3, past: 12, mask: { shape: [2, 15], dtype: "u8" }, causal: true });
    await run({
      L: 4,
      past: 12,
      mask: { shape: [2, 1, 2, 15], dtype: "f32" },
      causal: true,
      modes: [2, 3],
    });
  });
  it("hide what must not be seen: NaN and infinities", async () => {
    await run({ L: 20, mask: { shape: [2, 20], dtype: "u8" }, poison: [0, 4, 5, 18] });
    await run({ L: 20, mask: { shape: [2, 16], dtype: "f32" }, poison: [1, 7, 16, 17, 18, 19] });
    await run({
      L: 9,
      past: 11,
      mask: { shape: [2, 20], dtype: "u8" },
      poison: [0, 4, 5, 18],
      causal: true,
    });
  });
});

describe("positions", () => {
  it.each([
    { L: 9, causal: true }, // the first query stands at the first key
    { L: 3, past: 9, causal: true },
    { L: 3, past: 0, causal: true },
    { L: 1, causal: true }, // more queries than keys
    { L: 4, past: 9, window: [3, 1] },
    { L: 3, past: 9, window: [3, -1], causal: true },
    { L: 9, window: [-1, 0] },
    { L: 9, window: [0, 0] },
  ] as const)("%j", run);
});

describe("nonpad_kv_seqlen", () => {
  it.each([
    { nonpad: [13, 0], opset: 24 },
    { nonpad: [13, 1], causal: true }, // fewer keys than queries: the first one sees nothing
    { nonpad: [7, 1], causal: true, onGpu: true, window: [3, -1] },
    { nonpad: [13, 7], window: [3, 2] },
    { nonpad: [13, 8], causal: true, mask: { shape: [2, 13], dtype: "u8" }, onGpu: true },
    // positions go by all keys
    { nonpad: [13, 8], causal: true, mask: { shape: [2, 10], dtype: "u8" }, onGpu: true },
    { nonpad: [1, 13], causal: true, mask: { shape: [2, 1, 1, 10], dtype: "u8" } },
  ] as const)("%j", (one) => run({ L: 13, ...one }));
});

describe("shapes and types", () => {
  it("with three axes, values of another width, and present keys and values without a past", async () => {
    await run({ L: 6, Dv: 12, flat: true });
    await run({ L: 6, Dv: 12, flat: true, past: 3, opset: 23 });
  });
  it("if there is nothing", async () => {
    await run({ S: 0, L: 4 });
    await run({ L: 0 });
    await run({ L: 0, past: 0, flat: true });
  });
  it("in f16, with a mask of f16 and a past", () =>
    run({
      L: 5,
      past: 9,
      dtypes: ["f16", "f16"],
      softcap: 3,
      scale: 0.25,
      mask: { shape: [1, 2, 13], dtype: "f16" },
      modes: [2, 3],
    }));
  it("with values of another type than keys", () =>
    run({ L: 9, dtypes: ["f32", "f16"], causal: true }));
});

describe("refused", () => {
  const X = "ai.onnx.Attention";
  it("is what does not fit, by name", async () => {
    const device = await testDevice();
    const used: Tensor[] = [];
    const make = (shape: number[], dtype: "f32" | "f16" | "i32" | "u8" = "f32") => {
      used.push(tensor(device, shape, { dtype }));
      return used[used.length - 1];
    };
    const q = make([2, 4, 3, 8]);
    const k = make([2, 2, 6, 8]);
    const v = make([2, 2, 6, 8]);
    const q3 = make([2, 3, 32]);
    const k3 = make([2, 6, 16]);
    const past = make([2, 2, 4, 8]);
    const heads = { q_num_heads: 4, kv_num_heads: 2 };
    type Run = Parameters<typeof Attention>;
    const cases: [inputs: Run[0], attributes: Run[1], options: Run[2], message: string][] = [
      [
        [q, k3, k3],
        {},
        {},
        "Q, K and V must all have 3 axes or all 4, got Q [2,4,3,8], K [2,6,16], V [2,6,16].",
      ],
      [[q, make([2, 2, 6, 8], "f16"), v], {}, {}, "Q and K must have one dtype, got f32 and f16."],
      [[q, k, make([2, 2, 6, 8], "u8")], {}, {}, "V must be f32, f16 or bf16, got u8."],
      [
        [q3, k3, k3],
        {},
        {},
        "q_num_heads and kv_num_heads are required for inputs with 3 axes, Q [2,3,32], K [2,6,16], V [2,6,16].",
      ],
      [
        [q3, k3, k3],
        { q_num_heads: 5, kv_num_heads: 2 },
        {},
        "the 32 columns of Q must be a multiple of 5 heads.",
      ],
      [
        [q, k, v],
        heads,
        {},
        "q_num_heads and kv_num_heads are for inputs with 3 axes; leave them out for those with 4.",
      ],
      [
        [q, k, v],
        { q_num_heads: 2 },
        { opset: 24 },
        "q_num_heads 2 and kv_num_heads undefined are not those of Q [2,4,3,8], K [2,2,6,8], V [2,2,6,8].",
      ],
      [
        [q, make([2, 2, 6, 4]), v],
        {},
        {},
        "Q and K must have the same batch size and head size, got Q [2,4,3,8], K [2,2,6,4], V [2,2,6,8].",
      ],
      [
        [q, k, make([2, 2, 5, 8])],
        {},
        {},
        "K and V must have the same batch size, heads and length, got Q [2,4,3,8], K [2,2,6,8], V [2,2,5,8].",
      ],
      [
        [make([2, 3, 3, 8]), k, v],
        {},
        {},
        "the 3 heads of Q must be a multiple of the 2 of K and V.",
      ],
      [
        [q, k, v, make([3, 7])],
        {},
        {},
        "attn_mask must broadcast to [B, q_num_heads, S, T] = [2, 4, 3, 6], or have fewer keys, got [3,7].",
      ],
      [
        [q, k, v, make([2, 6])],
        {},
        {},
        "attn_mask must broadcast to [B, q_num_heads, S, T] = [2, 4, 3, 6], or have fewer keys, got [2,6].",
      ],
      [
        [q, k, v, make([3, 6], "i32")],
        {},
        {},
        "attn_mask must be u8 (for bool), f32, f16 or bf16, got i32.",
      ],
      [
        [q, k, v, null, past],
        {},
        {},
        "past_key and past_value belong together; only one was given.",
      ],
      [
        [q, k, v, null, past, make([2, 2, 5, 8])],
        {},
        {},
        "past_value must be [B, kv_num_heads, past, head size] = [2, 2, past, 8], got [2,2,5,8].",
      ],
      [
        [q, k, v, null, past, make([2, 2, 4, 8], "f16")],
        {},
        {},
        "past_value must be f32, as what follows it, got f16.",
      ],
      [
        [q, k, v, null, null, null, [6, 6]],
        {},
        { opset: 23 },
        "nonpad_kv_seqlen is known from opset 24 on, and this is 23.",
      ],
      [
        [q, k, v, null, past, past, [6, 6]],
        {},
        {},
        "nonpad_kv_seqlen is for a cache that K and V are, and can't be combined with past or present keys and values.",
      ],
      [
        [q, k, v, null, null, null, [6, 6]],
        {},
        { outputs: 2 },
        "nonpad_kv_seqlen is for a cache that K and V are, and can't be combined with past or present keys and values.",
      ],
      [
        [q, k, v, null, null, null, [6, 7]],
        {},
        {},
        "nonpad_kv_seqlen must be 2 whole numbers from 0 to 6, one a batch entry, or an i32 tensor of them, got [6,7].",
      ],
      [
        [q, k, v, null, null, null, make([3], "i32")],
        {},
        {},
        "nonpad_kv_seqlen must be 2 whole numbers from 0 to 6, one a batch entry, or an i32 tensor of them, got i32 [3].",
      ],
      [
        [q, k, v],
        { scale: -1 },
        {},
        "scale must not be negative, its root is a factor of Q and of K; got -1.",
      ],
      [[q, k, v], { softcap: -1 }, {}, "softcap must be positive, or 0 for none, got -1."],
      [
        [q, k, v],
        { qk_matmul_output_mode: 4 },
        {},
        "qk_matmul_output_mode must be 0, 1, 2 or 3, got 4.",
      ],
      [
        [q, k, v],
        { softmax_precision: 7 },
        {},
        "softmax_precision must be 1 (float), 10 (float16), 11 (double) or 16 (bfloat16), got 7.",
      ],
      [
        [q, k, v],
        { left_window_size: 3 },
        { opset: 24 },
        "left_window_size and right_window_size are known from opset 25 on, and this is 24.",
      ],
      [
        [q, k, v],
        { right_window_size: -2 },
        {},
        "window sizes are whole numbers of keys, or -1 for no bound, got left -1, right -2.",
      ],
    ];
    for (const [inputs, attributes, options, message] of cases) {
      await expectError(
        () => Attention(inputs, attributes, options),
        "argument",
        `${X}: ${message}`,
      );
    }
    for (const one of used) one.destroy();
  });
});
