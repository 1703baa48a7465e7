// Linear attention on the vectors of ONNX LinearAttention-27 and ONNX Runtime's com.microsoft.LinearAttention.

import { linearAttention, splitHeads, type Tensor, tensor } from "../../src/index.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { describeVectors, expectVector, floatDtype, type VectorTensor } from "../support/vectors.ts";

failOnGpuErrors();

describeVectors(["ai.onnx.LinearAttention", "com.microsoft.LinearAttention"], async (vector) => {
  const device = await testDevice();
  const used: Tensor[] = [];
  const put = (given: VectorTensor, dtype = floatDtype(given)) => {
    const made = tensor(device, given.shape, { data: given.data, dtype });
    used.push(made);
    return made;
  };
  const { q_num_heads, kv_num_heads, scale, update_rule: updateRule = "gated_delta" } = vector.attributes;
  const [query, key, value, past, decay, beta] = vector.inputs;
  const headDim = (query as VectorTensor).shape[2] / q_num_heads;
  const heads = (given: VectorTensor, count: number) => splitHeads(put(given), count);
  const [q, k, v] = [
    heads(query as VectorTensor, q_num_heads),
    heads(key as VectorTensor, (key as VectorTensor).shape[2] / headDim),
    heads(value as VectorTensor, kv_num_heads),
  ];
  const result = await linearAttention(q, k, v, {
    ...{ updateRule, presentState: true },
    ...(scale && { scale }), // 0 is the default
    ...(decay && { decay: heads(decay, kv_num_heads) }),
    ...(beta && { beta: heads(beta, beta.shape[2]) }),
    ...(past && { pastState: put(past, "f32") }),
  });
  used.push(...(Object.values(result) as Tensor[]));
  // [B, H, T, D] as [B, T, H D], the operator's.
  expectVector(vector, await result.output.permute(0, 2, 1, 3).read());
  expectVector(vector, await (result.presentState as Tensor).read(), 1);
  for (const one of used) one.destroy();
});
