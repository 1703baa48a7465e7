// The small GPT, letter by letter, on the book of Genesis.

import {
  crossEntropy,
  drawn,
  type Graph,
  parametersOf,
  recordProgram,
  seeded,
  Training,
} from "../../../src/training/index.ts";
import { largest } from "../classifier.ts";
import { loadText } from "../data/load.ts";
import { headMaps, watching } from "../looks.ts";
import type { Answer, System } from "../system.ts";
import { gpt } from "./model.ts";

const LENGTH = 64;
const BATCH = 8;
const HEADS = 4;
const LAYERS = 2;
const WIDTH = 96;
/** The last tenth of the book is for tests. */
const TRAINED = 0.9;
/** Batches of a measurement, spread over the text for tests. */
const MEASURED = 8;
/** Letters that an answer adds. */
const ADDED = 160;
const TEMPERATURE = 0.8;

let loaded: Promise<string> | undefined;

export const GPT: System = {
  name: "gpt",
  title: "Small GPT",
  about:
    "Two blocks of a decoder, width 96, 4 heads, with the embedding as its head, learn to go on with the book of Genesis letter by letter; AdamW, warm-up and cosine.",
  steps: 600,
  every: 60,
  input: { kind: "text", label: "The beginning of a verse", example: "And God said unto " },
  async start(device, { seed, ...kept }) {
    loaded ??= loadText(new URL("../data/genesis.bin", import.meta.url));
    const book = await loaded;
    const letters = [...new Set(book)].sort();
    const idOf = new Map(letters.map((letter, id) => [letter, id]));
    const ids = Int32Array.from(book, (letter) => idOf.get(letter) as number);
    const cut = Math.floor(ids.length * TRAINED);
    const sizes = {
      vocab: letters.length,
      positions: LENGTH,
      width: WIDTH,
      heads: HEADS,
      layers: LAYERS,
      feedForward: 4 * WIDTH,
    };
    const define = (size: number) => (graph: Graph) => {
      const logits = gpt(
        graph.input("ids", [size, LENGTH], "i32"),
        parametersOf(graph, drawn(seed)),
        sizes,
      );
      return { loss: crossEntropy(logits, graph.input("targets", [size, LENGTH], "i32")) };
    };
    const training = await Training.start(device, define(BATCH), {
      optimizer: {
        kind: "AdamW",
        lr: 3e-3,
        betas: [0.9, 0.95],
        weightDecay: 0.1,
        groups: [{ parameters: (_, shape) => shape.length !== 2, weightDecay: 0 }],
        clip: { maxNorm: 1 },
        schedule: { kind: "warmup_cosine", warmupSteps: 30, totalSteps: GPT.steps, minFactor: 0.1 },
      },
      ...kept,
    });
    const shared = { parameters: training.program.parameters };
    const measuring = await recordProgram(device, define(BATCH), shared);
    const writing = await recordProgram(
      device,
      (graph) => {
        const { outputs, watch } = watching();
        const read = graph.input("ids", [1, LENGTH], "i32");
        const logits = gpt(read, parametersOf(graph, drawn(seed)), sizes, watch);
        return { outputs: { logits, ...outputs } };
      },
      shared,
    );
    const windows = (starts: readonly number[]) => ({
      ids: starts.flatMap((start) => [...ids.subarray(start, start + LENGTH)]),
      targets: starts.flatMap((start) => [...ids.subarray(start + 1, start + LENGTH + 1)]),
    });
    const tested = ids.length - cut - LENGTH - 1;
    const tests = Array.from({ length: MEASURED }, (_, batch) =>
      windows(
        Array.from({ length: BATCH }, (_, at) => {
          const part = (batch * BATCH + at) / (MEASURED * BATCH);
          return cut + Math.floor(part * tested);
        }),
      ),
    );
    return {
      training,
      batch(step) {
        const random = seeded(seed * 100_003 + step);
        const last = cut - LENGTH - 1;
        return windows(Array.from({ length: BATCH }, () => Math.floor(random() * last)));
      },
      test: () => tests,
      async evaluate() {
        let loss = 0;
        for (const batch of tests) loss += ((await measuring.run(batch)) as number) / MEASURED;
        return { loss, bits: loss / Math.LN2 };
      },
      async answer(input = "And God said "): Promise<Answer> {
        const known = [...`${input}`].filter((letter) => idOf.has(letter));
        const text = known.length ? known : ["A"];
        const random = seeded(seed);
        let layers: Float32Array[] = [];
        let seen: readonly string[] = [];
        for (let added = 0; added <= ADDED; added++) {
          const last = text.slice(-LENGTH);
          const row = new Int32Array(LENGTH);
          row.set(last.map((letter) => idOf.get(letter) as number));
          await writing.run({ ids: row });
          if (added === ADDED || !seen.length) {
            const names = Object.keys(writing.outputs).filter((name) => name !== "logits");
            const read = names.map((name) => writing.outputs[name].read());
            layers = (await Promise.all(read)) as Float32Array[];
            seen = last;
            if (added === ADDED) break;
          }
          const logits = (await writing.outputs.logits.read()) as Float32Array;
          const at = (last.length - 1) * letters.length;
          text.push(letters[sample(logits.subarray(at, at + letters.length), random)]);
        }
        const last = layers[layers.length - 1];
        const columns = seen.slice(-24);
        const first = seen.length - columns.length;
        const shown = columns.map((letter) => (letter === "\n" ? "⏎" : letter));
        const maps = { heads: HEADS, length: LENGTH, labels: shown, first };
        return { text: text.join(""), pictures: headMaps(last, maps) };
      },
      destroy() {
        for (const program of [writing, measuring, training]) program.destroy();
      },
    };
  },
};

/** A number drawn by the softmax of logits over the temperature. */
function sample(logits: Float32Array, random: () => number): number {
  const top = logits[largest(logits)];
  const parts = Array.from(logits, (value) => Math.exp((value - top) / TEMPERATURE));
  let left = random() * parts.reduce((a, b) => a + b, 0);
  for (const [id, part] of parts.entries()) {
    left -= part;
    if (left < 0) return id;
  }
  return largest(logits);
}
