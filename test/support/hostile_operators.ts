// Calls of operators on rows and elements, for hostile values.

import {
  accuracy,
  activate,
  activationBackward,
  addBias,
  argmax,
  bceWithLogits,
  bceWithLogitsBackward,
  copyTensor,
  crossEntropy,
  crossEntropyBackward,
  dropout,
  embedding,
  embeddingBackward,
  gatedPositionBias,
  gatedPositionBiasBackward,
  gelu,
  layerNorm,
  layerNormBackward,
  logSoftmax,
  logSoftmaxBackward,
  mseLoss,
  mseLossBackward,
  positionEncoding,
  positionEncodingBackward,
  project,
  projectionBackward,
  relativePositionBias,
  relativePositionBiasBackward,
  rmsNorm,
  rmsNormBackward,
  rotary,
  rotaryBackward,
  softmax,
  softmaxBackward,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import {
  argmax as argmax64,
  crossEntropy as crossEntropy64,
  dropout as dropout64,
  embedding as embedding64,
  layerNorm as norm64,
  layerNormBackward as normBackward64,
  positionBias,
  positionEncoding as positions64,
  type ReferenceLayerNormBackwardOptions,
  type ReferenceLayerNormOptions,
  type ReferenceTensor,
  rotary as rotary64,
  rotaryBackward as rotaryBackward64,
  softmaxAlong,
  softmaxAlongBackward,
} from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { type Call, type Given, taken } from "./hostile.ts";

// biome-ignore lint/suspicious/noExplicitAny: what a call is given here is of no type
type Any = any;

/** Makes a call of a function that returns a tensor as `output`. */
export const operator = (
  name: string,
  work: (...given: Any[]) => Promise<{ readonly output: Tensor }>,
  args: Given,
  options: Given,
  names: readonly string[],
  right?: Call["right"],
): Call => ({
  name,
  args,
  options,
  names,
  run: async (given, options) => {
    const { output, ...more } = (await work(...given, options)) as Record<string, Tensor> & {
      output: Tensor;
    };
    for (const one of Object.values(more))
      if (!Object.values((options ?? {}) as Given).includes(one)) one.destroy();
    return taken(output, ...given, (options as Given | undefined)?.output);
  },
  ...(right && { right }),
});

/** Takes one gradient of a call for its output. */
const gradientOf =
  (name: string, work: (...given: Any[]) => Promise<object>) =>
  async (...given: Any[]) => {
    const { [name]: output, ...more } = (await work(...given)) as Record<string, Tensor>;
    return { output, ...more };
  };

/** Makes a call of a gradient, whose `dX` counts. */
const gradient = (
  name: string,
  work: (x: Tensor, dOutput: Tensor, options: Any) => Promise<{ readonly dX?: Tensor }>,
  args: Given,
  names: readonly string[],
  right?: Call["right"],
): Call =>
  operator(
    name,
    async (x, dOutput, options) => {
      const { dX, ...more } = await work(x, dOutput, options);
      return { output: dX as Tensor, ...more };
    },
    args,
    {},
    names,
    right,
  );

/** Computes [1, H, M, N] of a table of biases. */
const relativeBias64 = (
  table: ReferenceTensor,
  { seqQ, seqKv, bidirectional, maxDistance, queryOffset }: Any,
) =>
  positionBias([1, table.shape[1], seqQ, seqKv], {
    table,
    bidirectional,
    maxDistance,
    queryOffset,
  });

/** Embeddings, dropout and losses. */
function lossCalls(device: GPUDevice): Call[] {
  const shape = [6, 8];
  const x = { shape, data: normal(21, 48) };
  const classes = [1, 0, 7, 3, 3, 5];
  const logits = tensor(device, shape, { data: x.data, label: "hostile" });
  const goal = tensor(device, shape, { data: normal(22, 48), label: "hostile" });
  const target = tensor(device, [6], { dtype: "i32", data: classes, label: "hostile" });
  const ofClasses = { logits, target };
  const both = { x: logits, target: goal };
  const numbers = (given: Given, ...names: readonly string[]) =>
    Object.fromEntries(names.map((name) => [name, given[name]]).filter(([, one]) => one != null));
  const entropy = ["classWeights", "ignoreIndex", "labelSmoothing", "reduction", "label"];
  const slopes = ["dLoss", "gradients", "dX", "dTarget", "reduction", "label"];
  return [
    operator(
      "embedding",
      embedding,
      { weight: logits, ids: target },
      {},
      ["scale", "output", "label"],
      (_, given) => embedding64(x, classes, numbers(given, "scale")),
    ),
    operator(
      "embeddingBackward",
      gradientOf("dWeight", embeddingBackward),
      { weight: logits, ids: target, dOutput: goal },
      {},
      ["dWeight", "label"],
    ),
    operator(
      "dropout",
      dropout,
      { x: logits },
      { p: 0.5, seed: 3 },
      ["step", "output", "label"],
      (_, given) => dropout64(x.data, numbers(given, "p", "seed", "step") as { p: number }),
    ),
    operator(
      "crossEntropy",
      gradientOf("loss", crossEntropy),
      ofClasses,
      {},
      [...entropy, "loss"],
      (_, given) => crossEntropy64(x, classes, numbers(given, "ignoreIndex", "labelSmoothing")),
    ),
    operator("crossEntropyBackward", gradientOf("dLogits", crossEntropyBackward), ofClasses, {}, [
      "classWeights",
      "reduction",
      "dLoss",
      "dLogits",
      "loss",
      "label",
    ]),
    operator("mseLoss", gradientOf("loss", mseLoss), both, {}, ["reduction", "loss", "label"]),
    operator("mseLossBackward", gradientOf("dX", mseLossBackward), both, {}, slopes),
    operator("bceWithLogits", gradientOf("loss", bceWithLogits), both, {}, [
      "weight",
      "posWeight",
      "reduction",
      "loss",
      "label",
    ]),
    operator("bceWithLogitsBackward", gradientOf("dX", bceWithLogitsBackward), both, {}, [
      "weight",
      "posWeight",
      ...slopes,
    ]),
    operator(
      "argmax",
      argmax,
      { x: logits },
      { axis: 1 },
      ["output", "label"],
      (_, { axis = -1 }) => {
        const along = (axis as number) < 0 ? (axis as number) + 2 : (axis as number);
        const turned = x.data.map((_, at) => x.data[(at % 6) * 8 + Math.floor(at / 6)]);
        return argmax64(along ? x : { shape: [8, 6], data: turned });
      },
    ),
    operator("accuracy", gradientOf("counts", accuracy), ofClasses, {}, ["counts", "label"]),
  ];
}

export function operatorCalls(device: GPUDevice): Call[] {
  const make = (shape: readonly number[], seed: number) => {
    const data = normal(
      seed,
      shape.reduce((a, b) => a * b, 1),
    );
    return { shape, data, gpu: tensor(device, shape, { data, label: "hostile" }) };
  };
  const x = make([2, 3, 8], 1);
  const heads = make([2, 2, 3, 8], 2);
  const bias = make([8], 3);
  const table = make([8, 2], 4);
  const gates = {
    update: make([2, 2, 3, 1], 5).gpu,
    reset: make([2, 2, 3, 1], 6).gpu,
    scale: make([1, 2, 1, 1], 7).gpu,
  };
  const norm =
    (rms: boolean) =>
    (_: Given, { axis, epsilon }: Given) =>
      norm64(x, {
        rms,
        ...(axis !== undefined && { axis }),
        ...(epsilon !== undefined && { epsilon }),
      } as ReferenceLayerNormOptions).output;
  const rows =
    (log: boolean) =>
    (_: Given, { axis }: Given) =>
      softmaxAlong(x, { axis: (axis ?? -1) as number, log });
  const dOutput = make([2, 3, 8], 10);
  const both = { x: x.gpu, dOutput: dOutput.gpu };
  const normBack =
    (rms: boolean) =>
    (_: Given, { axis, epsilon }: Given) =>
      normBackward64(x, {
        rms,
        dOutput: dOutput.data,
        ...(axis !== undefined && { axis }),
        ...(epsilon !== undefined && { epsilon }),
      } as unknown as ReferenceLayerNormBackwardOptions).dX;
  const rowsBack =
    (log: boolean) =>
    (_: Given, { axis }: Given) =>
      softmaxAlongBackward(x, dOutput.data, { axis: (axis ?? -1) as number, log });
  const normsBack = [
    "axis",
    "epsilon",
    "weight",
    "bias",
    "residual",
    "residualBias",
    "dSum",
    "gradients",
    "dX",
    "label",
  ];
  const norms = [
    "axis",
    "epsilon",
    "weight",
    "bias",
    "residual",
    "residualBias",
    "output",
    "sum",
    "statistics",
    "label",
  ];
  const added = ["bias", "residual", "output", "dtype", "label"];
  const given = { x: x.gpu };
  /** Gives a copy of the input to a function that may write to its input. */
  const inPlace =
    (work: (x: Tensor, options: Any) => Promise<{ readonly output: Tensor }>, kept: typeof x) =>
    (x: Tensor, options: Any) =>
      work(x === kept.gpu ? tensor(device, kept.shape, { data: kept.data }) : x, options);
  const numbers = (value: unknown) => Array.from(value as ArrayLike<number>, Number);
  const at = (offset: unknown) => (_: number, batch: number, row: number) =>
    row + (offset === undefined ? 0 : typeof offset === "number" ? offset : numbers(offset)[batch]);
  return [
    ...lossCalls(device),
    operator("softmax", softmax, given, {}, ["axis", "output", "label"], rows(false)),
    operator("logSoftmax", logSoftmax, given, {}, ["axis", "output", "label"], rows(true)),
    operator("layerNorm", layerNorm, given, {}, norms, norm(false)),
    operator("rmsNorm", rmsNorm, given, {}, norms, norm(true)),
    gradient("softmaxBackward", softmaxBackward, both, ["axis", "dX", "label"], rowsBack(false)),
    gradient("logSoftmaxBackward", logSoftmaxBackward, both, ["axis", "label"], rowsBack(true)),
    gradient("layerNormBackward", layerNormBackward, both, normsBack, normBack(false)),
    gradient("rmsNormBackward", rmsNormBackward, both, normsBack, normBack(true)),
    operator("gelu", gelu, given, {}, ["approximate", ...added]),
    operator("activate", activate, given, {}, ["activation", "factor", ...added]),
    operator(
      "activationBackward",
      gradientOf("dX", activationBackward),
      { ...given, dOutput: make([2, 3, 8], 10).gpu },
      {},
      ["activation", "bias", "residual", "factor", "gradients", "dX", "dFactor", "label"],
    ),
    operator(
      "projectionBackward",
      gradientOf("dWeight", projectionBackward),
      { ...given, weight: make([4, 8], 11).gpu, dOutput: make([2, 3, 4], 12).gpu },
      {},
      ["gradients", "dX", "dWeight", "dBias", "maxDispatchFlops", "variant", "label"],
    ),
    operator("addBias", addBias, { ...given, bias: bias.gpu }, {}, added.slice(1)),
    operator("copyTensor", copyTensor, given, {}, added),
    operator("project", project, { ...given, weight: make([4, 8], 8).gpu }, {}, [
      "bias",
      "output",
      "maxDispatchFlops",
      "variant",
      "label",
    ]),
    operator(
      "rotary",
      inPlace(rotary, heads),
      { x: heads.gpu },
      {},
      [
        "rotaryDim",
        "interleaved",
        "base",
        "scaling",
        "frequencies",
        "attentionFactor",
        "sections",
        "sectionLayout",
        "positionOffset",
        "positionIds",
        "output",
        "inPlace",
        "cos",
        "sin",
        "conjugate",
        "layout",
        "label",
      ],
      (_, { positionOffset, rotaryDim, interleaved, conjugate, ...rest }) =>
        rotary64(heads, {
          ...(rest.base !== undefined && { base: rest.base as number }),
          ...(rest.attentionFactor !== undefined && {
            attentionFactor: rest.attentionFactor as number,
          }),
          ...(rotaryDim !== undefined && { rotaryDim: rotaryDim as number }),
          ...(interleaved !== undefined && { interleaved: interleaved as boolean }),
          ...(conjugate !== undefined && { conjugate: conjugate as boolean }),
          position: at(positionOffset),
        }),
    ),
    operator(
      "positionEncoding",
      inPlace(positionEncoding, x),
      given,
      {},
      [
        "maxWavelength",
        "frequencies",
        "order",
        "positionOffset",
        "positionIds",
        "scale",
        "table",
        "output",
        "label",
        "inPlace",
      ],
      (_, { maxWavelength, positionOffset, scale = 1 }) =>
        positions64(x, {
          ...(maxWavelength !== undefined && { maxWavelength: maxWavelength as number }),
          scale: scale as number,
          position: (batch, row) => at(positionOffset)(0, batch, row),
        }),
    ),
    operator(
      "rotaryBackward",
      async (dOutput, options) => ({ output: (await rotaryBackward(dOutput, options)).dX }),
      { dOutput: heads.gpu },
      {},
      ["positionOffset", "positionIds", "conjugate", "cos", "sin", "dX", "label"],
      (_, { positionOffset, conjugate = false }) =>
        rotaryBackward64(heads, {
          conjugate: conjugate as boolean,
          position: at(positionOffset),
        }),
    ),
    operator(
      "positionEncodingBackward",
      async (dOutput, options) => {
        const { dX, ...more } = await positionEncodingBackward(dOutput, options);
        return { output: dX as Tensor, ...more };
      },
      { dOutput: x.gpu },
      {},
      ["positionOffset", "positionIds", "scale", "gradients", "dX", "dTable", "label"],
      (_, { scale = 1 }) => x.data.map((value) => value * (scale as number)),
    ),
    operator(
      "relativePositionBiasBackward",
      async (table, dOutput, options) => ({
        output: (await relativePositionBiasBackward(table, dOutput, options)).dTable,
      }),
      { table: table.gpu, dOutput: make([1, 2, 3, 4], 11).gpu },
      {},
      ["dTable", "label"],
    ),
    operator(
      "gatedPositionBiasBackward",
      async (bias, dOutput, options) => {
        const { dBias, ...more } = await gatedPositionBiasBackward(bias, dOutput, options);
        return { output: dBias as Tensor, ...more };
      },
      { bias: make([1, 2, 3, 4], 9).gpu, dOutput: make([2, 2, 3, 4], 12).gpu },
      { ...gates, gradients: ["dBias"] },
      ["dBias", "label"],
    ),
    operator(
      "relativePositionBias",
      relativePositionBias,
      { table: table.gpu },
      { seqQ: 2, seqKv: 3 },
      ["bidirectional", "maxDistance", "queryOffset", "dtype", "label"],
      (_, options) => relativeBias64(table, options),
    ),
    operator("gatedPositionBias", gatedPositionBias, { bias: make([1, 2, 3, 4], 9).gpu }, gates, [
      "output",
      "label",
    ]),
  ];
}
