// Models whose weights become integers when they are loaded, against float64.

import { expect, it } from "vitest";
import { Model, type WeightOptions } from "../../src/models/index.ts";
import { dequantiseRow, quantiseRow } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { checkpointOf, smallConfig, smallWeights } from "../support/checkpoints.ts";
import { counted } from "../support/counted.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import { decoderLogits, type Tensors } from "../support/reference_decoder.ts";

failOnGpuErrors();

/** Rows that have groups of integers, but for those of the feed-forward layer's end. */
const config = smallConfig("llama", {
  hidden_size: 48,
  head_dim: 8,
  intermediate_size: 27,
  num_hidden_layers: 2,
  vocab_size: 61,
});
const tensors = smallWeights(config);
const ids = Array.from({ length: 20 }, (_, at) => (at * 23 + 7) % 61);

/** The tensors with the numbers that integers stand for; `turned` ones have columns for rows. */
function rounded(given: Tensors, bits: 8 | 4, most: number, turned = /^$/): Tensors {
  const made = Object.entries(given).map(([name, { shape, data }]) => {
    const isTurned = turned.test(name);
    const [rows, inner] = isTurned ? [shape[1], shape[0]] : shape;
    const group = [...Array(most + 1).keys()].findLast(
      (size) => size % 8 === 0 && inner % size === 0,
    );
    if (shape.length !== 2 || !group) return [name, { shape, data }];
    const at = (row: number, k: number) => (isTurned ? k * rows + row : row * inner + k);
    const numbers = new Float32Array(data.length);
    for (let row = 0; row < rows; row++) {
      const own = Float32Array.from({ length: inner }, (_, k) => data[at(row, k)]);
      const integers = dequantiseRow(quantiseRow(own, { bits, group }), { bits, group });
      integers.forEach((value, k) => {
        numbers[at(row, k)] = value;
      });
    }
    return [name, { shape, data: numbers }];
  });
  return Object.fromEntries(made);
}

const largestOf = (values: ArrayLike<number>) => Math.max(...Array.from(values, Math.abs));

const topsOf = (logits: ArrayLike<number>, vocab: number) =>
  Array.from({ length: logits.length / vocab }, (_, row) => {
    const own = Array.from({ length: vocab }, (_, at) => logits[row * vocab + at]);
    return own.indexOf(Math.max(...own));
  });

it.each([
  ["int8", undefined, 128],
  ["int4", 16, 16],
] as const)(
  "a llama of %s has the logits of its integers' numbers",
  async (dtype, groupSize, most) => {
    const { device, bytes } = counted(await testDevice());
    const weights = { dtype, ...(groupSize && { groupSize }) };
    const model = await Model.load(device, checkpointOf(config, tensors), { weights });
    expect(bytes()).toBeLessThan(model.bytes + 64);
    const { logits } = await model.run({ ids: [ids] });
    const expected = decoderLogits(config, rounded(tensors, dtype === "int8" ? 8 : 4, most), ids);
    const allowed = 1e-5 * largestOf(expected);
    for (let at = 0; at < expected.length; at++)
      expect(Math.abs(logits.data[at] - expected[at])).toBeLessThan(allowed);
    // A row alone goes through the kernel for few rows.
    const alone = await model.run({ ids: [ids.slice(0, 1)] });
    for (let at = 0; at < config.vocab_size; at++)
      expect(Math.abs(alone.logits.data[at] - expected[at])).toBeLessThan(allowed);
    if (dtype === "int8") {
      const tops = topsOf(decoderLogits(config, tensors, ids), config.vocab_size);
      const same = topsOf(logits.data, config.vocab_size).filter((top, at) => top === tops[at]);
      expect(same.length).toBeGreaterThanOrEqual(0.9 * tops.length);
    }
    model.destroy();
    await device.queue.onSubmittedWorkDone();
    expect(bytes()).toBe(0);
  },
);

it("keeps norms and weights whose rows have no groups, and says what memory is left", async () => {
  const device = await testDevice();
  const plain = await Model.load(device, checkpointOf(config, tensors));
  const model = await Model.load(device, checkpointOf(config, tensors), {
    weights: { dtype: "int8" },
  });
  let bytes = 0;
  for (const { shape, data } of Object.values(tensors)) {
    const [rows, inner] = shape;
    const isPacked = shape.length === 2 && inner % 8 === 0;
    bytes += isPacked ? rows * (4 + inner) : 4 * data.length;
  }
  expect(model.bytes).toBe(bytes);
  expect(model.bytes).toBeLessThan(0.4 * plain.bytes);
  plain.destroy();
  model.destroy();
});

it("turns weights that are stored by columns, and shares the embedding with the head", async () => {
  const W = 16;
  const gpt2 = {
    model_type: "gpt2",
    n_embd: W,
    n_head: 2,
    n_layer: 1,
    n_positions: 16,
    vocab_size: 29,
  };
  const shapes: Record<string, readonly number[]> = {
    "wte.weight": [29, W],
    "wpe.weight": [16, W],
    "ln_f.weight": [W],
    "ln_f.bias": [W],
    "h.0.attn.c_attn.weight": [W, 3 * W],
    "h.0.attn.c_attn.bias": [3 * W],
    "h.0.attn.c_proj.weight": [W, W],
    "h.0.attn.c_proj.bias": [W],
    "h.0.mlp.c_fc.weight": [W, 4 * W],
    "h.0.mlp.c_fc.bias": [4 * W],
    "h.0.mlp.c_proj.weight": [4 * W, W],
    "h.0.mlp.c_proj.bias": [W],
  };
  for (const norm of ["ln_1", "ln_2"])
    for (const name of ["weight", "bias"]) shapes[`h.0.${norm}.${name}`] = [W];
  const given = Object.fromEntries(
    Object.entries(shapes).map(([name, shape], at) => {
      const size = shape.reduce((product, one) => product * one, 1);
      return [name, { shape, data: normal(at + 40, size, 0.5) }];
    }),
  );
  const device = await testDevice();
  const weights = { dtype: "int4" } as const;
  const model = await Model.load(device, checkpointOf(gpt2, given), { weights });
  const numbers = rounded(given, 4, 32, /c_(attn|proj|fc)\.weight/);
  const same = await Model.load(device, checkpointOf(gpt2, numbers));
  const text = { ids: [[3, 1, 28, 7, 9]] };
  const [a, b] = await Promise.all([model, same].map((one) => one.run(text)));
  const allowed = 1e-5 * largestOf(b.logits.data);
  b.logits.data.forEach((value, at) => {
    expect(Math.abs(a.logits.data[at] - value)).toBeLessThan(allowed);
  });
  model.destroy();
  same.destroy();
});

it.each<[unknown, RegExp]>([
  [{ dtype: "int5" }, /weights\.dtype must be "int8" or "int4", got "?int5/],
  [{}, /weights\.dtype must be/],
  [{ dtype: "int8", groupSize: 4 }, /groupSize must be a whole number from 8 up, got 4/],
  [{ dtype: "int8", groupSize: Number.NaN }, /groupSize must be a whole number/],
  [{ dtype: "int8", group: 8 }, /group/],
  ["int8", /options are an object/],
])("weights %j are refused", async (weights, message) => {
  const device = await testDevice();
  const options = { weights: weights as WeightOptions };
  await expectError(
    () => Model.load(device, checkpointOf(config, tensors), options),
    "argument",
    message,
  );
});
