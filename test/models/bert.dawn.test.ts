// Embeddings of sentences: means of the rows of encoders of texts.

import { expect, it } from "vitest";
import { Model } from "../../src/models/index.ts";
import { checkpointOf, drawnTensors, smallConfig, smallWeights } from "../support/checkpoints.ts";
import { expectClose } from "../support/close.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { DISTILBERT as config, distilbertShapes as shapes, W } from "../support/distilbert.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

it.each([true, false])("are those of the rows that a mask counts: %s", async (isMasked) => {
  const model = await Model.load(
    await testDevice(),
    checkpointOf(config, drawnTensors(shapes(), 2)),
  );
  const ids = [
    [3, 9, 16, 1, 7],
    [5, 5, 2, 0, 0],
  ];
  const mask = [[1, 1, 1, 1, 1], isMasked ? [1, 1, 1, 0, 0] : [1, 1, 1, 1, 1]];
  const found = await model.run({ ids, mask }, { sentence: true });
  const rows = found.last_hidden_state.data;
  const means = mask.flatMap((counts, entry) => {
    const all = counts.reduce((sum, one) => sum + one, 0);
    return Array.from({ length: W }, (_, d) =>
      counts.reduce((sum, one, t) => sum + (one * rows[(entry * 5 + t) * W + d]) / all, 0),
    );
  });
  const units = means.map((value, at) => {
    const begin = at - (at % W);
    return value / Math.hypot(...means.slice(begin, begin + W));
  });
  expect(found.mean_pooled.shape).toEqual([2, W]);
  expectClose(found.mean_pooled.data, means);
  expectClose(found.sentence_embedding.data, units);
  model.destroy();
});

it("are not there for decoders", async () => {
  const small = smallConfig("llama", { num_hidden_layers: 1 });
  const model = await Model.load(await testDevice(), checkpointOf(small, smallWeights(small)));
  await expectError(
    () => model.run({ ids: [[1]] }, { sentence: true }),
    "argument",
    /llama: has no embeddings of sentences/,
  );
  await expectError(
    () => model.run({ ids: [[1]] }, { crossAttention: [0] }),
    "argument",
    /llama: has no crossAttention; only models with an encoder and a decoder do/,
  );
  model.destroy();
});
