// Dot-product, concat and additive attention on the vectors of Keras' Attention and AdditiveAttention layers.

import { attention, attentionWeights, type Similarity, type Tensor, tensor } from "../../src/index.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { describeVectors, expectVector, type Vector, type VectorTensor } from "../support/vectors.ts";

failOnGpuErrors();

const LAYERS = ["keras.Attention", "keras.AdditiveAttention"];
const SCORES = ["keras.AttentionScores", "keras.AdditiveAttentionScores"];

const COLUMNS = 4;

/** What Keras' layers compute, in our options. A layer's scalars are numbers. */
function optionsOf({ op, attributes }: Vector, v: VectorTensor | undefined) {
  const { score_mode, scale, concat_score_weight } = attributes;
  const additive = (similarity: object): { similarity: Similarity } => ({
    similarity: { kind: "additive", ...similarity },
  });
  if (op.startsWith("keras.Additive"))
    return additive(v ? { vector: [...v.data, ...new Array<number>(COLUMNS - v.data.length).fill(0)] } : {});
  if (score_mode === "concat") return additive({ vector: concat_score_weight, innerScale: scale ?? 1 });
  return { scale: scale ?? 1 };
}

describeVectors([...LAYERS, ...SCORES], async (vector) => {
  const device = await testDevice();
  const used: Tensor[] = [];
  const make = (shape: readonly number[], options: Parameters<typeof tensor>[2]) => {
    used.push(tensor(device, shape, options));
    return used[used.length - 1];
  };
  const isLayer = LAYERS.includes(vector.op);
  const [query, key, ...rest] = vector.inputs as VectorTensor[];
  const [value, queryMask, valueMask, layerVector] = isLayer ? rest : [undefined, undefined, undefined, ...rest];
  // Columns of zeros add nothing to a score, so one kernel serves all vectors, which have 1, 2 or 4 columns.
  const withHead = ({ shape: [B, rows, D], data }: VectorTensor) => {
    const at = (i: number) => (i % COLUMNS < D ? data[Math.floor(i / COLUMNS) * D + (i % COLUMNS)] : 0);
    return make([B, 1, rows, COLUMNS], { data: Array.from({ length: B * rows * COLUMNS }, (_, i) => at(i)) });
  };
  const [q, k] = [withHead(query), withHead(key)];
  const options = optionsOf(vector, layerVector);
  const [B, M] = query.shape;
  const N = key.shape[1];
  const seenKeys = valueMask ? [...valueMask.data] : new Array<number>(B * N).fill(1);
  const keys = { mask: make([B, 1, 1, N], { dtype: "u8", data: seenKeys }) };
  try {
    const [output, scores] = isLayer ? vector.outputs : [undefined, vector.outputs[0]];
    if (output && value) {
      // A query mask hides all keys from a query; Keras' weights do not know of it.
      const seen = (i: number) => {
        const row = Math.floor(i / N); // of [B, M]
        return (queryMask?.data[row] ?? 1) * seenKeys[Math.floor(row / M) * N + (i % N)];
      };
      const data = Array.from({ length: B * M * N }, (_, i) => seen(i));
      const mask = make([B, 1, M, N], { dtype: "u8", data });
      const result = await attention(q, k, withHead(value), { ...options, mask, variant: "8x32" });
      used.push(result.output);
      expectVector(vector, await result.output.slice(3, 0, value.shape[2]).read(), 0);
    }
    if (scores) {
      const stage = isLayer ? "probabilities" : "raw";
      const weights = await attentionWeights(q, k, { ...options, ...keys, stage });
      used.push(weights);
      expectVector(vector, await weights.read(), isLayer ? 1 : 0);
    }
  } finally {
    for (const one of used) one.destroy();
  }
});
