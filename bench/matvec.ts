// The suite `matvec`: products of few rows, as in decoding, with weights of floats and of integers.

import { planProjection, type Tensor, tensor } from "../src/index.ts";
import { groupSizeFor, type IntegerDtype } from "../src/operations/products/weight_integers.ts";
import {
  dequantiseRow,
  quantisedWords,
  quantiseRow,
  project as reference,
} from "../src/reference/index.ts";
import { normal } from "../src/reference/random.ts";
import { COPY } from "./copy.ts";
import type { Contest, Contestant, Input } from "./peers/contest.ts";
import { foveaContestant, upload } from "./peers/fovea.ts";

/** What a product with a weight of integers may take of the time of one with f32. */
const AT_MOST = 1.5;

type Sizes = readonly [M: number, K: number, N: number];

/** x [M, K] times a weight [N, K], beside a copy of the weight. */
export function matvecContest([M, K, N]: Sizes, software: boolean): Contest {
  const x: Input = { data: normal(1, M * K), shape: [M, K] };
  const weight: Input = { data: normal(2, N * K, 1 / Math.sqrt(K)), shape: [N, K] };
  const flops = 2 * M * N * K;
  const bytes = 4 * (M * K + N * K + M * N);
  const integers = (["int8", "int4"] as const).map((dtype) => integersOf(weight, dtype));
  const part = (index: number) => {
    const { words, numbers } = integers[index];
    const own = { data: numbers, shape: weight.shape };
    return {
      flops,
      bytes: 4 * (M * K + words.length + M * N),
      expected: () => expectedOf(x, own),
    };
  };
  const quantised =
    (index: number) =>
    async (device: GPUDevice): Promise<Contestant> => {
      const { dtype, groupSize, words } = integers[index];
      const stored = tensor(device, [N, words.length / N], { data: words, dtype: "u32" });
      const contestant = await product(device, [x], stored, { quantised: { dtype, groupSize } });
      return { ...contestant, part: part(index) };
    };
  const plain = (options: object) => (device: GPUDevice) => {
    const [stored] = upload(device, [weight]);
    return product(device, [x], stored, options);
  };
  return {
    name: `M=${M} K=${K} N=${N}`,
    dims: { B: 1, H: 1, Hkv: 1, M, N, D: K, Dv: K, causal: false },
    flops,
    bytes,
    ratios: ["int8", "int4"].map((of) => ({
      name: `${of} to f32`,
      of,
      over: "fovea",
      atMost: AT_MOST,
    })),
    contestants: {
      fovea: plain({}),
      tiles: plain({ variant: software ? "32x16-quad" : "8x32" }),
      int8: quantised(0),
      int4: quantised(1),
      copy: (device) => copyOf(device, weight),
    },
    expected: () => expectedOf(x, weight),
  };
}

/** The words of a weight, and the numbers that they stand for. */
function integersOf({ data, shape: [N, K] }: Input, dtype: IntegerDtype) {
  const groupSize = groupSizeFor(dtype, K);
  if (!groupSize) throw new Error(`rows of ${K} have no groups`);
  const options = { bits: dtype === "int8" ? 8 : 4, group: groupSize } as const;
  const rows = Array.from({ length: N }, (_, n) => data.subarray(n * K, (n + 1) * K));
  const words = Uint32Array.from(rows.flatMap((row) => Array.from(quantisedWords(row, options))));
  const numbers = Float64Array.from(
    rows.flatMap((row) => Array.from(dequantiseRow(quantiseRow(row, options), options))),
  );
  return { dtype, groupSize, words, numbers };
}

function expectedOf(x: Input, weight: { data: ArrayLike<number>; shape: readonly number[] }) {
  const f64 = reference(x, weight);
  const plain = reference(x, weight, undefined, { precision: "f32" });
  return { at: Array.from(f64, (_, index) => index), f64, plain };
}

async function product(
  device: GPUDevice,
  inputs: readonly Input[],
  weight: Tensor,
  options: object,
): Promise<Contestant> {
  const [x] = upload(device, inputs);
  const output = tensor(device, [x.shape[0], weight.shape[0]]);
  const plan = await planProjection(device, { x, weight, output, ...options });
  return foveaContestant(device, plan, output, [x, weight, plan]);
}

/** Copies the weight: what memory can do. */
async function copyOf(device: GPUDevice, { data, shape }: Input): Promise<Contestant> {
  const k = tensor(device, shape, { data });
  const v = tensor(device, [4]);
  const copy = await COPY.plan(device, {} as never, {} as never);
  const encode = (pass: GPUComputePassEncoder) => copy.encode(pass, { k, v } as never);
  const recorded = { kernel: "copy", workspaceBytes: 0, encode };
  const contestant = foveaContestant(device, recorded, k, [v, copy]);
  const bytes = 2 * 4 * k.size;
  const part = { flops: 0, bytes, expected: () => ({ at: [], f64: [], plain: [] }) };
  return { ...contestant, yardstick: true, part };
}
