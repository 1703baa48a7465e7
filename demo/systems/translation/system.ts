// Translation with additive attention: words to phonemes, or dates in words to numbers.

import {
  crossEntropy,
  drawn,
  type Graph,
  parametersOf,
  recordProgram,
  Training,
} from "../../../src/training/index.ts";
import { countRight } from "../classifier.ts";
import { batchOf } from "../order.ts";
import type { Answer, System } from "../system.ts";
import {
  BEGIN,
  END,
  idsOf,
  loadDates,
  loadPhonemes,
  PADDING,
  type Pair,
  type Pairs,
  pieceOf,
  vocabularySize,
} from "./data.ts";
import { MOST_BEAMS, makeDecoder } from "./decode.ts";
import { translator } from "./model.ts";

const BATCH = 50;
/** Targets of the test data that are also written piece by piece. */
const WRITTEN = 40;

function systemOf(
  told: Pick<System, "name" | "title" | "about" | "input">,
  load: () => Promise<Pairs>,
): System {
  let loaded: Promise<Pairs> | undefined;
  return {
    ...told,
    steps: 480, // 6 epochs
    every: 40,
    async start(device, { seed, ...kept }) {
      loaded ??= load();
      const pairs = await loaded;
      const { sources, targets, sourceLength, train, test } = pairs;
      const sizes = {
        sourceVocab: vocabularySize(sources),
        targetVocab: vocabularySize(targets),
        embedding: 48,
        hidden: 96,
      };
      const steps = pairs.targetLength + 1; // and the end
      const define = (graph: Graph) => {
        const given = {
          source: graph.input("source", [BATCH, sourceLength], "i32"),
          lengths: graph.input("lengths", [BATCH], "i32"),
          before: graph.input("before", [BATCH, steps], "i32"),
        };
        const parameters = parametersOf(graph, drawn(seed));
        const { logits } = translator(given, parameters, sizes);
        const next = graph.input("next", [BATCH, steps], "i32");
        return { loss: crossEntropy(logits, next, { ignoreIndex: PADDING }), outputs: { logits } };
      };
      const batch = (chosen: readonly Pair[]) => {
        const source = new Int32Array(BATCH * sourceLength).fill(PADDING);
        const before = new Int32Array(BATCH * steps).fill(PADDING);
        const next = new Int32Array(BATCH * steps).fill(PADDING);
        for (const [row, pair] of chosen.entries()) {
          const ids = idsOf(pair.target, targets);
          source.set(idsOf(pair.source, sources), row * sourceLength);
          before.set([BEGIN, ...ids], row * steps);
          next.set([...ids, END], row * steps);
        }
        return { source, lengths: chosen.map((pair) => pair.source.length), before, next };
      };
      const tests = Array.from({ length: test.length / BATCH }, (_, at) =>
        batch(test.slice(at * BATCH, (at + 1) * BATCH)),
      );
      const training = await Training.start(device, define, {
        optimizer: { kind: "Adam", lr: 3e-3, clip: { maxNorm: 1 } },
        ...kept,
      });
      const { parameters } = training.program;
      const measuring = await recordProgram(device, define, { parameters });
      const decoder = await makeDecoder(device, sizes, pairs, parameters);
      const written = async (source: readonly string[], beams: number) => {
        const beam = await decoder.decode(idsOf(source, sources), beams);
        const pieces = beam.ids.map((id) => pieceOf(id, targets));
        return { pieces: pieces.filter((piece) => piece !== undefined), weights: beam.weights };
      };
      return {
        training,
        batch(step) {
          const chosen = batchOf(step, train.length, BATCH, seed);
          return batch(chosen.map((at) => train[at]));
        },
        test: () => tests,
        async evaluate() {
          let loss = 0;
          let right = 0;
          let all = 0;
          for (const given of tests) {
            loss += ((await measuring.run(given)) as number) / tests.length;
            const logits = (await measuring.outputs.logits.read()) as Float32Array;
            const isTarget = (id: number) => id !== PADDING;
            all += given.next.filter(isTarget).length;
            // What is no target is right nowhere.
            right += countRight(
              logits,
              given.next.map((id) => (isTarget(id) ? id : -1)),
            );
          }
          let same = 0;
          for (const { source, target } of test.slice(0, WRITTEN)) {
            const { pieces } = await written(source, 1);
            if (pieces.join(" ") === target.join(" ")) same++;
          }
          return { loss, accuracy: right / all, "whole targets": same / WRITTEN };
        },
        async answer(input): Promise<Answer> {
          const given = typeof input === "string" ? pairs.read(input.trim()) : [];
          const known = given.filter((piece) => sources.includes(piece)).slice(0, sourceLength);
          const source = known.length ? known : test[0].source;
          const greedy = await written(source, 1);
          const beam = await written(source, MOST_BEAMS);
          const said = (pieces: readonly string[]) => pieces.join(pairs.separator);
          const texts = new Set([said(beam.pieces), said(greedy.pieces)]);
          return {
            text: [...texts].join(", or greedily "),
            pictures: [
              {
                kind: "map",
                title: "Alignment",
                rows: beam.pieces,
                columns: source,
                rowLabel: "writes",
                columnLabel: "looks at",
                weights: beam.pieces.map((_, row) => beam.weights[row].slice(0, source.length)),
              },
            ],
          };
        },
        destroy() {
          for (const one of [decoder, measuring, training]) one.destroy();
        },
      };
    },
  };
}

export const TRANSLATION = systemOf(
  {
    name: "translation",
    title: "Words to phonemes",
    about:
      "A GRU reads the letters of a word, and another with additive attention writes its phonemes, by teacher forcing; the picture shows which letters each phoneme came from.",
    input: { kind: "text", label: "A word of 3 to 8 letters", example: "machine" },
  },
  loadPhonemes,
);

export const DATES = systemOf(
  {
    name: "dates",
    title: "Dates to numbers",
    about: "The same model writes dates as ISO 8601 has them, from dates in English words.",
    input: { kind: "text", label: "A date from 1970 to 2031", example: "December 1, 2026" },
  },
  loadDates,
);
