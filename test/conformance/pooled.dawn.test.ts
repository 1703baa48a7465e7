// Golden embeddings of sentences whatever they are called: means of rows, of length 1 if they are so.

import { expect, it } from "vitest";
import { Model } from "../../src/models/index.ts";
import { checkpointOf, drawnTensors, filesOf } from "../support/checkpoints.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { DISTILBERT, distilbertShapes, W } from "../support/distilbert.ts";
import { Runner } from "./runner.ts";

failOnGpuErrors();

const tensors = drawnTensors(distilbertShapes(), 7);
const ids = [
  [3, 9, 16, 1],
  [5, 2, 0, 0],
];
const mask = [
  [1, 1, 1, 1],
  [1, 1, 0, 0],
];
const base64 = (bytes: ArrayBufferView) =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
const stored = (data: readonly number[], ...shape: number[]) => ({
  dtype: "float64",
  shape,
  data: base64(Float64Array.from(data)),
});

it("are compared with both, and named if they can be neither", async () => {
  const device = await testDevice();
  const model = await Model.load(device, checkpointOf(DISTILBERT, tensors));
  const rows = (await model.run({ ids, mask })).last_hidden_state.data;
  model.destroy();
  const means = mask.flatMap((counts, entry) =>
    Array.from({ length: W }, (_, d) => {
      const all = counts.reduce((sum, one) => sum + one, 0);
      return counts.reduce((sum, one, t) => sum + (one * rows[(entry * 4 + t) * W + d]) / all, 0);
    }),
  );
  const units = means.map((value, at) => {
    const begin = at - (at % W);
    return value / Math.hypot(...means.slice(begin, begin + W));
  });
  const files = Object.fromEntries(
    Object.entries(filesOf(DISTILBERT, tensors)).map(([name, one]) => [name, base64(one)]),
  );
  const runner = new Runner(() => testDevice());
  const run = (arrays: object) => {
    const golden = { batch: { input_ids: ids, attention_mask: mask, ...arrays } };
    return runner.run(JSON.stringify({ fixture: "small", family: "distilbert", files, golden }));
  };
  const right = { vectors: stored(means, 2, W), of_length_one: stored(units, 2, W) };
  expect(await run(right)).toMatchObject({ status: "passed", message: "" });
  const off = units.map((value, at) => (at === 3 ? value + 1e-3 : value));
  expect(await run({ vectors: stored(off, 2, W) })).toMatchObject({ status: "failed" });
  expect(await run({ odd: stored([1, 2, 3], 3) })).toMatchObject({
    status: "passed",
    message: "nothing was compared with batch.odd",
  });
});
