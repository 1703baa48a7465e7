// State dicts of PyTorch models, by the names of Hugging Face: the layer that they make against the
// float64 reference.

import { describe, expect, it } from "vitest";
import {
  MultiHeadAttention,
  multiHeadWeights,
  type StateDict,
  tensor,
  type WeightSource,
} from "../../src/index.ts";
import { multiHeadAttention as reference, worstElement } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { counted } from "../support/counted.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

const B = 2;
const M = 5;
const D = 8;

/** A linear layer [out, in], with a bias if it has one. */
interface Linear {
  readonly weight: {
    readonly data: Float32Array<ArrayBuffer>;
    readonly shape: readonly [number, number];
  };
  readonly bias?: { readonly data: Float32Array<ArrayBuffer>; readonly shape: readonly [number] };
}
let seed = 100;
function linear(rows: number, width: number, bias: boolean): Linear {
  const weight = { data: normal(seed++, rows * width, 0.3), shape: [rows, width] as const };
  return {
    weight,
    ...(bias && { bias: { data: normal(seed++, rows, 0.3), shape: [rows] as const } }),
  };
}

/** Packs linear layers into one, one after the other. */
function packed(...parts: readonly Linear[]): Linear {
  const rows = parts.reduce((sum, part) => sum + part.weight.shape[0], 0);
  const joined = (all: readonly Float32Array[]) =>
    Float32Array.from(all.flatMap((data) => [...data]));
  return {
    weight: {
      data: joined(parts.map((part) => part.weight.data)),
      shape: [rows, parts[0].weight.shape[1]],
    },
    ...(parts[0].bias && {
      bias: {
        data: joined(parts.map((part) => part.bias?.data ?? new Float32Array())),
        shape: [rows],
      },
    }),
  };
}

/** GPT-2's Conv1D: [in, out]. */
function columns({ weight: { data, shape }, bias }: Linear) {
  const [rows, width] = shape;
  const turned = Float32Array.from(
    data,
    (_, index) => data[(index % rows) * width + Math.floor(index / rows)],
  );
  return { weight: { data: turned, shape: [width, rows] as const }, ...(bias && { bias }) };
}

/** Makes entries of a state, with shapes or bare. */
function entries(
  prefix: string,
  linears: Readonly<Record<string, { weight: object; bias?: object }>>,
  bare = false,
) {
  const state: Record<string, WeightSource> = {};
  for (const [name, { weight, bias }] of Object.entries(linears)) {
    for (const [part, source] of Object.entries({ weight, bias })) {
      if (source)
        state[`${prefix}${name}.${part}`] = bare
          ? (source as { data: Float32Array }).data
          : (source as WeightSource);
    }
  }
  return state;
}

interface Model {
  readonly q: Linear;
  readonly k: Linear;
  readonly v: Linear;
  readonly o: Linear;
  readonly heads: number;
  readonly scale?: number;
}

/** Expects that the layer of a state gives what the linear layers give in float64. */
async function expectLayer(
  state: StateDict,
  prefix: string | undefined,
  { q, k, v, o, heads, scale }: Model,
) {
  const device = await testDevice();
  const weights = multiHeadWeights.fromPyTorch(device, state, {
    ...(prefix !== undefined && { prefix }),
  });
  const layer = new MultiHeadAttention(device, weights, { heads });
  const [, width] = q.weight.shape;
  const data = normal(7, B * M * width);
  const x = tensor(device, [B, M, width], { data });
  const run = { variant: "8x32", causal: true, ...(scale && { scale }) } as const;
  const { output } = await layer.forward(x, run);
  const given = { data, shape: [B, M, width] };
  const { output: expected } = reference(
    given,
    given,
    given,
    { query: q, key: k, value: v, output: o },
    {
      heads,
      kvHeads: layer.kvHeads,
      causal: true,
      ...(scale && { scale }),
    },
  );
  expect(worstElement(await output.read(), expected, [B, M, o.weight.shape[0]]).error).toBeLessThan(
    1e-5,
  );
  for (const used of [x, output]) used.destroy();
  layer.destroy();
}

const biased = (which: string, E = 16, H = 2, Hkv = H) => ({
  q: linear(H * D, E, which.includes("q")),
  k: linear(Hkv * D, E, which.includes("k")),
  v: linear(Hkv * D, E, which.includes("v")),
  o: linear(E, H * D, which.includes("o")),
  heads: H,
});

describe("state dicts", () => {
  it("of Llama: fewer key heads, heads wider than the model, no biases, among other layers and parts", async () => {
    const model = biased("", 16, 4, 2);
    const { q, k, v, o } = model;
    const name = "model.layers.1.self_attn";
    const other = biased("", 16, 4, 2);
    const state = {
      ...entries("model.layers.11.self_attn.", {
        q_proj: other.q,
        k_proj: other.k,
        v_proj: other.v,
        o_proj: other.o,
      }),
      ...entries(`${name}.`, { q_proj: q, k_proj: k, v_proj: v, o_proj: o }),
      [`${name}.rotary_emb.inv_freq`]: new Float32Array(4),
      "model.embed_tokens.weight": null as never,
    };
    await expectLayer(state, name, model);
    await expectLayer(new Map(Object.entries(state)), `${name}.`, model);
  });
  it("of Whisper: no bias of k; out_proj", async () => {
    const model = biased("qvo");
    const { q, k, v, o } = model;
    const linears = { q_proj: q, k_proj: k, v_proj: v, out_proj: o };
    await expectLayer(
      entries("encoder.layers.0.self_attn.", linears),
      "encoder.layers.0.self_attn",
      model,
    );
    await expectLayer(entries("", linears, true), undefined, model);
  });
  it("of BERT and ViT, also as arrays without a shape", async () => {
    const model = biased("qkvo");
    const { q, k, v, o } = model;
    const bert = { "self.query": q, "self.key": k, "self.value": v, "output.dense": o };
    const state = {
      ...entries("layer.0.attention.", bert, true),
      "layer.0.attention.output.LayerNorm.weight": new Float32Array(16),
    };
    await expectLayer(state, "layer.0.attention", model);
    const vit = {
      "attention.query": q,
      "attention.key": k,
      "attention.value": v,
      "output.dense": o,
    };
    await expectLayer(entries("a.", vit), "a", model);
  });
  it("of T5, as tensors on the GPU, with its scale of 1", async () => {
    const device = await testDevice();
    const model = { ...biased("", 16, 4), scale: 1 };
    const { q, k, v, o } = model;
    const state = entries("SelfAttention.", { q, k, v, o });
    const table = { "SelfAttention.relative_attention_bias.weight": new Float32Array(32) };
    const onGpu = Object.entries(state).map(([name, source]) => {
      const { data, shape } = source as { data: Float32Array; shape: number[] };
      return [name, tensor(device, shape, { data })];
    });
    await expectLayer({ ...Object.fromEntries(onGpu), ...table }, "SelfAttention", model);
  });
  it("of GPT-2, whose weights are stored [in, out], with and without shapes", async () => {
    const model = biased("qkvo");
    const { q, k, v, o } = model;
    const linears = { c_attn: columns(packed(q, k, v)), c_proj: columns(o) };
    const mask = {
      "h.0.attn.bias": new Float32Array(1),
      "h.0.attn.masked_bias": new Float32Array(1),
    };
    await expectLayer({ ...mask, ...entries("h.0.attn.", linears) }, "h.0.attn", model);
    await expectLayer(entries("", linears, true), undefined, model);
    const crossed = { q_attn: columns(q), c_attn: columns(packed(k, v)), c_proj: columns(o) };
    await expectLayer(entries("", crossed), undefined, model);
  });
  it("of Phi-3: q, k and v packed, with fewer key heads", async () => {
    const model = biased("", 16, 4, 2);
    const { q, k, v, o } = model;
    await expectLayer(entries("", { qkv_proj: packed(q, k, v), o_proj: o }), "", model);
  });
  it("of nn.MultiheadAttention under a prefix", async () => {
    const model = biased("qkvo");
    const { q, k, v, o } = model;
    const { weight, bias } = packed(q, k, v);
    const state = { ...entries("self_attn.", { out_proj: o }), "self_attn.in_proj_weight": weight };
    await expectLayer(
      { ...state, "self_attn.in_proj_bias": bias as WeightSource },
      "self_attn",
      model,
    );
  });
});

const square = { data: new Float32Array(256), shape: [16, 16] };
const llama = {
  "q_proj.weight": square,
  "k_proj.weight": square,
  "v_proj.weight": square,
  "o_proj.weight": square,
};
const prefixed = Object.fromEntries(
  Object.entries(llama).map(([name, source]) => [`m.0.${name}`, source]),
);
const cyclic: { data?: unknown; shape: readonly number[] } = { shape: [16, 16] };
cyclic.data = cyclic;
const detached = new Float32Array(256);
structuredClone(detached, { transfer: [detached.buffer] });

const REFUSED: readonly (readonly [
  what: string,
  state: unknown,
  message: string | RegExp,
  options?: object,
])[] = [
  [
    "a prefix that was not given",
    prefixed,
    'multiHeadWeights: the state has no attention by a known name, such as in_proj_weight, q_proj.weight, self.query.weight, q.weight or c_attn.weight. Try { prefix: "m.0." }. It has "m.0.q_proj.weight", "m.0.k_proj.weight", "m.0.v_proj.weight", "m.0.o_proj.weight".',
  ],
  [
    "another prefix",
    prefixed,
    /Try \{ prefix: "m\.0\." \}\. It has nothing under "m\.1\.", but "m\.0\.q_proj/,
    { prefix: "m.1" },
  ],
  [
    "a prefix that is a number",
    prefixed,
    "multiHeadWeights: prefix must be a string, got 5.",
    { prefix: 5 },
  ],
  [
    "an option that is not there",
    llama,
    /^multiHeadWeights: there is no option "prefx"\. Did you mean prefix\?/,
    { prefx: "" },
  ],
  ["nothing known", { "\u001b[2J": square }, /It has "\\u001b\[2J"\.$/],
  ["nothing at all", {}, /It has nothing\.$/],
  [
    "a thousand other names",
    Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [`w${i}`, square])),
    /"w11" and 988 more\.$/,
  ],
  [
    "a state that is null",
    null,
    "multiHeadWeights: a state is an object { name: weight } or a Map, got null.",
  ],
  ["a state that is a list", [square], /^multiHeadWeights: a state is an object/],
  ["a state that is an array", new Float32Array(4), /^multiHeadWeights: a state is an object/],
  [
    "no key",
    { ...llama, "k_proj.weight": undefined },
    'multiHeadWeights: "k_proj.weight" is missing. The state has "q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight".',
  ],
  [
    "no output",
    { ...llama, "o_proj.weight": null },
    /^multiHeadWeights: "o_proj\.weight" is missing/,
  ],
  [
    "an adapter",
    { ...llama, "q_proj.lora_A.weight": square },
    'multiHeadWeights: "q_proj.lora_A.weight" is neither weight nor bias of q_proj; adapters must be merged and quantised weights unpacked first.',
  ],
  [
    "a weight that is a BigInt",
    { ...llama, "q_proj.weight": 5n },
    /q_proj\.weight must be a Tensor, a Float32Array or \{ data, shape \}, got 5n\.$/,
  ],
  [
    "a weight that holds itself",
    { ...llama, "q_proj.weight": cyclic },
    /q_proj\.weight must be a Tensor.* got \{ shape, data \}\.$/,
  ],
  [
    "a weight without data",
    { ...llama, "q_proj.weight": { shape: [16, 16] } },
    /q_proj\.weight must be a Tensor/,
  ],
  [
    "a weight without a shape",
    { ...llama, "q_proj.weight": { data: [1] } },
    /q_proj\.weight must be a Tensor/,
  ],
  [
    "a DataView",
    { ...llama, "q_proj.weight": { data: new DataView(new ArrayBuffer(8)), shape: [1, 2] } },
    /q_proj\.weight must be a Tensor/,
  ],
  [
    "half a size",
    { ...llama, "q_proj.weight": { data: [1], shape: [0.5, 2] } },
    /the shape of q_proj\.weight must be whole numbers from 0 up, got \[0\.5, 2\]\.$/,
  ],
  [
    "too little data",
    { ...llama, "q_proj.weight": { data: [1], shape: [16, 16] } },
    "q_proj.weight: shape [16,16] has 256 elements; data has 1.",
  ],
  [
    "integers",
    { ...llama, "q_proj.weight": { ...square, dtype: "i32" } },
    /the dtype of q_proj\.weight must be "f32", "f16" or "bf16", got "i32"\.$/,
  ],
  [
    "three axes",
    { ...llama, "q_proj.weight": { ...square, shape: [4, 4, 16] } },
    "multiHeadWeights: q_proj.weight must be [any, any], got [4, 4, 16].",
  ],
  [
    "a bias of another length",
    { ...llama, "q_proj.bias": new Float32Array(8) },
    "multiHeadWeights: q_proj.weight must be [8, any], got [16, 16].",
  ],
  [
    "an array that was transferred",
    { ...llama, "o_proj.weight": detached },
    "multiHeadWeights: o_proj.weight must be square, [E, E], got 0 elements.",
  ],
  [
    "an array that is not square",
    { ...llama, "o_proj.weight": new Float32Array(255) },
    /must be square, \[E, E\], got 255 elements\.$/,
  ],
  [
    "a weight that throws",
    {
      ...llama,
      get "v_proj.weight"(): never {
        throw new TypeError("no");
      },
    },
    'multiHeadWeights: "v_proj.weight" cannot be read: it throws an error.',
  ],
  [
    "a shape that throws",
    {
      ...llama,
      "v_proj.weight": {
        data: [1],
        get shape(): never {
          throw new TypeError("no");
        },
      },
    },
    "multiHeadWeights: v_proj.weight cannot be read: it throws an error.",
  ],
  [
    "q, k and v that are not three",
    {
      "c_attn.weight": { data: new Float32Array(16 * 17), shape: [16, 17] },
      "c_proj.weight": square,
    },
    "multiHeadWeights: c_attn.weight must have the 16 rows of q that c_proj.weight takes, and as many rows of k as of v, got 17 rows.",
  ],
  [
    "a rectangle behind the heads",
    { in_proj_weight: square, "out_proj.weight": { ...square, shape: [8, 32] } },
    "multiHeadWeights: out_proj.weight must be square, [E, E], got [8, 32].",
  ],
];

describe("state dicts that are refused", () => {
  const cases = REFUSED.map(([what, state, message, options = {}]) => ({
    what,
    state,
    message,
    options,
  }));
  it.each(cases)("$what, and nothing is left behind", async ({ state, message, options }) => {
    const { device, buffers } = counted(await testDevice());
    await expectError(
      () => multiHeadWeights.fromPyTorch(device, state as StateDict, options),
      "argument",
      message,
    );
    expect(buffers()).toBe(0);
  });
});

describe("other layouts that are refused", () => {
  const node = { weight: square };
  it.each([
    [
      "null for Keras",
      "fromKeras",
      null,
      /^multiHeadWeights: the layer must be an object \{ query\/kernel, /,
    ],
    [
      "a misspelt name for Keras",
      "fromKeras",
      { "query/kernal": square },
      /there is no option "query\/kernal"\. Did you mean query\/kernel\?/,
    ],
    [
      "nothing for Keras",
      "fromKeras",
      {},
      /attention_output\/kernel must be a Tensor, a Float32Array or \{ data, shape \}, got undefined/,
    ],
    [
      "null for ONNX",
      "fromOnnxAttention",
      null,
      /^multiHeadWeights: the operator must be an object \{ weights, /,
    ],
    [
      "sizes that are two",
      "fromOnnxAttention",
      { weights: square, qkvHiddenSizes: [8, 8] },
      /qkvHiddenSizes must be three whole numbers/,
    ],
    [
      "sizes that are a BigInt",
      "fromOnnxAttention",
      { weights: square, qkvHiddenSizes: 5n },
      /qkvHiddenSizes must be three whole numbers/,
    ],
    [
      "no key node",
      "fromOnnxMatMuls",
      { query: node },
      /^multiHeadWeights: key must be an object \{ weight, bias \}, got undefined/,
    ],
    [
      "null for new ones",
      "glorot",
      null,
      /^multiHeadWeights: embedDim must be a whole number from 1 up, got undefined/,
    ],
    [
      "a name that new ones don't know",
      "glorot",
      { embedDim: 16, heads: 2, num_kv_heads: 1 },
      /there is no option "num_kv_heads"/,
    ],
  ] as const)("%s", async (_, from, given, message) => {
    const { device, buffers } = counted(await testDevice());
    const make = multiHeadWeights[from] as (device: GPUDevice, given: unknown) => unknown;
    await expectError(() => make(device, given), "argument", message);
    expect(buffers()).toBe(0);
  });
});
