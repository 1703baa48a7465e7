// The features of a test case as plain data, and what the GPU and the reference take for them:
// seeded tensors, and functions that are written twice.

import {
  type AttentionOptions,
  maskFunction,
  scoreFunction,
  type Tensor,
  type TensorOptions,
} from "../../src/index.ts";
import type { ReferenceOptions } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { type Extreme, farBias, farSinks } from "./extremes.ts";
import { MASK_FUNCTIONS, SCORE_FUNCTIONS } from "./functions.ts";

/** Axes of a mask or a bias that are not 1, of "BHMN". */
export type Axes = string;

export interface Features {
  readonly queryOffset?: number | readonly number[];
  readonly kvLengths?: readonly number[];
  readonly qLengths?: readonly number[];
  readonly cuSeqlensQ?: readonly number[];
  readonly cuSeqlensKv?: readonly number[];
  readonly window?: readonly [number, number];
  readonly mask?: { readonly axes: Axes; readonly bits?: boolean; readonly keep?: number };
  /** With `blocked`, that share of its elements is -Infinity. */
  readonly bias?: { readonly axes: Axes; readonly blocked?: number };
  readonly alibi?: "H" | "BH";
  readonly relativeBias?: {
    readonly buckets: number;
    readonly bidirectional?: boolean;
    readonly maxDistance?: number;
  };
  readonly sinks?: boolean;
  readonly dropout?: { readonly p: number; readonly seed: number; readonly step?: number };
  readonly rowMax?: boolean;
  readonly similarity?: SimilarityFeature;
  readonly temperature?: "plain" | "log";
  readonly scoreFunction?: keyof typeof SCORE_FUNCTIONS;
  readonly maskFunction?: keyof typeof MASK_FUNCTIONS;
  /** Blocks of so many rows and keys, if the mask function goes through a block mask. */
  readonly blockSize?: readonly [number, number];
  /** Hostile values among the ordinary ones. */
  readonly extremes?: readonly Extreme[];
  /** Whether small numbers (lengths, slopes, sinks, table) are given as tensors on the GPU. */
  readonly onGpu?: boolean;
}

/** A similarity; its numbers are seeded. */
export type SimilarityFeature =
  | "cosine"
  | { readonly kind: "l2" | "rms"; readonly weights?: boolean }
  | {
      readonly kind: "additive";
      /** Whether there is a vector and an inner bias for each head, in place of one for all. */
      readonly perHead?: boolean;
      readonly innerBias?: boolean;
      readonly innerScale?: number;
      readonly normalize?: boolean;
    };

type MakeTensor = (shape: readonly number[], options: TensorOptions) => Tensor;
type BlockMaskArguments = [
  ReturnType<typeof maskFunction>,
  {
    seqQ: number;
    seqKv: number;
    heads: number;
    queryOffset?: number;
    blockSize: readonly [number, number];
  },
];

/** The step of dropout as a tensor, if memory can be made. */
const stepOf = ({ step }: { readonly step?: number }, make: MakeTensor | false | undefined) =>
  step !== undefined && make ? { step: make([1], { dtype: "u32", data: [step] }) } : {};

/** Makes the features for both sides. */
export function featuresOf(
  features: Features,
  { B, H, M, N, D }: { B: number; H: number; M: number; N: number; D: number },
  seed: number,
) {
  const {
    cuSeqlensQ,
    cuSeqlensKv,
    relativeBias,
    dropout,
    window,
    similarity,
    temperature,
    ...rest
  } = features;
  const entries = cuSeqlensQ ? cuSeqlensQ.length - 1 : B;
  const longest = (cumulative: readonly number[] | undefined, all: number) =>
    cumulative ? Math.max(0, ...cumulative.slice(1).map((n, i) => n - cumulative[i])) : all;
  const sizes: Record<string, number> = {
    B: entries,
    H,
    M: longest(cuSeqlensQ, M),
    N: longest(cuSeqlensKv, N),
  };
  const shapeOf = (axes: Axes) =>
    [..."BHMN"].map((axis) => (axes.includes(axis) ? sizes[axis] : 1));
  const random = (what: number, shape: readonly number[], deviation = 1) => ({
    shape,
    data: normal(seed * 8 + what, count(shape), deviation),
  });

  const mask =
    features.mask && maskOf(random(3, shapeOf(features.mask.axes)), features.mask.keep ?? 0.7);
  const given =
    features.bias && biasOf(random(4, shapeOf(features.bias.axes)), features.bias.blocked ?? 0);
  const has = (kind: Extreme) => features.extremes?.includes(kind) ?? false;
  const bias = given && has("farBias") ? { ...given, data: farBias(given.data, seed) } : given;
  // A list of numbers for one entry, or one head, is one for all of them.
  const each = (count: number, rest: readonly number[]) =>
    count > 1 || features.onGpu ? [count, ...rest] : rest;
  const slopes =
    features.alibi && random(5, features.alibi === "H" ? [H] : each(entries, [H]), 0.2);
  const table = relativeBias && random(6, [relativeBias.buckets, H]);
  const drawnSinks = features.sinks && random(7, [H]);
  const sinks =
    drawnSinks && has("farSinks") ? { ...drawnSinks, data: farSinks(drawnSinks.data) } : drawnSinks;
  const compared = similarity && similarityOf(similarity, [H, D], each(H, [D]), random);
  const factors = temperature && random(14, [H], 0.5);
  const factorName = temperature === "log" ? "logTemperature" : "temperature";
  const score = features.scoreFunction && SCORE_FUNCTIONS[features.scoreFunction];
  const masks = features.maskFunction && MASK_FUNCTIONS[features.maskFunction];
  const numbers = {
    queryOffset: rest.queryOffset,
    kvLengths: rest.kvLengths,
    qLengths: rest.qLengths,
  };
  const plain = { window };

  const gpu = (make: MakeTensor): Partial<AttentionOptions> => {
    const integers = (values: number | readonly number[] | undefined) =>
      features.onGpu && Array.isArray(values)
        ? make([values.length], { dtype: "i32", data: values })
        : values;
    const floats = (given: { shape: readonly number[]; data: Float32Array }) =>
      features.onGpu ? make(given.shape, { data: given.data }) : Array.from(given.data);
    const options = {
      ...plain,
      ...Object.fromEntries(
        Object.entries(numbers).map(([name, values]) => [name, integers(values)]),
      ),
      ...(cuSeqlensQ && { cuSeqlensQ: integers(cuSeqlensQ), cuSeqlensKv: integers(cuSeqlensKv) }),
      ...(cuSeqlensQ && features.onGpu && { maxSeqlenQ: sizes.M, maxSeqlenKv: sizes.N }),
      ...(dropout && { dropout: { ...dropout, ...stepOf(dropout, features.onGpu && make) } }),
      ...(mask && {
        mask: features.mask?.bits
          ? make(...bitsOf(mask))
          : make(mask.shape, { dtype: "u8", data: mask.data }),
      }),
      ...(bias && { bias: make(bias.shape, { data: bias.data }) }),
      ...(slopes && { alibiSlopes: floats(slopes) }),
      ...(sinks && { sinks: floats(sinks) }),
      ...(table && { relativeBias: { ...relativeBias, table: floats(table) } }),
      ...(compared && { similarity: similarityWith(compared, floats) }),
      ...(factors && { [factorName]: floats(factors) }),
      ...(score && {
        scoreFunction: scoreFunction(score.wgsl, {
          captures: score.captures(make),
          gradient: score.gradient,
        }),
      }),
      ...(masks && { maskFunction: maskFunction(masks.wgsl, { captures: masks.captures(make) }) }),
    };
    return options as Partial<AttentionOptions>;
  };
  const cpu = defined<ReferenceOptions>({
    ...plain,
    ...numbers,
    dropout,
    ...(cuSeqlensQ && { cuSeqlensQ, cuSeqlensKv }),
    ...(mask && { mask }),
    ...(bias && { bias }),
    ...(slopes && { alibiSlopes: slopes.data }),
    ...(sinks && { sinks: sinks.data }),
    ...(table && { relativeBias: { ...relativeBias, table } }),
    ...(compared && {
      similarity: similarityWith(compared, ({ data }) => data) as ReferenceOptions["similarity"],
    }),
    ...(factors && { [factorName]: factors.data }),
    ...(score && { scoreFunction: score.js, scoreGradient: score.slope }),
    ...(masks && { maskFunction: masks.js }),
  });
  const first = typeof rest.queryOffset === "number" ? { queryOffset: rest.queryOffset } : {};
  const blockMask =
    features.blockSize && masks
      ? ([
          maskFunction(masks.wgsl, { captures: masks.captures(noTensors) }),
          {
            seqQ: M,
            seqKv: N,
            heads: masks.perHead ? H : 1,
            blockSize: features.blockSize,
            ...first,
          },
        ] satisfies BlockMaskArguments)
      : undefined;
  const held = { bias, alibiSlopes: slopes, relativeBias: table, sinks, [factorName]: factors };
  return { gpu, cpu, blockMask, gradients: gradientShapes(held, compared, score?.slope.captures) };
}

/**
 * Returns the shapes of the gradients of what features hold, by the names that they are asked for
 * by; those of captures are in a list by the names of the captures.
 */
function gradientShapes(
  held: Readonly<Record<string, Numbers<Float32Array> | undefined | false>>,
  similarity: ReturnType<typeof similarityOf> | undefined,
  captures: Readonly<Record<string, number>> = {},
) {
  const parts = typeof similarity === "object" ? similarity : {};
  const additive = parts.kind === "additive";
  const all = Object.entries({ ...held, ...parts }).flatMap(([name, numbers]) =>
    isNumbers(numbers) ? [[gradientName(name), numbers.shape] as const] : [],
  );
  const options: Readonly<Record<string, readonly number[]>> = {
    ...Object.fromEntries(all),
    ...(additive && { dInnerScale: [1] }),
  };
  const sizes = additive ? [] : Object.entries(captures);
  return { options, captures: Object.fromEntries(sizes.map(([name, size]) => [name, [size]])) };
}

const gradientName = (option: string) => `d${option[0].toUpperCase()}${option.slice(1)}`;

/** Makes a similarity with the numbers of its learned parts. */
function similarityOf(
  feature: SimilarityFeature,
  [H, D]: readonly number[],
  ofHeads: readonly number[],
  random: (what: number, shape: readonly number[], deviation?: number) => Numbers<Float32Array>,
): "cosine" | Readonly<Record<string, unknown>> {
  if (feature === "cosine") return feature;
  if (feature.kind !== "additive") {
    const weights = { qWeights: random(10, [D]), kWeights: random(11, [D]) };
    return { kind: feature.kind, ...(feature.weights && weights) };
  }
  const { perHead, innerBias, ...rest } = feature;
  const shape = perHead ? ofHeads : [D];
  const learned = { vector: random(10, shape), ...(innerBias && { innerBias: random(11, shape) }) };
  return { ...rest, ...learned, ...(rest.normalize && { gain: random(12, [H], 3) }) };
}

/** Returns the similarity with each of its parts as a side takes it. */
function similarityWith<T>(
  similarity: ReturnType<typeof similarityOf>,
  take: (numbers: Numbers<Float32Array>) => T,
) {
  if (similarity === "cosine") return similarity;
  return Object.fromEntries(
    Object.entries(similarity).map(([name, value]) => [
      name,
      isNumbers(value) ? take(value) : value,
    ]),
  );
}

/** Returns the options that are defined. */
export const defined = <T>(
  options: { readonly [Name in keyof T]?: T[Name] | undefined },
): Partial<T> =>
  Object.fromEntries(
    Object.entries(options).filter(([, value]) => value !== undefined),
  ) as Partial<T>;

const noTensors: MakeTensor = () => {
  throw new Error("a block mask's function of a test case captures numbers only");
};

const count = (shape: readonly number[]) => shape.reduce((product, size) => product * size, 1);

interface Numbers<Data> {
  readonly shape: readonly number[];
  readonly data: Data;
}
const isNumbers = (value: unknown): value is Numbers<Float32Array> => typeof value === "object";

/** Makes a mask of normal numbers that keeps about a share of them. */
function maskOf({ shape, data }: Numbers<Float32Array>, keep: number): Numbers<Uint8Array> {
  // The logistic curve stands in for the normal distribution's; the share need not be exact.
  return {
    shape,
    data: Uint8Array.from(data, (x) => Number(1 / (1 + Math.exp(-1.7 * x)) < keep) * 255),
  };
}

function biasOf({ shape, data }: Numbers<Float32Array>, blocked: number): Numbers<Float32Array> {
  const { data: hidden } = maskOf({ shape, data: data.map((x) => -x) }, blocked);
  return { shape, data: data.map((x, i) => (hidden[i] ? Number.NEGATIVE_INFINITY : x)) };
}

/** Packs a mask of bytes into bits along the keys. */
function bitsOf({ shape, data }: Numbers<Uint8Array>): [shape: number[], options: TensorOptions] {
  const keys = shape[3];
  const words = Math.ceil(keys / 32);
  const bits = new Uint32Array((count(shape) / Math.max(keys, 1)) * words);
  data.forEach((kept, index) => {
    const key = index % keys;
    if (kept) bits[Math.floor(index / keys) * words + Math.floor(key / 32)] |= 1 << (key % 32);
  });
  return [[...shape.slice(0, 3), words], { dtype: "u32", data: bits }];
}
