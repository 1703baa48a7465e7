// ai.onnx.preview FlexAttention: graphs against the float64 reference with the same functions in
// JavaScript, and graphs that have no translation.

import { describe, expect, it } from "vitest";
import { type Tensor, tensor } from "../../src/index.ts";
import { FlexAttention, type OnnxGraph } from "../../src/interop/onnx/index.ts";
import {
  attentionScores,
  type ReferenceOptions,
  type ReferencePosition,
  type ReferenceTensor,
  attention as reference,
} from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { product } from "../support/cases.ts";
import { expectClose } from "../support/closeness.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

type Attributes = Readonly<Record<string, unknown>>;
/** `y = Op(a, b)`: an operator, its inputs and its output. */
type Line = readonly [op: string, inputs: string, output: string, attributes?: Attributes];

const initializer = (
  name: string,
  dims: readonly number[],
  data: readonly number[],
  dtype = "float32",
) => ({
  name,
  dims,
  data,
  dtype,
});
/** A graph from x to y. */
const graph = (lines: readonly Line[], initializers: readonly object[] = []): OnnxGraph => ({
  inputs: ["x"],
  outputs: ["y"],
  nodes: lines.map(([op, inputs, output, attributes = {}]) => ({
    op,
    domain: "",
    attributes,
    inputs: inputs.split(" "),
    outputs: [output],
  })),
  initializers,
});
const integers = (name: string, dims: readonly number[], data: readonly number[]) =>
  initializer(name, dims, data, "int64");

/** The queries' and the keys' places, as tensors [M, 1] and [N]. */
const PLACES: readonly Line[] = [
  ["Shape", "x", "shape"],
  ["Gather", "shape two", "M"],
  ["Gather", "shape minus_one", "N"],
  ["Range", "zero M one", "q_range"],
  ["Unsqueeze", "q_range minus_ones", "i"],
  ["Range", "zero N one", "j"],
];
const NUMBERS = [
  integers("zero", [], [0]),
  integers("one", [], [1]),
  integers("two", [], [2]),
  integers("minus_one", [], [-1]),
  integers("minus_ones", [1], [-1]),
];

const B = 2;
const H = 4;
const Hkv = 2;
const M = 4;
const N = 21;
const D = 8;

interface Problem {
  readonly score?: { readonly graph: OnnxGraph; readonly js?: ReferenceOptions["scoreFunction"] };
  readonly prob?: {
    readonly graph: OnnxGraph;
    readonly js: (p: number, at: ReferencePosition) => number;
  };
  readonly scale?: number;
  readonly Dv?: number;
}

/** Weighs V by [B, H, M, N], in float64 or with every operation rounded to f32. */
function weighted(
  weights: Float64Array,
  v: ReferenceTensor,
  Dv: number,
  round: (x: number) => number,
): Float64Array {
  return Float64Array.from({ length: B * H * M * Dv }, (_, element) => {
    const row = Math.floor(element / Dv);
    const d = element % Dv;
    const head = Math.floor(row / M) % H;
    const at = (Math.floor(row / (M * H)) * Hkv + Math.floor(head / (H / Hkv))) * N;
    let sum = 0;
    for (let j = 0; j < N; j++)
      sum = round(sum + round(weights[row * N + j] * v.data[(at + j) * Dv + d]));
    return sum;
  });
}

async function run({ score, prob, scale, Dv = D }: Problem): Promise<void> {
  const device = await testDevice();
  const made = (seed: number, shape: readonly number[]) => {
    const data = normal(seed, product(shape));
    return { data, shape, gpu: tensor(device, shape, { data }) };
  };
  const q = made(1, [B, H, M, D]);
  const k = made(2, [B, Hkv, N, D]);
  const v = made(3, [B, Hkv, N, Dv]);
  const [Y] = (await FlexAttention([q.gpu, k.gpu, v.gpu], {
    ...(score && { score_mod: score.graph }),
    ...(prob && { prob_mod: prob.graph }),
    ...(scale !== undefined && { scale }),
  })) as [Tensor];
  const expected = (precision: "f64" | "f32") => {
    const options = {
      precision,
      ...(score?.js && { scoreFunction: score.js }),
      ...(scale !== undefined && { scale }),
    };
    if (!prob) return reference(q, k, v, options).output;
    const probabilities = attentionScores(q, k, {
      ...options,
      stage: "probabilities",
      probabilityFunction: prob.js,
    });
    return weighted(probabilities, v, Dv, precision === "f32" ? Math.fround : (x) => x);
  };
  try {
    expect(Y.shape).toEqual([B, H, M, Dv]);
    expectClose("Y", await Y.read(), { f64: expected("f64"), plain: expected("f32") }, Y.shape);
  } finally {
    for (const one of [q.gpu, k.gpu, v.gpu, Y]) one.destroy();
  }
}

const table = normal(9, H * N).map(Math.fround);
const HIDDEN = Number.NEGATIVE_INFINITY;

describe("score_mod", () => {
  it("with positions, a table for each head, and keys hidden by place and by score", () =>
    run({
      score: {
        graph: graph(
          [
            ...PLACES,
            ["Sub", "i j", "distance"],
            ["Cast", "distance", "far", { to: 1 }],
            ["Abs", "far", "near"],
            ["Mul", "near slope", "penalty"],
            ["Sub", "x penalty", "sloped"],
            ["Add", "sloped table", "added"], // [4, 1, 21]
            ["Mod", "j three", "rest"],
            ["Equal", "rest two", "third"],
            ["Greater", "x limit", "large"],
            ["Or", "third large", "gone"],
            ["Where", "gone minus_infinity zero_f", "mask"],
            ["Add", "added mask", "masked"],
            ["Mul", "masked half", "y"],
          ],
          [
            ...NUMBERS,
            integers("three", [], [3]),
            initializer("slope", [1, 4, 1, 1], [0.1, 0.2, 0.3, 0.4].map(Math.fround)),
            initializer("table", [4, 1, 21], [...table]),
            initializer("limit", [], [1]),
            initializer("minus_infinity", [], [HIDDEN]),
            initializer("zero_f", [], [0]),
            initializer("half", [], [0.5]),
          ],
        ),
        js: (s, { head, qIdx, kvIdx }) => {
          if (kvIdx % 3 === 2 || s > 1) return HIDDEN;
          return (
            0.5 *
            (s - Math.fround((head + 1) / 10) * Math.abs(qIdx - kvIdx) + table[head * N + kvIdx])
          );
        },
      },
    }));

  it("with a mask in memory that has -Infinity, for entries, and rows that see nothing", () => {
    const mask = Array.from({ length: B * M * N }, (_, i) =>
      i % 5 === 0 || i < 2 * N ? HIDDEN : table[i % 20],
    );
    return run({
      scale: 0.75,
      Dv: 12,
      score: {
        graph: graph(
          [
            ["Unsqueeze", "mask axes", "wide"],
            ["Max", "wide lowest", "floor"], // keeps -Infinity if both are -Infinity
            ["Add", "x floor", "y"],
          ],
          [
            initializer("mask", [B, M, N], mask),
            integers("axes", [1], [1]),
            initializer("lowest", [1], [HIDDEN]),
          ],
        ),
        js: (s, { batch, qIdx, kvIdx }) => s + mask[(batch * M + qIdx) * N + kvIdx],
      },
    });
  });

  it("with elementwise functions of scores, and indices through tables", () =>
    run({
      score: {
        graph: graph(
          [
            ...PLACES,
            ["Constant", "", "ten", { value_float: 10 }],
            ["Tanh", "x", "bent"],
            ["Mul", "bent ten", "capped"],
            ["Pow", "x two_f", "squared"],
            ["Pow", "x three_f", "cubed"],
            ["Sum", "squared cubed capped", "sum"],
            ["Clip", "sum low ", "clipped"],
            ["Sigmoid", "x", "gate"],
            ["Erf", "x", "erf"],
            ["Mul", "gate erf", "gated"],
            ["Gather", "buckets j", "bucket"], // [21]
            ["Gather", "values bucket", "value", { axis: 1 }], // [4, 21]
            ["Reshape", "value by_head", "per_head"],
            ["Sub", "clipped gated", "first"],
            ["Add", "first per_head", "y"],
          ],
          [
            ...NUMBERS,
            initializer("two_f", [], [2]),
            initializer("three_f", [], [3]),
            initializer("low", [], [-5]),
            integers(
              "buckets",
              [N],
              Array.from({ length: N }, (_, j) => (j * 5) % 3),
            ),
            initializer("values", [H, 3], [...table.slice(0, 3 * H)]),
            integers("by_head", [4], [1, H, 1, -1]),
          ],
        ),
        js: (s, { head, kvIdx }) =>
          Math.max(-5, s * s + s ** 3 + 10 * Math.tanh(s)) -
          erf(s) / (1 + Math.exp(-s)) +
          table[3 * head + ((kvIdx * 5) % 3)],
      },
    }));
});

describe("operators", () => {
  it("of one number each, and of integers", () => {
    const lines: Line[] = [
      ...PLACES,
      ...["Neg", "Abs", "Exp", "Floor", "Ceil", "Round", "Sign", "Softplus", "Softsign"].map(
        (op): Line => [op, "x", op],
      ),
      // WGSL lets these functions be off by 2^-11.
      ...["Sin", "Cos", "Atan"].map((op): Line => [op, "x", op.toLowerCase()]),
      ["Sum", "sin cos atan", "angles"],
      ["Mul", "angles little", "Angles"],
      ["Gelu", "x", "Gelu"],
      ["Gelu", "x", "GeluTanh", { approximate: "tanh" }],
      ["Relu", "x", "Relu"],
      ["LeakyRelu", "x", "LeakyRelu", { alpha: 0.25 }],
      ["Elu", "x", "Elu"],
      ["HardSigmoid", "x", "HardSigmoid"],
      ["Sqrt", "Abs", "Sqrt"],
      ["Log", "Exp", "Log"],
      ["Reciprocal", "Exp", "Reciprocal"],
      ["Pow", "x odd", "Pow"],
      ["Sub", "j i", "ahead"],
      ["Mod", "ahead five", "mod"],
      ["Mod", "ahead five", "fmod", { fmod: 1 }],
      ["Div", "ahead five", "div"],
      ["Less", "mod two", "less"],
      ["LessOrEqual", "fmod zero", "not_ahead"],
      ["Xor", "less not_ahead", "either"],
      ["Not", "either", "neither"],
      ["And", "neither less", "both"],
      ["CastLike", "both x", "flag"],
      ["Cast", "div", "far", { to: 10 }],
      ["Min", "far limit flag", "Min"],
      ["Max", "x far flag", "Max"],
    ];
    const summed = lines.map(([, , output]) => output).filter((name) => /^[A-Z]\w/.test(name));
    lines.push(["Sum", summed.join(" "), "sum"], ["Mul", "sum tenth", "y"]);
    const numbers = [
      integers("five", [], [5]),
      initializer("odd", [], [5]),
      initializer("limit", [], [0.5]),
    ];
    const little = initializer("little", [], [1 / 64]);
    const gelu = (x: number, bent: number) => 0.5 * x * (1 + bent);
    const js = (x: number, { qIdx, kvIdx }: ReferencePosition) => {
      const ahead = kvIdx - qIdx;
      const mod = ((ahead % 5) + 5) % 5;
      const less = mod < 2;
      const notAhead = ahead % 5 <= 0;
      const far = Math.trunc(ahead / 5);
      const flag = Number(less === notAhead && less);
      const round = Math.floor(x + 0.5); // no draw lies between two whole numbers
      const exp = Math.exp(x);
      const ones = -x + Math.abs(x) + exp + Math.floor(x) + Math.ceil(x) + round + Math.sign(x);
      const twos =
        (Math.sin(x) + Math.cos(x) + Math.atan(x)) / 64 + Math.log1p(exp) + x / (1 + Math.abs(x));
      const gelus =
        gelu(x, erf(x * Math.SQRT1_2)) +
        gelu(x, Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
      const bent = Math.max(x, 0) + (x < 0 ? 0.25 * x : x) + (x < 0 ? Math.expm1(x) : x);
      const rest =
        Math.min(1, Math.max(0, 0.2 * x + 0.5)) + Math.sqrt(Math.abs(x)) + x + 1 / exp + x ** 5;
      return (
        0.1 *
        (ones + twos + gelus + bent + rest + Math.min(far, 0.5, flag) + Math.max(x, far, flag))
      );
    };
    const all = graph(lines, [...NUMBERS, ...numbers, little, initializer("tenth", [], [0.1])]);
    // scores below 1, whose fifth powers are small
    return run({ score: { graph: all, js }, scale: 0.2 });
  });

  it("that move what is known: slices, transposes, shapes of shapes, triangles", () => {
    const lines: Line[] = [
      ...PLACES,
      ["Slice", "shape two_1 four_1", "last_two"], // [M, N]
      ["Concat", "one_1 last_two", "wide", { axis: 0 }], // [1, M, N]
      ["ConstantOfShape", "wide", "ones", { value: { dtype: "float32", dims: [1], data: [1] } }],
      ["Trilu", "ones", "lower", { upper: 0 }],
      ["Squeeze", "lower zero_1", "triangle"],
      ["Transpose", "stored", "turned"], // [21, 8] to [8, 21]
      ["Slice", "turned last minus_99 zero_1 minus_ones", "reversed"], // rows 3 .. 0
      ["Mul", "triangle reversed", "cut"],
      ["Size", "x", "size"],
      ["Div", "size N", "rows"],
      ["Reshape", "flat by_pairs", "pairs"], // [84] to [4, 21], through [2, 42]
      ["Reshape", "pairs by_head", "by_heads"],
      ["Expand", "by_heads expanded", "all"],
      ["Range", "start stop step", "ramp"], // 0, 0.5, ..
      ["Gather", "ramp j", "along"],
      ["Sum", "x cut all along", "y"],
    ];
    const numbers = [
      integers("two_1", [1], [2]),
      integers("four_1", [1], [4]),
      integers("one_1", [1], [1]),
      integers("zero_1", [1], [0]),
      integers("last", [1], [M - 1]),
      integers("minus_99", [1], [-99]),
      initializer("stored", [N, 8], [...normal(4, 8 * N).map(Math.fround)]),
      initializer("flat", [H * N], [...table]),
      integers("by_pairs", [2], [2, -1]),
      integers("by_head", [4], [1, H, 1, N]),
      integers("expanded", [4], [1, 1, M, 1]),
      initializer("start", [], [0]),
      initializer("stop", [], [11]),
      initializer("step", [], [0.5]),
    ];
    const stored = normal(4, 8 * N).map(Math.fround);
    const js = (x: number, { head, qIdx, kvIdx }: ReferencePosition) =>
      x +
      (kvIdx <= qIdx ? stored[kvIdx * 8 + M - 1 - qIdx] : 0) +
      table[head * N + kvIdx] +
      0.5 * kvIdx;
    return run({ score: { graph: graph(lines, [...NUMBERS, ...numbers]), js } });
  });
});

describe("prob_mod", () => {
  it("on probabilities of scores that were changed, also those of hidden keys", () => {
    const gain = [1, -2, 0.5, 3];
    return run({
      Dv: 12,
      score: {
        graph: graph(
          [...PLACES, ["GreaterOrEqual", "i j", "seen"], ["Where", "seen x minus_infinity", "y"]],
          [...NUMBERS, initializer("minus_infinity", [], [HIDDEN])],
        ),
        js: (s, { qIdx, kvIdx }) => (qIdx >= kvIdx ? s : HIDDEN),
      },
      prob: {
        graph: graph(
          [
            ["Mul", "x x", "squared"],
            ["Mul", "squared gain", "gained"],
            ["Add", "gained little", "y"],
          ],
          [initializer("gain", [H, 1, 1], gain), initializer("little", [], [0.125])],
        ),
        js: (p, { head }) => p * p * gain[head] + 0.125,
      },
    });
  });
});

describe("refused", () => {
  it("is what has no translation, by name", async () => {
    const device = await testDevice();
    // biome-ignore format: three shapes
    const [q, k, v] = [[B, H, M, D], [B, Hkv, N, D], [B, Hkv, N, D]].map((shape) => tensor(device, shape));
    const inf = initializer("inf", [], [HIDDEN]);
    const cases: [graph: OnnxGraph, message: string | RegExp][] = [
      [
        graph([["ReduceMax", "x", "y"]]),
        /^score_mod: node 0, ReduceMax: there is no such operator here, but Constant, Shape, .*, CastLike\.$/,
      ],
      [graph([["Relu", "x", "z"]]), "score_mod: nothing gives the output y."],
      [graph([["Add", "x bias", "y"]]), "score_mod: node 0, Add: nothing gives its input bias."],
      [
        graph(
          [
            ["Slice", "x a b c", "s"],
            ["Concat", "s s", "y", { axis: 3 }],
          ],
          [integers("a", [1], [0]), integers("b", [1], [N]), integers("c", [1], [3])],
        ),
        /^score_mod: must give floats \[2, 4, 4, 21\], as it takes, not f32 \[2, 4, 4, 42\]\.$/,
      ],
      [
        graph(
          [["Slice", "x a b c d", "y"]],
          [
            integers("a", [1], [-1]),
            integers("b", [1], [-99]),
            integers("c", [1], [3]),
            integers("d", [1], [-1]),
          ],
        ),
        "score_mod: an element of the result must come from the input at its own place only.",
      ],
      [
        graph([["Greater", "x inf", "y"]], [inf]),
        "score_mod: must give floats [2, 4, 4, 21], as it takes, not bool [2, 4, 4, 21].",
      ],
      [
        graph(
          [
            ["Add", "x inf", "a"],
            ["Sin", "a", "y"],
          ],
          [inf],
        ),
        "score_mod: Sin: an operand may be -Infinity, which has no place in it.",
      ],
      [
        graph([["Sub", "x inf", "y"]], [inf]),
        "score_mod: Sub: -Infinity is taken away, and Infinity has no place in WGSL.",
      ],
      [
        graph([["Mul", "x inf", "y"]], [inf]),
        "score_mod: Mul: -Infinity times something that is no positive constant has no place in it.",
      ],
      [
        graph([["Add", "x n", "y"]], [initializer("n", [], [Number.NaN])]),
        "score_mod: Add: a constant NaN has no place in WGSL.",
      ],
      [
        graph([["Add", "x n", "y"]], [integers("n", [], [1])]),
        "score_mod: node 0, Add: takes tensors of one type, got f32, i32.",
      ],
      [
        graph([["Add", "x n", "y"]], [initializer("n", [5], [1, 2, 3, 4, 5])]),
        "score_mod: node 0, Add: shapes [2, 4, 4, 21] and [5] do not broadcast.",
      ],
      [
        graph([["Add", "x n", "y"]], [initializer("n", [2], [1])]),
        "score_mod: n [2] has 1 elements.",
      ],
      [
        graph([["Add", "x n", "y"]], [initializer("n", [], [1], "complex64")]),
        /^score_mod: n is of complex64; there are float32, /,
      ],
      [{ inputs: ["a", "b"], outputs: ["a"] }, "score_mod: must have one input and one output."],
      [{ inputs: "a", outputs: ["a"] }, 'score_mod: inputs must be a list, got "a".'],
      [
        { inputs: ["a"], outputs: ["a"], node: [] },
        'score_mod: a graph has no member "node", but inputs, outputs, nodes, initializers, name, doc_string.',
      ],
      [
        { inputs: ["a"], outputs: ["b"], nodes: [5] },
        "score_mod: node 0 must be { op, inputs, outputs }, got 5.",
      ],
      [
        { inputs: ["a"], outputs: ["a"], initializers: [null] },
        "score_mod: an initializer must be a tensor, got null.",
      ],
    ];
    const X = "ai.onnx.preview.FlexAttention: ";
    for (const [score_mod, message] of cases) {
      const whole =
        typeof message === "string"
          ? X + message
          : new RegExp(message.source.replace("^", `^${X}`));
      await expectError(() => FlexAttention([q, k, v], { score_mod }), "argument", whole);
    }
    await expectError(
      () => FlexAttention([q, k, v], { prob_mod: graph([["Add", "x inf", "y"]], [inf]) }),
      "argument",
      `${X}prob_mod: a probability may become -Infinity, which has no place in WGSL.`,
    );
    await expectError(
      () => FlexAttention([q, k, q]),
      "argument",
      `${X}K and V must have the same batch size, heads and length, got Q [2,4,4,8], K [2,2,21,8], V [2,4,4,8].`,
    );
    for (const one of [q, k, v]) one.destroy();
  });
});

/** Computes the error function by its series. */
function erf(x: number): number {
  let term = x;
  let sum = x;
  for (let n = 1; n < 80; n++) {
    term *= (-x * x) / n;
    sum += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * sum;
}
