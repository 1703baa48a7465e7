// Position encodings on the vectors of ONNX, ONNX Runtime and Keras.

import { alibiSlopes, attentionWeights, tensor } from "../../src/index.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { describeVectors, expectVector } from "../support/vectors.ts";

failOnGpuErrors();

describeVectors(["keras.AlibiBias"], async (vector) => {
  const { alibi_bias_max: max, num_heads: H, query_length: M, key_length: N } = vector.attributes;
  const device = await testDevice();
  const [q, k] = [M, N].map((rows) => tensor(device, [1, H, rows, 4])); // zeros: the bias is all of the score
  const options = { stage: "scores", queryOffset: N - M, alibiSlopes: alibiSlopes(H, max) } as const;
  const bias = await attentionWeights(q, k, options);
  expectVector(vector, await bias.read());
  for (const used of [q, k, bias]) used.destroy();
});
