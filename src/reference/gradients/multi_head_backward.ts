// The gradients of a multi-head layer on the CPU.

import { tanhDerivative } from "../activations.ts";
import { multiHeadAttention } from "../multi_head.ts";
import {
  element,
  multiHeadRows,
  type ReferenceLinear,
  type ReferenceMultiHead,
  type ReferenceMultiHeadInputs,
  type ReferenceMultiHeadOptions,
} from "../multi_head_rows.ts";
import type { ReferenceTensor } from "../options.ts";
import { projectBackward, projectUsedBackward } from "../projection.ts";
import { softmaxBackward } from "../softmax.ts";
import { at, elements, type Gradient, rowAt, sizeOf, zerosLike } from "../tensors.ts";
import type { ReferenceScoreGradients } from "./score_gradients.ts";
import { scoresBackward } from "./scores_backward.ts";

/**
 * The options of the layer, and the gradients of its results. `precision: "f32"` rounds every
 * operation to f32.
 */
export interface ReferenceMultiHeadBackwardOptions
  extends Omit<ReferenceMultiHeadOptions, "store" | "stored"> {
  /** Of the output, [B, M, output width]. Default zeros. */
  readonly dOutput?: ArrayLike<number>;
  /** Of the LSE, [B, H, M], and of the weights, [B, H, M, N']. Default zeros. */
  readonly dLse?: ArrayLike<number>;
  readonly dWeights?: ArrayLike<number>;
}

/** The gradients of a linear layer: [out, in], and [out] or empty without a bias. */
export interface ReferenceLinearGradients {
  readonly dWeight: Float64Array;
  readonly dBias: Float64Array;
}

/** Gradients of inputs, parameters and options of a layer; empty for what isn't given. */
export interface ReferenceMultiHeadGradients extends ReferenceScoreGradients {
  /** Of the inputs. One that is used several times has the sum of these as its gradient. */
  readonly dQuery: Float64Array;
  readonly dKey: Float64Array;
  readonly dValue: Float64Array;
  readonly query: ReferenceLinearGradients;
  readonly key: ReferenceLinearGradients;
  readonly value: ReferenceLinearGradients;
  readonly output: ReferenceLinearGradients;
  /** [Hkv * D] and [Hkv * Dv] */
  readonly dBiasK: Float64Array;
  readonly dBiasV: Float64Array;
}

/**
 * The chain of the layer's parts: the output projection, attention with dP of a key also from the
 * gradient of its weight, and the projections of query, key and value. The learned key has the
 * score cap(scale q.biasK), so that with its gradient g before the softcap
 *
 *     dq += scale g biasK,   dbiasK += scale g q,   dbiasV += p dO
 *
 * The score of the key of zeros is constant, and so is its value.
 */
export function multiHeadAttentionBackward(
  inputs: ReferenceMultiHeadInputs,
  layer: ReferenceMultiHead,
  options: ReferenceMultiHeadBackwardOptions,
): ReferenceMultiHeadGradients {
  const { dOutput, dLse, dWeights, ...forward } = options;
  const rows = multiHeadRows(inputs, layer, forward);
  const { q, v, scale, attention, round } = rows;
  const { precision } = forward;
  const { B, H, M, N, D, Dv, keys } = rows.sizes;
  const { biasK, biasV } = layer;
  const { softcap, sinks } = attention;
  const last = lastBackward(inputs, layer, forward, dOutput);
  const dO = last.dX ?? new Float64Array(B * M * H * Dv);
  const ofScores = scoresBackward(rows.problem, attention);
  const dHeads = zerosLike(v);
  const dBiasK = new Float64Array(biasK ? sizeOf(biasK.shape) : 0);
  const dBiasV = new Float64Array(biasV ? sizeOf(biasV.shape) : 0);

  for (let index = 0; index < B * H * M; index++) {
    const row = rows.find(index);
    if (!row || row.lse === Number.NEGATIVE_INFINITY) continue;
    const { p, head, batch, kvHead } = row;
    const outAt = ((batch * M + row.query) * H + head) * Dv;
    const seen = Array.from({ length: keys }, (_, j) => j).filter((j) => p[j] !== 0);
    const dP = new Float64Array(keys);
    for (const j of seen) {
      const z = rows.factor(row, j);
      const valueAt = rows.value(row, j);
      dP[j] = dWeights?.[index * keys + j] ?? 0;
      if (!valueAt) continue;
      const into =
        j < N ? rowAt(dHeads, batch, kvHead, j) : dBiasV.subarray(kvHead * Dv, (kvHead + 1) * Dv);
      for (let d = 0; d < Dv; d++) {
        dP[j] = round(dP[j] + round(z * round(dO[outAt + d] * valueAt(d))));
        into[d] = round(into[d] + round(round(z * p[j]) * dO[outAt + d]));
      }
    }
    const delta = softmaxBackward(p, dP, [0, keys], dLse?.[index] ?? 0, round);
    if (sinks) {
      const { dSinks } = ofScores.options;
      dSinks[head] = round(dSinks[head] - round(round(Math.exp(sinks[head] - row.lse)) * delta));
    }
    for (const j of seen) if (j < N) ofScores.add(dP[j], row, j);
    if (!biasK) continue;
    const scaled = round(scale * dP[N] * (softcap ? tanhDerivative(row.added / softcap) : 1));
    const dRow = rowAt(ofScores.dQuery, batch, head, row.qRow);
    const qAt = at(q, batch, head, row.qRow);
    for (let d = 0; d < D; d++) {
      const at = kvHead * D + d;
      dRow[d] = round(dRow[d] + round(scaled * element(biasK, at)));
      dBiasK[at] = round(dBiasK[at] + round(scaled * q.data[qAt + d]));
    }
  }
  const query = linearBackward(inputs.query, layer.query, ofScores.dQuery, precision);
  const key = linearBackward(inputs.key, layer.key, ofScores.dKey, precision);
  const value = linearBackward(inputs.value, layer.value, dHeads, precision);
  return {
    dQuery: query.dX,
    dKey: key.dX,
    dValue: value.dX,
    query: query.gradients,
    key: key.gradients,
    value: value.gradients,
    output: last.gradients,
    dBiasK,
    dBiasV,
    ...ofScores.options,
  };
}

/** The gradients of the output projection and of the joined heads; of these none without dOutput. */
function lastBackward(
  inputs: ReferenceMultiHeadInputs,
  { output: last, ...layer }: ReferenceMultiHead,
  options: ReferenceMultiHeadOptions,
  dOutput: ArrayLike<number> | undefined,
) {
  if (!last) return { dX: dOutput, gradients: EMPTY };
  const { query, key, value } = inputs;
  const { output: joined } = multiHeadAttention(query, key, value, layer, options);
  const [B, M] = query.shape;
  const [columns, width] = last.weight.shape;
  const dY = dOutput ?? new Float64Array(B * M * columns);
  const { dX, dWeight, dBias } = projectBackward(
    { data: joined, shape: [B, M, width] },
    last.weight,
    dY,
    options.precision && { precision: options.precision },
  );
  return { dX, gradients: { dWeight, dBias: last.bias ? dBias : EMPTY.dBias } };
}

const EMPTY: ReferenceLinearGradients = {
  dWeight: new Float64Array(),
  dBias: new Float64Array(),
};

/** The gradients of an input and its linear layer, from those of the heads [B, H, rows, width]. */
function linearBackward(
  x: ReferenceTensor,
  { weight, bias }: ReferenceLinear,
  dHeads: Gradient,
  precision: ReferenceMultiHeadOptions["precision"],
) {
  const [B, H, rows, width] = dHeads.shape;
  const [perBatch, perHead, perRow, perColumn] = dHeads.strides;
  const dY = elements(
    {
      data: dHeads.data,
      shape: [B, rows, H, width],
      strides: [perBatch, perRow, perHead, perColumn],
    },
    [B, rows, H, width],
  );
  const { dX, dWeight, dBias } = projectUsedBackward(x, weight, dY, precision && { precision });
  return { dX, gradients: { dWeight, dBias: bias ? dBias : EMPTY.dBias } };
}
