// Loading and running a model: what is refused, what is left, and other kinds of models.

import { expect, it } from "vitest";
import { bytesSource, Model } from "../../src/models/index.ts";
import { normal } from "../../src/reference/random.ts";
import { checkpointOf, filesOf, smallConfig, smallWeights } from "../support/checkpoints.ts";
import { counted } from "../support/counted.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import type { Tensors } from "../support/reference_decoder.ts";

failOnGpuErrors();

const config = smallConfig("llama", { num_hidden_layers: 1 });
const tensors = smallWeights(config);

it.each<[string, Tensors, RegExp]>([
  [
    "without a tensor",
    Object.fromEntries(Object.entries(tensors).filter(([name]) => !name.includes("o_proj"))),
    /layers\.0\.self_attn\.o_proj\.weight \[20,24\] is missing, which a llama of this config has/,
  ],
  [
    "with one too many",
    { ...tensors, "model.layers.0.odd": { shape: [2], data: new Float32Array(2) } },
    /a llama of this config has no layers\.0\.odd/,
  ],
  [
    "with one of another shape",
    { ...tensors, "model.norm.weight": { shape: [19], data: new Float32Array(19) } },
    /norm\.weight is \[19\]; by the config it is \[20\]/,
  ],
])("weights %s are refused, and nothing stays on the GPU", async (_, given, message) => {
  const { device, bytes } = counted(await testDevice());
  await expectError(() => Model.load(device, checkpointOf(config, given)), "file", message);
  expect(bytes()).toBe(0);
});

it("tells progress, runs texts of several sizes, and leaves nothing", async () => {
  const { device, bytes } = counted(await testDevice());
  const told: [number, number][] = [];
  const model = await Model.load(device, checkpointOf(config, tensors), {
    onProgress: (loaded, total) => told.push([loaded, total]),
  });
  const elements = Object.values(tensors).reduce((sum, { data }) => sum + data.length, 0);
  expect(told.at(-1)).toEqual([4 * elements, 4 * elements]);
  expect(model.bytes).toBe(4 * elements);
  const ids = [3, 9, 27, 19];
  const { logits } = await model.run({ ids: [ids] });
  const watched = await model.run({ ids: [ids] }, { hidden: true, attention: [0] });
  expect(watched.logits.data).toEqual(logits.data);
  expect(Object.keys(watched)).toEqual(["attention.0", "hidden.0", "logits"]);
  const { shape, data } = watched["attention.0"];
  expect(shape).toEqual([1, 4, 4, 4]);
  for (let row = 0; row < 16; row++) {
    const sum = data.subarray(row * 4, row * 4 + 4).reduce((a, b) => a + b, 0);
    expect(sum).toBeCloseTo(1, 5);
  }
  // Texts of other lengths, more than programs are kept.
  for (const length of [1, 2, 3, 5, 6, 4]) {
    const { logits: other } = await model.run({ ids: [[...ids, 1, 2].slice(0, length)] });
    expect(other.shape).toEqual([1, length, 31]);
    const same = Math.min(length, 4) * 31;
    for (let at = 0; at < same; at++) expect(other.data[at]).toBeCloseTo(logits.data[at], 4);
  }
  for (const [inputs, message] of [
    [{}, /ids must be a list of lists/],
    [{ ids: [] }, /ids must be a list of lists/],
    [{ ids: [[1, 31]] }, /ids are whole numbers below 31, got 31/],
    [{ ids: [[1, 2], [3]] }, /ids must be 2 lists of 2 numbers each, got lengths 2, 1/],
    [{ ids: [new Array(65).fill(1)] }, /takes up to 64 tokens, got 65/],
    [{ ids: [[1, 2]], mask: [[1]] }, /mask must be 1 lists of 2 numbers each/],
    [{ ids: [[1, 2]], types: [[0, 0]] }, /takes ids, mask, and no types/],
    [{ pixels: { shape: [1], data: [0] } }, /takes ids, mask, and no pixels/],
  ] as const)
    await expectError(() => model.run(inputs as never), "argument", message);
  await expectError(
    () => model.run({ ids: [ids] }, { attention: [1] }),
    "argument",
    /0 to 0, got 1/,
  );
  model.destroy();
  await expectError(() => model.run({ ids: [ids] }), "destroyed", /was destroyed/);
  await device.queue.onSubmittedWorkDone();
  expect(bytes()).toBe(0);
});

it("keeps weights of 16 bits as they are, and computes as with the same in f32", async () => {
  const device = await testDevice();
  const rounded = Object.fromEntries(
    Object.entries(tensors).map(([name, { shape, data }]) => {
      const bits = new Uint32Array(Float32Array.from(data as ArrayLike<number>).buffer);
      return [name, { shape, data: new Float32Array(bits.map((x) => x & 0xffff0000).buffer) }];
    }),
  );
  const files = filesOf(config, rounded);
  const half = { ...files, "model.safetensors": inBf16(files["model.safetensors"]) };
  const wide = await Model.load(device, bytesSource(files));
  const narrow = await Model.load(device, bytesSource(half));
  expect(narrow.bytes).toBe(wide.bytes / 2);
  const [a, b] = await Promise.all([wide, narrow].map((model) => model.run({ ids: [[1, 5, 7]] })));
  for (const [at, value] of a.logits.data.entries())
    expect(b.logits.data[at]).toBeCloseTo(value, 5);
  wide.destroy();
  narrow.destroy();
});

/** A file of f32 whose low halves are 0, as one of bf16. */
function inBf16(file: Uint8Array): Uint8Array {
  const length = Number(new DataView(file.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + length)));
  for (const one of Object.values(header) as { dtype: string; data_offsets: number[] }[]) {
    one.dtype = "BF16";
    one.data_offsets = one.data_offsets.map((at) => at / 2);
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const data = new Uint16Array(file.slice(8 + length).buffer).filter((_, at) => at % 2 === 1);
  const made = new Uint8Array(8 + text.length + data.byteLength);
  new DataView(made.buffer).setBigUint64(0, BigInt(text.length), true);
  made.set(text, 8);
  made.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), 8 + text.length);
  return made;
}

it("a ViT takes pixels, and classifies by its class token", async () => {
  const sizes = { hidden_size: 8, num_attention_heads: 2, num_hidden_layers: 1 };
  const vit = {
    model_type: "vit",
    ...sizes,
    intermediate_size: 12,
    image_size: 4,
    patch_size: 2,
    num_channels: 1,
    id2label: { 0: "a", 1: "b", 2: "c" },
  };
  const shapes: Record<string, readonly number[]> = {
    "vit.embeddings.cls_token": [1, 1, 8],
    "vit.embeddings.position_embeddings": [1, 5, 8],
    "vit.embeddings.patch_embeddings.projection.weight": [8, 1, 2, 2],
    "vit.embeddings.patch_embeddings.projection.bias": [8],
    "vit.layernorm.weight": [8],
    "vit.layernorm.bias": [8],
    "classifier.weight": [3, 8],
    "classifier.bias": [3],
  };
  const layer = "vit.encoder.layer.0";
  for (const name of ["query", "key", "value"]
    .map((one) => `attention.attention.${one}`)
    .concat("attention.output.dense")) {
    shapes[`${layer}.${name}.weight`] = [8, 8];
    shapes[`${layer}.${name}.bias`] = [8];
  }
  for (const [name, outputs, inputs] of [
    ["intermediate.dense", 12, 8],
    ["output.dense", 8, 12],
  ] as const) {
    shapes[`${layer}.${name}.weight`] = [outputs, inputs];
    shapes[`${layer}.${name}.bias`] = [outputs];
  }
  for (const name of ["layernorm_before", "layernorm_after"]) {
    shapes[`${layer}.${name}.weight`] = [8];
    shapes[`${layer}.${name}.bias`] = [8];
  }
  const made = Object.fromEntries(
    Object.entries(shapes).map(([name, shape], at) => {
      const data = normal(
        at + 1,
        shape.reduce((product, one) => product * one, 1),
        0.5,
      );
      return [name, { shape, data }];
    }),
  );
  const model = await Model.load(await testDevice(), checkpointOf(vit, made));
  const pixels = { shape: [2, 1, 4, 4], data: normal(99, 32) };
  const { class_logits: logits, last_hidden_state: rows } = await model.run({ pixels });
  expect(logits.shape).toEqual([2, 3]);
  expect(rows.shape).toEqual([2, 5, 8]);
  const classifier = made["classifier.weight"].data;
  for (let entry = 0; entry < 2; entry++)
    for (let label = 0; label < 3; label++) {
      let sum = made["classifier.bias"].data[label];
      for (let d = 0; d < 8; d++) sum += rows.data[entry * 40 + d] * classifier[label * 8 + d];
      expect(logits.data[entry * 3 + label]).toBeCloseTo(sum, 4);
    }
  await expectError(() => model.run({ ids: [[1]] }), "argument", /takes pixels, and no ids/);
  model.destroy();
});
