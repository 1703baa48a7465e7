// Position encodings on the vectors of ONNX and ONNX Runtime.

import { rotary, splitHeads, t5Buckets, tensor } from "../../src/index.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { describeVectors, expectVector, floatDtype, type Vector, type VectorTensor } from "../support/vectors.ts";

failOnGpuErrors();

const attributesOf = ({ op, attributes, inputs }: Vector) => {
  const {
    interleaved = 0,
    rotary_embedding_dim: dim = 0,
    num_heads: heads = 0,
    mrope_section,
    mrope_layout,
  } = attributes;
  return {
    interleaved: interleaved === 1,
    ...(dim > 0 && { rotaryDim: dim }),
    ...(op.endsWith("MRotaryEmbedding") && {
      sections: mrope_section,
      sectionLayout: mrope_layout === 1 ? ("interleaved" as const) : ("blocks" as const),
      attentionFactor: attributes.scale,
    }),
    heads: heads as number,
    x: inputs[0] as VectorTensor,
  };
};

describeVectors(
  ["ai.onnx.RotaryEmbedding", "com.microsoft.RotaryEmbedding", "com.microsoft.MRotaryEmbedding"],
  async (vector) => {
    const { heads, x, ...options } = attributesOf(vector);
    // The domains differ in the order of their inputs.
    const [ids, cosCache, sinCache] = [1, 2, 3].map(
      (index) => vector.inputs[vector.op.startsWith("ai.onnx") ? [3, 1, 2][index - 1] : index],
    );
    const device = await testDevice();
    const upload = (given: VectorTensor) => tensor(device, given.shape, { data: given.data, dtype: floatDtype(given) });
    const [input, cos, sin] = [x, cosCache as VectorTensor, sinCache as VectorTensor].map(upload);
    const rotaryDim = options.rotaryDim ?? 2 * (cos.shape.at(-1) as number);
    // [B, M, H * D] without a number of heads has heads of R.
    const split = x.shape.length === 3 ? splitHeads(input, heads || (x.shape[2] as number) / rotaryDim) : input;
    const output = tensor(device, x.shape, { dtype: input.dtype });
    const into = x.shape.length === 3 ? splitHeads(output, split.shape[1]) : output;
    // One id stands for the position of the first row.
    const positions = ids && (ids.data.length === 1 ? { positionOffset: ids.data[0] } : { positionIds: [...ids.data] });
    await rotary(split, { ...options, cos, sin, ...positions, output: into });
    expectVector(vector, await output.read());
    for (const used of [input, cos, sin, output]) used.destroy();
  },
);

describeVectors(["com.microsoft.RelativePositionBias"], (vector) => {
  const [table, queries, keys] = vector.inputs as VectorTensor[];
  const [M, N] = [queries.data[0], keys.data[0]];
  // The table's numbers lie in column-major order.
  const [buckets, heads] = table.shape;
  const { max_distance: maxDistance, is_bidirectional } = vector.attributes;
  const found = t5Buckets(M, N, { buckets, maxDistance, bidirectional: is_bidirectional === 1 });
  const head = (h: number) => Array.from(found, (bucket) => table.data[h * buckets + bucket]);
  expectVector(vector, Array.from({ length: heads }, (_, h) => head(h)).flat());
});
