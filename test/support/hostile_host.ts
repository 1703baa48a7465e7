// Calls of what runs on no GPU, or makes text for one, for hostile values.

import {
  alibiScore,
  alibiSlopes,
  allOf,
  anyOf,
  blockMaskOf,
  causalMask,
  chunkMask,
  createBlockMask,
  dilatedWindow,
  documentMask,
  globalWindow,
  maskFunction,
  neighborhood2d,
  prefixLm,
  probabilityFunction,
  rotaryFrequencies,
  scoreFunction,
  sinusoidalPositions,
  slidingWindow,
  softcapScore,
  type Tensor,
  t5Buckets,
  t5Score,
  tensor,
} from "../../src/index.ts";
import { normal } from "../../src/reference/random.ts";
import type { Call, Given } from "./hostile.ts";

// biome-ignore lint/suspicious/noExplicitAny: what a call is given here is of no type
type Any = any;

/** Calls of what runs on no GPU, and of what makes text for one. */
export function hostCalls(device: GPUDevice): Call[] {
  const ids = tensor(device, [2, 3], { dtype: "i32", data: [0, 0, 1, 0, 1, 1] });
  const slopes = tensor(device, [2], { data: [0.5, 0.25] });
  const table = tensor(device, [8, 2], { data: normal(12, 16) });
  /** Makes a function of the GPU, whose text has what it was told. */
  const made = (
    name: string,
    args: Given,
    work: (...given: Any[]) => { readonly source: string },
  ): Call => ({
    name,
    args,
    run: (given) => [work(...given).source.length > 0 ? 1 : 0],
  });
  const sources = { mask: "fn mask(at: Position) -> bool { return at.kv_idx < 3u; }" };
  return [
    made("causalMask", {}, causalMask),
    made("slidingWindow", { left: 2, right: 1 }, slidingWindow),
    made("chunkMask", { size: 2 }, chunkMask),
    made("prefixLm", { prefix: 2 }, prefixLm),
    made("documentMask", { ids, queryIds: ids }, documentMask),
    made("dilatedWindow", { reach: 3, dilation: 2 }, dilatedWindow),
    made("globalWindow", { globals: 1, left: 2, right: 2 }, globalWindow),
    made("neighborhood2d", { width: 4, height: 3, kernel: 3 }, neighborhood2d),
    made("softcapScore", { cap: 20 }, softcapScore),
    made("alibiScore", { slopes }, alibiScore),
    made("allOf", { one: causalMask(), two: chunkMask(2) }, allOf),
    made("anyOf", { one: causalMask(), two: chunkMask(2) }, anyOf),
    functionCall("maskFunction", maskFunction, sources.mask),
    functionCall(
      "scoreFunction",
      scoreFunction,
      "fn score(s: f32, at: Position) -> f32 { return s * 0.5; }",
    ),
    functionCall(
      "probabilityFunction",
      probabilityFunction,
      "fn probability(p: f32, at: Position) -> f32 { return p; }",
    ),
    {
      name: "t5Score",
      options: { table },
      names: ["bidirectional", "maxDistance"],
      run: (_, options) => [t5Score(options as { table: Tensor }).source.length > 0 ? 1 : 0],
    },
    {
      name: "alibiSlopes",
      args: { heads: 2, max: 8 },
      run: ([heads, max]) => alibiSlopes(heads as number, max as number),
      right: ({ heads, max = 8 }) =>
        Array.from(
          { length: heads as number },
          (_, h) => 2 ** (-((max as number) * (h + 1)) / (heads as number)),
        ),
    },
    {
      name: "t5Buckets",
      args: { seqQ: 2, seqKv: 3 },
      options: {},
      names: ["buckets", "bidirectional", "maxDistance", "queryOffset"],
      run: ([seqQ, seqKv], options) => [
        t5Buckets(seqQ as number, seqKv as number, options as object).length >= 0 ? 1 : 0,
      ],
    },
    {
      name: "sinusoidalPositions",
      args: { positions: 2, width: 4 },
      options: {},
      names: ["maxWavelength", "frequencies", "order"],
      run: ([positions, width], options) =>
        sinusoidalPositions(positions as number, width as number, options as object),
      right: ({ positions, width }, { maxWavelength = 10000, frequencies }) => {
        const rows =
          typeof positions === "number"
            ? Array.from({ length: positions }, (_, p) => p)
            : numbersOf(positions);
        const theta = (pair: number) =>
          frequencies
            ? numbersOf(frequencies)[pair]
            : (maxWavelength as number) ** ((-2 * pair) / (width as number));
        return rows.flatMap((p) =>
          Array.from({ length: width as number }, (_, d) =>
            (d % 2 ? Math.cos : Math.sin)(p * theta(d >> 1)),
          ),
        );
      },
    },
    {
      name: "rotaryFrequencies",
      args: { rotaryDim: 4 },
      options: {},
      names: ["base", "scaling", "frequencies", "attentionFactor"],
      run: ([rotaryDim], options) =>
        rotaryFrequencies(rotaryDim as number, options as object).frequencies,
      right: ({ rotaryDim }, { base = 10000, frequencies }) =>
        frequencies
          ? numbersOf(frequencies)
          : Array.from(
              { length: (rotaryDim as number) / 2 },
              (_, k) => 1 / (base as number) ** ((2 * k) / (rotaryDim as number)),
            ),
    },
    {
      name: "createBlockMask",
      args: { device, function: causalMask() },
      options: { seqQ: 64, seqKv: 64 },
      names: ["batch", "heads", "blockSize", "queryOffset", "label"],
      run: async ([device, mask], options) => {
        const made = await createBlockMask(device as GPUDevice, mask as Any, options as Any);
        const kinds = await made.read();
        made.destroy();
        return [kinds.length > 0 || Object.values(options as Given).includes(0) ? 1 : 0];
      },
    },
    {
      name: "blockMaskOf",
      args: { device, kinds: ["full"] },
      options: { seqQ: 64, seqKv: 64 },
      names: ["batch", "heads", "blockSize", "queryOffset", "label", "maskFunction"],
      run: ([device, kinds], options) => {
        blockMaskOf(device as GPUDevice, kinds as Any, options as Any).destroy();
        return [1];
      },
    },
  ];
}

const functionCall = (
  name: string,
  work: (source: string, options: Any) => { readonly source: string },
  source: string,
): Call => ({
  name,
  args: { source },
  options: { captures: { limit: 3 }, label: "mine" },
  names: ["captures.limit"],
  run: ([source], options) => [work(source as string, options).source.length > 0 ? 1 : 0],
});

const numbersOf = (values: unknown): number[] => Array.from(values as ArrayLike<number>, Number);
