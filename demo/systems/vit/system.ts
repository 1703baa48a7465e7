// The small Vision Transformer, on handwritten digits.

import { ranked, startClassifier } from "../classifier.ts";
import { loadBytes } from "../data/load.ts";
import { watching } from "../looks.ts";
import type { Picture, System } from "../system.ts";
import { vit } from "./model.ts";

const SIZE = 28;
const PATCH = 7;
const GRID = SIZE / PATCH;
const HEADS = 4;
const ROWS = GRID * GRID + 1;
/** Of each ten digits in turn, the last 500 are for tests. */
const TRAIN = 2000;
const LABELS = Array.from({ length: 10 }, (_, digit) => `${digit}`);

interface Example {
  readonly label: number;
  /** Brightness from 0 to 1, row by row. */
  readonly pixels: readonly number[];
}

let loaded: Promise<readonly Example[]> | undefined;

async function load(): Promise<readonly Example[]> {
  const bytes = await loadBytes(new URL("../data/digits.bin", import.meta.url));
  const each = 1 + SIZE * SIZE;
  return Array.from({ length: bytes.length / each }, (_, at) => {
    const [label, ...pixels] = bytes.subarray(at * each, (at + 1) * each);
    return { label, pixels: pixels.map((value) => value / 255) };
  });
}

/**
 * How much of each row's content came from each, through all layers: the product of
 * (A + I) / 2, with A the mean of a layer's heads. Source: Abnar and Zuidema, Quantifying Attention
 * Flow in Transformers (arXiv 2005.00928), section 3.
 */
function rollout(layers: readonly Float32Array[]): number[][] {
  const identity = (row: number, column: number) => (row === column ? 1 : 0);
  const square = (element: (row: number, column: number) => number) =>
    Array.from({ length: ROWS }, (_, row) =>
      Array.from({ length: ROWS }, (_, column) => element(row, column)),
    );
  let flow = square(identity);
  for (const layer of layers) {
    const mixed = square((row, column) => {
      let sum = 0;
      for (let head = 0; head < HEADS; head++) sum += layer[(head * ROWS + row) * ROWS + column];
      return (sum / HEADS + identity(row, column)) / 2;
    });
    const before = flow;
    flow = square((row, column) =>
      mixed[row].reduce((sum, weight, at) => sum + weight * before[at][column], 0),
    );
  }
  return flow;
}

const chunks = (values: readonly number[], size: number) =>
  Array.from({ length: values.length / size }, (_, at) => values.slice(at * size, (at + 1) * size));

export const VIT: System = {
  name: "vit",
  title: "Vision Transformer",
  about:
    "16 patches of a handwritten digit and a class token through two layers of an encoder, width 64, 4 heads; the picture shows by attention rollout where the class token's row came from.",
  steps: 620, // 10 epochs
  every: 62,
  input: { kind: "drawing", label: "Draw a digit", size: SIZE },
  async start(device, options) {
    loaded ??= load();
    const examples = await loaded;
    const test = examples.slice(TRAIN);
    return startClassifier<Example>(
      device,
      {
        optimizer: { kind: "AdamW", lr: 1e-3, weightDecay: 0.05 },
        batchSize: 32,
        testSize: 50,
        train: examples.slice(0, TRAIN),
        test,
        labelOf: ({ label }) => label,
        batch: (chosen) => ({ images: chosen.flatMap(({ pixels }) => pixels) }),
        record(graph, parameters, size, watched) {
          const images = graph.input("images", [size, 1, SIZE, SIZE]);
          const { outputs, watch } = watching();
          const sizes = {
            size: SIZE,
            channels: 1,
            patch: PATCH,
            width: 64,
            heads: HEADS,
            layers: 2,
            feedForward: 128,
            classes: 10,
          };
          const logits = vit(images, parameters, sizes, watched ? watch : undefined);
          return { logits, outputs };
        },
        async answer(run, input) {
          const pixels =
            typeof input === "object" && input.length === SIZE * SIZE ? input : test[7].pixels;
          const { logits, ...layers } = await run({ label: 0, pixels });
          const [, ...weights] = rollout(Object.values(layers))[0];
          const picture: Picture = {
            kind: "image",
            title: "Where the class token's row came from",
            pixels: chunks(pixels, SIZE),
            weights: chunks(weights, GRID),
          };
          return { text: ranked(logits, LABELS), pictures: [picture] };
        },
      },
      options,
    );
  },
};
