// What a query does not see never reaches its output, whatever it holds: NaN, infinities and huge
// numbers in rows of k and v, for every way to hide them.

import { describe, expect, it } from "vitest";
import {
  type AttentionOptions,
  allOf,
  attention,
  causalMask,
  createBlockMask,
  dilatedWindow,
  documentMask,
  scoreFunction,
  slidingWindow,
  type Tensor,
  type TensorOptions,
  tensor,
} from "../../src/index.ts";
import { type ReferenceOptions, attention as reference } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { product } from "../support/cases.ts";
import { expectClose } from "../support/closeness.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { range } from "../support/masks.ts";

failOnGpuErrors();

const M = 70;
const N = 100;
const D = 8;
const H = 2;
const POISON = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 3e38];

type Make = (shape: number[], options: TensorOptions) => Tensor;
interface Poisoned {
  readonly B?: number;
  /** Rows of k and v that hold poison. */
  readonly keys: (batch: number, key: number) => boolean;
  /** Rows of q that hold poison. */
  readonly queries?: (batch: number, query: number) => boolean;
  readonly gpu: (make: Make, device: GPUDevice) => AttentionOptions | Promise<AttentionOptions>;
  readonly cpu: ReferenceOptions;
  /** How many rows of the outputs see no poison. Default all of them. */
  readonly clean?: number;
}

/** Keys that are hidden from every query. `seen` hides one more, from the even queries only. */
const COLUMNS = (key: number) => key % 5 === 2 || key > 96;
const seen = (q: number, key: number) => !COLUMNS(key) && (key !== 51 || q % 2 === 1);
const MATRIX = range(M * N).map((i) => Number(seen(Math.floor(i / N), i % N)));
const documents = range(N).map((n) => Math.floor(n / 13));
const keyIn = (from: number, to: number) => (_: number, key: number) => from <= key && key < to;

const KINDS: Readonly<Record<string, Poisoned>> = {
  causality: {
    keys: keyIn(60, 100),
    gpu: () => ({ causal: true }),
    cpu: { causal: true },
    clean: H * 30,
  },
  "a window": {
    keys: keyIn(50, 53),
    gpu: () => ({ window: [9, 3] }),
    cpu: { window: [9, 3] },
    clean: H * (M - 15),
  },
  chunks: {
    keys: keyIn(50, 53),
    gpu: () => ({ attentionChunk: 7 }),
    cpu: { attentionChunk: 7 },
    clean: H * (M - 7),
  },
  "key lengths": {
    B: 2,
    keys: (b, key) => key >= [61, 0][b],
    gpu: () => ({ kvLengths: [61, 0] }),
    cpu: { kvLengths: [61, 0] },
  },
  "query lengths": {
    B: 2,
    keys: () => false,
    queries: (b, q) => q >= [70, 33][b],
    gpu: (make) => ({ qLengths: make([2], { dtype: "i32", data: [70, 33] }) }),
    cpu: { qLengths: [70, 33] },
  },
  "packed sequences": {
    keys: (_, key) => key < 3 || (key >= 30 && key < 43) || key >= 80,
    queries: (_, q) => q >= 61,
    gpu: () => ({
      cuSeqlensQ: [0, 20, 61],
      cuSeqlensKv: [3, 43, 80],
      kvLengths: [27, 37],
      causal: true,
    }),
    cpu: { cuSeqlensQ: [0, 20, 61], cuSeqlensKv: [3, 43, 80], kvLengths: [27, 37], causal: true },
  },
  "a mask of bytes": {
    keys: (_, key) => COLUMNS(key) || key === 51,
    gpu: (make) => ({ mask: make([M, N], { dtype: "u8", data: MATRIX }) }),
    cpu: { mask: { shape: [1, 1, M, N], data: MATRIX } },
    clean: (H * M) / 2,
  },
  "a mask of bits, beside ALiBi": {
    keys: (_, key) => COLUMNS(key),
    gpu: (make) => ({
      mask: make([1, 4], { dtype: "u32", data: bitsOf(range(N).map((key) => !COLUMNS(key))) }),
      alibiSlopes: [1, 2],
    }),
    cpu: {
      mask: { shape: [1, 1, 1, N], data: range(N).map((key) => Number(!COLUMNS(key))) },
      alibiSlopes: [1, 2],
    },
  },
  "a bias of -Infinity, beside a softcap": {
    keys: (_, key) => COLUMNS(key) || key === 51,
    gpu: (make) => ({ bias: make([M, N], { data: MATRIX.map(biasOf) }), softcap: 5 }),
    cpu: { bias: { shape: [1, 1, M, N], data: MATRIX.map(biasOf) }, softcap: 5 },
    clean: (H * M) / 2,
  },
  "a mask function, beside a score function": {
    keys: (_, key) => key === 50 || key === 51,
    gpu: () => ({
      maskFunction: dilatedWindow(1000, 3),
      scoreFunction: scoreFunction("fn score(s: f32, at: Position) -> f32 { return 2.0 * s; }"),
    }),
    cpu: {
      maskFunction: ({ kvIdx, position }) => (position - kvIdx) % 3 === 0,
      scoreFunction: (s) => 2 * s,
    },
    clean: (H * (M - 1)) / 3,
  },
  "documents and causality": {
    keys: keyIn(65, 78),
    gpu: (make) => ({
      maskFunction: allOf(causalMask(), documentMask(make([N], { dtype: "i32", data: documents }))),
    }),
    cpu: {
      causal: true,
      maskFunction: ({ kvIdx, position }) => documents[kvIdx] === documents[position],
    },
    clean: H * (M - 13),
  },
  "a block mask": {
    keys: (_, key) => key < 8 || key === 99,
    gpu: async (_, device) => ({
      blockMask: await createBlockMask(device, slidingWindow(20, 5), {
        seqQ: M,
        seqKv: N,
        blockSize: [64, 32],
      }),
    }),
    cpu: { window: [20, 5] },
    clean: H * (M - 6),
  },
};

function biasOf(kept: number): number {
  return kept ? 0 : Number.NEGATIVE_INFINITY;
}

function bitsOf(kept: readonly boolean[]): Uint32Array {
  const words = new Uint32Array(Math.ceil(kept.length / 32));
  kept.forEach((one, key) => {
    words[Math.floor(key / 32)] |= Number(one) << (key % 32);
  });
  return words;
}

describe.each(["8x32", "8x4-quad"])("poison stays behind in %s", (variant) => {
  it.each(Object.entries(KINDS))(
    "%s",
    async (_, { B = 1, keys, queries = () => false, gpu, cpu, clean = B * H * M }) => {
      const device = await testDevice();
      const used: { destroy(): void }[] = [];
      const make: Make = (shape, options) => {
        const made = tensor(device, shape, options);
        used.push(made);
        return made;
      };
      const [q, k, v] = [M, N, N].map((rows, what) => {
        const shape = [B, H, rows, D];
        const data = normal(30 + what, product(shape), 1).map((value, i) => {
          const row = Math.floor(i / D) % rows;
          const poisoned = (what ? keys : queries)(Math.floor(i / D / rows / H), row);
          return poisoned ? POISON[(row + what + i) % POISON.length] : value;
        });
        return { shape, data };
      });
      const options = await gpu(make, device);
      if (options.blockMask) used.push(options.blockMask);
      const tensors = [q, k, v].map(({ shape, data }) => make(shape, { data }));
      const result = await attention(tensors[0], tensors[1], tensors[2], {
        variant,
        lse: true,
        ...options,
      });
      used.push(result.output, result.lse as Tensor);
      const output = await result.output.read();
      const lse = await (result.lse as Tensor).read();
      const [f64, plain] = (["f64", "f32"] as const).map((precision) =>
        reference(q, k, v, { ...cpu, precision }),
      );
      // Rows that see poison are the caller's concern; the reference knows them.
      const rows = range(B * H * M).filter((row) =>
        f64.output.slice(row * D, (row + 1) * D).every(Number.isFinite),
      );
      expect(rows.length).toBe(clean);
      const owned = cpu.cuSeqlensQ ? rows.filter((row) => row % M < 61) : rows;
      const outputs = (all: ArrayLike<number>) =>
        owned.flatMap((row) => Array.from(all as Float64Array).slice(row * D, (row + 1) * D));
      const perRow = (all: ArrayLike<number>) => owned.map((row) => all[row]);
      expectClose(
        "output",
        outputs(output),
        { f64: outputs(f64.output), plain: outputs(plain.output) },
        [owned.length, D],
      );
      expectClose("lse", perRow(lse), { f64: perRow(f64.lse), plain: perRow(plain.lse) }, [
        owned.length,
      ]);
      for (const one of used) one.destroy();
    },
  );
});

it.each(["8x32", "8x4-quad"])(
  "an infinity or NaN reaches the rows that see it in %s, and only its column",
  async (variant) => {
    const device = await testDevice();
    const shape = [1, 1, M, D];
    const numbers = [1, 2, 3].map((seed) => normal(seed, product(shape)));
    const spoilt = numbers[2].slice();
    spoilt.set([Number.NaN, Number.POSITIVE_INFINITY], 30 * D + 3);
    const run = async (values: Float32Array) => {
      const tensors = [numbers[0], numbers[1], values].map((data) =>
        tensor(device, shape, { data }),
      );
      const { output } = await attention(tensors[0], tensors[1], tensors[2], {
        causal: true,
        variant,
      });
      const read = Array.from(await output.read());
      for (const one of [...tensors, output]) one.destroy();
      return read;
    };
    const clean = await run(numbers[2]);
    const met = await run(spoilt);
    const expected = clean.map((value, i) =>
      i < 30 * D || (i % D !== 3 && i % D !== 4)
        ? value
        : i % D === 3
          ? Number.NaN
          : Number.POSITIVE_INFINITY,
    );
    const off = met.filter(
      (value, i) => !(Object.is(value, expected[i]) || Math.abs(value - expected[i]) < 2e-6),
    );
    expect(off).toEqual([]);
  },
);
