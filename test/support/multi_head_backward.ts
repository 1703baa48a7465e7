// Gradients of multi-head attention as tests and fuzzing describe them, run on the GPU and compared
// with the reference.

import {
  type MultiHeadBackwardOptions,
  type MultiHeadParameters,
  multiHeadAttentionBackward,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import {
  type ReferenceMultiHeadGradients,
  multiHeadAttentionBackward as reference,
} from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { type Float, product } from "./cases.ts";
import { expectGradientsClose } from "./gradients.ts";
import { layerOf, type MultiHeadCase } from "./multi_head.ts";

export interface MultiHeadBackwardCase
  extends Omit<MultiHeadCase, "weights" | "dtype" | "extremes" | "storage"> {
  readonly dLse?: boolean;
  /** The probabilities whose gradient comes in. */
  readonly dWeights?: "perHead" | "mean";
  /** Gradients of options that are asked for, and compared. */
  readonly ofOptions?: readonly ("dBias" | "dSinks" | "dAlibiSlopes")[];
}

/** Runs the gradients of a case into poisoned tensors, and compares them with the reference. */
export async function runMultiHeadBackward(
  device: GPUDevice,
  problem: MultiHeadBackwardCase,
): Promise<void> {
  const { B = 1, H = 1, M, N = M, D, Dv = D, E, Eo = E, seed = 1, ofOptions = [] } = problem;
  const used: Tensor[] = [];
  const keep = (made: Tensor) => {
    used.push(made);
    return made;
  };
  const poisoned = (shape: readonly number[], dtype: Float = "f32") =>
    keep(
      tensor(device, shape, {
        data: new Float32Array(product(shape)).fill(Number.NaN),
        dtype,
      }),
    );
  const make = (what: number, shape: readonly number[]) => {
    const data = normal(seed * 16 + 900 + what, product(shape));
    return { data, gpu: keep(tensor(device, shape, { data })) };
  };
  try {
    const { layer, inputs, settings, layer64, options64 } = layerOf(device, problem, keep);
    const { query, key, value } = inputs;
    const keys = N + Number(problem.learnedKey ?? false) + Number(problem.zeroAttention ?? false);
    const dOutput = make(0, [B, M, Eo || H * Dv]);
    const dLse = problem.dLse ? make(1, [B, H, M]) : undefined;
    const mean = problem.dWeights === "mean";
    const dWeights = problem.dWeights ? make(2, mean ? [B, M, keys] : [B, H, M, keys]) : undefined;
    const like = (name: "query" | "key" | "value" | "output") => {
      const weights = layer.weights[name];
      if (!weights) return {};
      const { weight, bias } = weights;
      return {
        [name]: {
          weight: poisoned(weight.shape),
          ...(bias && { bias: poisoned(bias.shape) }),
        },
      };
    };
    const { biasK, biasV } = layer.weights;
    const parameters: MultiHeadParameters<Tensor> = {
      ...like("query"),
      ...like("key"),
      ...like("value"),
      ...like("output"),
      ...(biasK && { biasK: poisoned(biasK.shape) }),
      ...(biasV && { biasV: poisoned(biasV.shape) }),
    };
    const isSelf = key === query;
    const options: MultiHeadBackwardOptions = {
      ...settings,
      ...Object.fromEntries(ofOptions.map((name) => [name, true])),
      dOutput: dOutput.gpu,
      ...(dLse && { dLse: dLse.gpu }),
      ...(dWeights && { dWeights: dWeights.gpu }),
      dQuery: poisoned(query.shape),
      ...(!isSelf && { dKey: poisoned(key.shape) }),
      ...(value !== key && { dValue: poisoned(value.shape) }),
      parameters,
    };
    const found = await multiHeadAttentionBackward(layer, query.gpu, options);
    const incoming = {
      dOutput: dOutput.data,
      ...(dLse && { dLse: dLse.data }),
      ...(dWeights && { dWeights: mean ? spread(dWeights.data, B, H) : dWeights.data }),
    };
    const gradients = (precision: "f32" | undefined) =>
      namesOf(
        reference(inputs, layer64, { ...options64, ...incoming, ...(precision && { precision }) }),
        { isSelf, isKey: value === key },
      );
    const results = {
      dQuery: found.dQuery,
      dKey: found.dKey,
      dValue: found.dValue,
      ...Object.fromEntries(
        (["query", "key", "value", "output"] as const).flatMap((name) => [
          [`${name}.dWeight`, found.parameters?.[name]?.weight],
          [`${name}.dBias`, found.parameters?.[name]?.bias],
        ]),
      ),
      dBiasK: found.parameters?.biasK,
      dBiasV: found.parameters?.biasV,
      ...Object.fromEntries(ofOptions.map((name) => [name, found[name] && keep(found[name])])),
    };
    await expectGradientsClose(results, gradients(undefined), gradients("f32"));
  } finally {
    for (const one of used) one.destroy();
  }
}

type Numbers = ArrayLike<number>;
const sum = (...all: readonly Float64Array[]) =>
  all.reduce((one, other) => one.map((x, at) => x + other[at]));

/** The reference's gradients by the names of results. */
function namesOf(
  gradients: ReferenceMultiHeadGradients,
  { isSelf, isKey }: { readonly isSelf: boolean; readonly isKey: boolean },
): Readonly<Record<string, Numbers>> {
  const { dQuery, dKey, dValue, query, key, value, output, ...others } = gradients;
  const ofKey = isKey ? sum(dKey, dValue) : dKey;
  const ofLinears = Object.entries({ query, key, value, output }).flatMap(([name, one]) => [
    [`${name}.dWeight`, one.dWeight],
    [`${name}.dBias`, one.dBias],
  ]);
  return {
    dQuery: isSelf ? sum(dQuery, ofKey) : dQuery,
    dKey: ofKey,
    dValue,
    ...Object.fromEntries(ofLinears),
    dBiasK: others.dBiasK,
    dBiasV: others.dBiasV,
    dBias: others.dBias,
    dSinks: others.dSinks,
    dAlibiSlopes: others.dAlibiSlopes,
  };
}

/** The gradient of each head's numbers from that of their mean over the heads. */
function spread(values: Float32Array, B: number, H: number): Float64Array {
  const size = values.length / B;
  return Float64Array.from({ length: values.length * H }, (_, at) => {
    const entry = Math.floor(at / (H * size));
    return values[entry * size + (at % size)] / H;
  });
}
