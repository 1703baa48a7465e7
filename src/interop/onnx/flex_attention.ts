// ai.onnx.preview FlexAttention.

import { project, type Tensor } from "../../index.ts";
import { FLOATS, PRECISIONS } from "./attention_inputs.ts";
import { attend, weightsOf } from "./attention_parts.ts";
import { type OnnxCall, onnxOperator } from "./operator.ts";

/**
 * ai.onnx.preview FlexAttention-1: prob_mod(softmax(score_mod(scale * Q K^T))) V. Q [B, Hq, S, D],
 * K [B, Hkv, L, D] and V [B, Hkv, L, Dv], f32, f16 or bf16; Y [B, Hq, S, Dv]; sums are f32 whatever
 * `softmax_precision` says.
 *
 * `score_mod` and `prob_mod` are graphs from [B, Hq, S, L] to the same, decoded:
 *
 * ```
 * { inputs: [name], outputs: [name], nodes: [{ op, inputs, outputs, attributes }],
 *   initializers: [{ name, dtype, dims, data }] }
 * ```
 *
 * with `dtype` as NumPy names it and `data` a list of numbers or base64 of little-endian values;
 * the `value` of a Constant has the same form. Graphs become WGSL. They may have elementwise
 * operators, and operators that make and move indices and constants. An element must come from the
 * score at its own place; an operator that can't be followed is refused by name. A score of
 * -Infinity hides its key; a query whose keys are all hidden gets 0. Graphs of up to 10,000 nodes
 * are taken, 500 of which may follow one another.
 *
 * Without `prob_mod`, nothing of size S x L is in memory. With it the probabilities are in memory,
 * as f32, and a V that is not finite makes NaN, also in rows that don't see its key.
 *
 * @example
 * const halve = { op: "Mul", inputs: ["p", "half"], outputs: ["y"] };
 * const half = { name: "half", dtype: "float32", dims: [], data: [0.5] };
 * const [Y] = await FlexAttention([Q, K, V], {
 *   prob_mod: { inputs: ["p"], outputs: ["y"], nodes: [halve], initializers: [half] },
 * });
 */
export const FlexAttention = /* @__PURE__ */ onnxOperator(
  {
    operator: "ai.onnx.preview.FlexAttention",
    opsets: [1],
    inputs: ["Q", "K", "V"],
    outputs: ["Y"],
    attributes: { score_mod: "graph", prob_mod: "graph", scale: "float", softmax_precision: "int" },
  },
  async (call) => {
    const q = call.tensor("Q");
    const k = call.tensor("K");
    const v = call.tensor("V");
    checkInputs(call, { Q: q, K: k, V: v });
    const {
      score_mod: scoreMod,
      prob_mod: probMod,
      scale,
      softmax_precision: precision,
    } = call.attributes;
    call.expect(
      PRECISIONS.includes(precision),
      () =>
        `softmax_precision must be 1 (float), 10 (float16), 11 (double) or 16 (bfloat16), got ${precision}`,
    );
    const [batch, heads, rows] = q.shape;
    const [, kvHeads, keys, width] = v.shape;
    const shape = [batch, heads, rows, keys];
    const graphs = (scoreMod || probMod) && (await import("./graph_functions.ts"));
    const score = scoreMod && graphs?.graphScore(call, scoreMod, shape);
    const probability = probMod && graphs?.graphProbability(call, probMod, shape);
    const options = {
      ...(scale !== undefined && { scale }),
      ...(score && { scoreFunction: score }),
      label: call.label,
    };
    const Y = call.make([batch, heads, rows, width], q.dtype);
    if (!probability) {
      await attend(call, { q, k, v }, { ...options, output: Y });
      return { Y };
    }
    if (Y.size === 0) return { Y };
    const weights = call.make(shape);
    const changed = { probabilityFunction: probability, output: weights };
    await weightsOf(call, { q, k }, { ...options, ...changed });
    // Heads that share keys are rows of one product.
    const shared = [batch, kvHeads, (heads / kvHeads) * rows];
    await project(weights.view({ shape: [...shared, keys] }), v.permute(0, 1, 3, 2), {
      output: Y.view({ shape: [...shared, width] }),
      label: call.label,
    });
    return { Y };
  },
);

function checkInputs(call: OnnxCall, inputs: Readonly<Record<"Q" | "K" | "V", Tensor>>): void {
  const { Q, K, V } = inputs;
  const shapes = () => `Q [${Q.shape}], K [${K.shape}], V [${V.shape}]`;
  for (const [name, { shape, dtype }] of Object.entries(inputs)) {
    call.expect(shape.length === 4, () => `${name} must have 4 axes, got [${shape}]`);
    call.expect(FLOATS.includes(dtype), () => `${name} must be f32, f16 or bf16, got ${dtype}`);
  }
  call.expect(
    Q.dtype === K.dtype && Q.dtype === V.dtype,
    () => `Q, K and V must have one dtype, got ${Q.dtype}, ${K.dtype} and ${V.dtype}`,
  );
  call.expect(
    K.shape[0] === Q.shape[0] && K.shape[3] === Q.shape[3],
    () => `Q and K must have the same batch size and head size, got ${shapes()}`,
  );
  call.expect(
    [0, 1, 2].every((axis) => V.shape[axis] === K.shape[axis]),
    () => `K and V must have the same batch size, heads and length, got ${shapes()}`,
  );
  call.expect(
    Q.shape[1] === K.shape[1] || Q.shape[1] % K.shape[1] === 0,
    () => `the ${Q.shape[1]} heads of Q must be a multiple of the ${K.shape[1]} of K and V`,
  );
}
