// Small random problems of attention, over its options, with NaN wherever nothing may read: for
// gradients against central differences.

import type {
  attentionBackward,
  ReferenceBackwardOptions,
  ReferenceOptions,
  ReferenceSimilarity,
  ReferenceTensor,
} from "../../src/reference/index.ts";
import { rowsOf } from "../../src/reference/rows.ts";
import type { Values } from "./central_differences.ts";
import { type Draw, drawOf } from "./draw.ts";
import { rowsSeen } from "./padding.ts";

/** Makes of values by their names what attention is called with. */
type Build = (values: Values) => Operands;

export interface Operands {
  readonly q: ReferenceTensor;
  readonly k: ReferenceTensor;
  readonly v: ReferenceTensor;
  readonly options: ReferenceBackwardOptions;
}

export interface GradientProblem {
  /** What a failed test names. */
  readonly name: string;
  /** q, k, v and what the options hold. */
  readonly values: Values;
  readonly build: Build;
  readonly dOutput: Float64Array;
  readonly dLse: Float64Array;
}

const sizeOf = (shape: readonly number[]) => shape.reduce((product, size) => product * size, 1);

interface Sizes {
  readonly B: number;
  readonly H: number;
  readonly Hkv: number;
  readonly M: number;
  readonly N: number;
  readonly D: number;
  readonly Dv: number;
  /** Batch entries, and rows of the longest one: others than B, M and N where they are packed. */
  readonly entries: number;
  readonly longestM: number;
  readonly longestN: number;
}

/** An option's part of a problem: the values that it holds, and the options that they make. */
interface Part {
  readonly held?: Values;
  readonly options: (values: Values) => Partial<ReferenceBackwardOptions>;
}
const fixed = (options: Partial<ReferenceBackwardOptions>): Part => ({ options: () => options });

/** The problem of a seed. */
export function gradientProblem(seed: number): GradientProblem {
  const draw = drawOf(seed);
  const layout = draw.pick(["bhmd", "bmhd"] as const);
  const { sizes, part } = sizesOf(draw);
  const { B, H, Hkv, M, N, D, Dv } = sizes;
  const parts = [
    part,
    ...PARTS.filter(([percent]) => draw.chance(percent)).map(([, make]) => make(draw, sizes)),
  ];
  const held = {
    q: draw.apart(B * H * M * D),
    k: draw.apart(B * Hkv * N * D),
    v: draw.normal(B * Hkv * N * Dv),
    ...Object.assign({}, ...parts.map((one) => one.held ?? {})),
  };
  // The values of q, k and v are in the order [B, H, M, D]; their tensors are views in the layout.
  const view = (data: Float64Array, [b, h, m, d]: readonly number[]): ReferenceTensor =>
    layout === "bhmd"
      ? { data, shape: [b, h, m, d] }
      : { data, shape: [b, m, h, d], strides: [h * m * d, d, m * d, 1] };
  const build: Build = (values) => ({
    q: view(values.q, [B, H, M, D]),
    k: view(values.k, [B, Hkv, N, D]),
    v: view(values.v, [B, Hkv, N, Dv]),
    options: Object.assign({ layout }, ...parts.map((one) => one.options(values))),
  });
  const plain = build(held);
  const names = JSON.stringify({ ...sizes, ...plain.options }, (_, value) =>
    ArrayBuffer.isView(value) ? `${(value as Float64Array).length} numbers` : value,
  );
  const rows = plain.options.rows?.length ?? B * H * M;
  const gradients = { dOutput: draw.normal(rows * Dv), dLse: draw.normal(rows) };
  return { name: names, build, ...poisoned({ sizes, plain, held }, gradients) };
}

/** Puts NaN wherever nothing may read. */
function poisoned(
  { sizes, plain, held }: { sizes: Sizes; plain: Operands; held: Values },
  gradients: Pick<GradientProblem, "dOutput" | "dLse">,
): Pick<GradientProblem, "values" | "dOutput" | "dLse"> {
  const { B, H, M, N, D, Dv } = sizes;
  const { q, k, options } = plain;
  const rows = rowsOf([B, H, M, N], options);
  const seen = rowsSeen(q, k, options);
  const values = {
    ...held,
    q: held.q.map(() => Number.NaN),
    k: held.k.map(() => Number.NaN),
    v: held.v.map(() => Number.NaN),
  };
  const dOutput = gradients.dOutput.map(() => Number.NaN);
  const dLse = gradients.dLse.map(() => Number.NaN);
  const keep = (name: "q" | "k" | "v", row: number, width: number) => {
    for (let at = row * width; at < (row + 1) * width; at++) values[name][at] = held[name][at];
  };
  for (const key of seen.keys) {
    keep("k", key, D);
    keep("v", key, Dv);
  }
  for (let index = 0; index < rows.numbers.length; index++) {
    const row = rows.find(rows.numbers[index]);
    if (!row) continue;
    if (options.sinks || seen.queries.has(index)) dLse[index] = gradients.dLse[index];
    if (!seen.queries.has(index)) continue;
    keep("q", row.number, D);
    for (let at = index * Dv; at < (index + 1) * Dv; at++) dOutput[at] = gradients.dOutput[at];
  }
  return { values, dOutput, dLse };
}

/** The gradients of a problem by the names of its values. */
export function gradientsByName(
  gradients: ReturnType<typeof attentionBackward>,
): Readonly<Record<string, Float64Array>> {
  const { dCaptures, ...others } = gradients;
  const lowered = Object.entries(others).map(([name, values]) => [
    name[1].toLowerCase() + name.slice(2),
    values,
  ]);
  const captured = Object.entries(dCaptures).map(([name, values]) => [`captures.${name}`, values]);
  return Object.fromEntries([...lowered, ...captured]);
}

/** Sizes, lengths, and where sequences are packed. */
function sizesOf(draw: Draw): { sizes: Sizes; part: Part } {
  const entries = draw.whole(1, 3);
  const Hkv = draw.whole(1, 2);
  const plain = {
    B: entries,
    H: Hkv * draw.whole(1, 3),
    Hkv,
    M: draw.whole(1, 5),
    N: draw.whole(1, 7),
    D: draw.whole(1, 4),
    Dv: draw.whole(1, 4),
  };
  if (!draw.chance(25)) {
    const sizes = { ...plain, entries, longestM: plain.M, longestN: plain.N };
    return { sizes, part: fixed({}) };
  }
  const cumulative = () => {
    let end = 0;
    const ends = Array.from({ length: entries }, () => {
      end += draw.whole(0, 5);
      return end;
    });
    return [0, ...ends];
  };
  const cuSeqlensQ = cumulative();
  const cuSeqlensKv = cumulative();
  const longest = (cu: readonly number[]) => Math.max(...cu.slice(1).map((n, b) => n - cu[b]));
  const sizes = {
    ...plain,
    B: 1,
    M: (cuSeqlensQ.at(-1) as number) + draw.whole(0, 2),
    N: (cuSeqlensKv.at(-1) as number) + draw.whole(0, 2),
    entries,
    longestM: longest(cuSeqlensQ),
    longestN: longest(cuSeqlensKv),
  };
  return { sizes, part: fixed({ cuSeqlensQ, cuSeqlensKv }) };
}

/** A [B|1, H|1, M|1, N|1] shape, with axes of 1 in front left out at times. */
function broadcastShape(draw: Draw, { entries, H, longestM, longestN }: Sizes): number[] {
  const shape = [entries, H, longestM, longestN].map((size) => (draw.chance(60) ? size : 1));
  while (shape[0] === 1 && shape.length > 1 && draw.chance(50)) shape.shift();
  return shape;
}

const perEntry = (draw: Draw, { entries }: Sizes, low: number, high: number) =>
  Array.from({ length: entries }, () => draw.whole(low, high));

/** How many percent of the problems have an option, and what it is. */
const PARTS: readonly (readonly [percent: number, make: (draw: Draw, sizes: Sizes) => Part])[] = [
  [50, (draw) => fixed({ causal: draw.pick([true, "top-left"] as const) })],
  [30, (draw) => fixed({ window: [draw.whole(-1, 3), draw.whole(-1, 2)] })],
  [15, (draw) => fixed({ attentionChunk: draw.whole(1, 4) })],
  [30, (draw) => fixed({ sinkTokens: draw.whole(1, 2) })],
  [
    25,
    (draw, sizes) =>
      fixed({ queryOffset: draw.chance(50) ? draw.whole(-2, 4) : perEntry(draw, sizes, -2, 4) }),
  ],
  [25, (draw, sizes) => fixed({ kvLengths: perEntry(draw, sizes, 0, sizes.longestN) })],
  [25, (draw, sizes) => fixed({ qLengths: perEntry(draw, sizes, 0, sizes.longestM) })],
  [40, (draw) => fixed({ scale: draw.pick([-0.7, 0.3, 1, 1.6]) })],
  [30, (draw) => fixed({ softcap: draw.pick([0.8, 2, 30]) })],
  [
    25,
    (draw) =>
      fixed({
        dropout: { p: draw.pick([0.2, 0.5]), seed: draw.whole(1, 1e9), step: draw.whole(0, 3) },
      }),
  ],
  [15, () => fixed({ maskFunction: ({ qIdx, kvIdx, head }) => (qIdx + 2 * kvIdx + head) % 3 > 0 })],
  [
    20,
    (draw, { B, H, M }) =>
      fixed({
        rows: Array.from({ length: B * H * M }, (_, row) => row).filter(() => draw.chance(70)),
      }),
  ],
  [
    30,
    (draw, sizes) => {
      const shape = broadcastShape(draw, sizes);
      const data = Array.from({ length: sizeOf(shape) }, () => Number(draw.chance(70)));
      return fixed({ mask: { data, shape } });
    },
  ],
  [
    50,
    (draw, sizes) => {
      const shape = broadcastShape(draw, sizes);
      const hides = Array.from({ length: sizeOf(shape) }, () => draw.chance(10));
      const options = ({ bias }: Values) => {
        const data = bias.map((x, at) => (hides[at] ? Number.NEGATIVE_INFINITY : x));
        return { bias: { data, shape } };
      };
      return { held: { bias: draw.normal(sizeOf(shape)) }, options };
    },
  ],
  [
    30,
    (draw, { entries, H }) => {
      const shape = draw.chance(50) ? [H] : [entries, H];
      const options = ({ alibiSlopes: data }: Values) => ({ alibiSlopes: { data, shape } });
      return { held: { alibiSlopes: draw.normal(sizeOf(shape), 0.3) }, options };
    },
  ],
  [
    30,
    (draw, { H }) => {
      const bidirectional = draw.chance(50);
      const buckets = draw.pick([2, 4, 6]);
      const options = ({ relativeBias: data }: Values) => ({
        relativeBias: { table: { data, shape: [buckets, H] }, bidirectional, maxDistance: 6 },
      });
      return { held: { relativeBias: draw.normal(buckets * H) }, options };
    },
  ],
  [30, (draw, { H }) => ({ held: { sinks: draw.normal(H) }, options: ({ sinks }) => ({ sinks }) })],
  [20, temperaturePart],
  [45, similarityPart],
  [25, scorePart],
];

function temperaturePart(draw: Draw, { H }: Sizes): Part {
  const name = draw.pick(["temperature", "logTemperature"] as const);
  const count = draw.chance(30) ? 1 : H;
  const bound = draw.chance(30) ? { maxTemperature: 1.2 } : {};
  return {
    held: { [name]: draw.normal(count, 0.5) },
    options: (values) => ({ ...bound, [name]: count === 1 ? values[name][0] : values[name] }),
  };
}

/** Names of what a similarity learns, and how many numbers each is. */
type Learned = Readonly<Record<string, number>>;

function similarityPart(draw: Draw, { H, D }: Sizes): Part {
  const kind = draw.pick(["cosine", "l2", "rms", "additive"] as const);
  if (kind === "cosine") return fixed({ similarity: "cosine" });
  const columns = () => draw.pick([D, H * D]);
  const all: Learned =
    kind === "additive"
      ? {
          vector: draw.pick([1, D, H * D]),
          innerBias: columns(),
          innerScale: 1,
          gain: draw.pick([1, H]),
        }
      : { qWeights: D, kWeights: D };
  const learned = Object.entries(all).filter(() => draw.chance(60));
  const numbers = new Set(
    learned
      .filter(([name, count]) => count === 1 && !/Bias|Weights/.test(name))
      .map(([name]) => name),
  );
  const normalize = kind === "additive" && draw.chance(50) ? { normalize: true } : {};
  // A gain without normalize is not read.
  const held = learned.filter(([name]) => name !== "gain" || "normalize" in normalize);
  return {
    held: Object.fromEntries(held.map(([name, count]) => [name, draw.apart(count)])),
    options: (values) => {
      const given = held.map(([name]) => [
        name,
        numbers.has(name) ? values[name][0] : values[name],
      ]);
      const similarity = { kind, ...normalize, ...Object.fromEntries(given) };
      return { similarity: similarity as ReferenceSimilarity };
    },
  };
}

/** s + b[h] tanh(c s) + u[i] r[j], and hidden where i + j is a multiple of 5. */
function scorePart(draw: Draw, { H, longestM, longestN }: Sizes): Part {
  const sizes = { b: H, c: 1, u: Math.max(longestM, 1), r: Math.max(longestN, 1) };
  const hides = draw.chance(50);
  const held = Object.entries(sizes).map(([name, count]) => [
    `captures.${name}`,
    draw.apart(count),
  ]);
  const options = (values: Values): Partial<ReferenceOptions> => {
    const of = (name: keyof typeof sizes) => values[`captures.${name}`];
    const t = (s: number) => Math.tanh(of("c")[0] * s);
    return {
      scoreFunction: (s, { head, qIdx, kvIdx }) =>
        hides && (qIdx + kvIdx) % 5 === 0
          ? Number.NEGATIVE_INFINITY
          : s + of("b")[head] * t(s) + of("u")[qIdx] * of("r")[kvIdx],
      scoreGradient: {
        derivative: (s, { head }) => 1 + of("b")[head] * of("c")[0] * (1 - t(s) ** 2),
        captures: sizes,
        captured: (s, { head, qIdx, kvIdx }) => [
          { name: "b", index: head, derivative: t(s) },
          { name: "c", index: 0, derivative: of("b")[head] * s * (1 - t(s) ** 2) },
          { name: "u", index: qIdx, derivative: of("r")[kvIdx] },
          { name: "r", index: kvIdx, derivative: of("u")[qIdx] },
        ],
      },
    };
  };
  return { held: Object.fromEntries(held), options };
}
