// The attention model of the first text: it learns the number that follows five others.

import { largest, startClassifier } from "../classifier.ts";
import type { System } from "../system.ts";
import { attentionModel } from "./model.ts";

const VOCAB = 11;
const HIDDEN = 16;

interface Example {
  readonly ids: readonly number[];
  readonly next: number;
}

/** The two sequences of the text, and what follows: after 10 it begins again. */
const EXAMPLES: readonly Example[] = [
  { ids: [1, 2, 3, 4, 5], next: 6 },
  { ids: [6, 7, 8, 9, 10], next: 1 },
];

const systemOf = (softmax: boolean): System => ({
  name: softmax ? "attention_model" : "attention_model_literal",
  title: softmax ? "Attention model" : "Attention model, as the text has it",
  about: softmax
    ? "An embedding, a score for each word by a linear layer, the sum of the words weighed by the softmax of their scores, a decoder: the smallest model with attention."
    : "The same with the scores themselves as weights, which need not add up to 1, as the text's program has it.",
  steps: 100,
  every: 20,
  input: { kind: "text", label: "Five numbers from 0 to 10", example: "1 2 3 4 5" },
  start: (device, options) =>
    startClassifier<Example>(
      device,
      {
        optimizer: { kind: "Adam", lr: 1e-3 },
        batchSize: EXAMPLES.length,
        testSize: EXAMPLES.length,
        train: EXAMPLES,
        test: EXAMPLES,
        labelOf: ({ next }) => next,
        batch: (examples) => ({ ids: examples.flatMap(({ ids }) => ids) }),
        record(graph, parameters, size) {
          const ids = graph.input("ids", [size, 5], "i32");
          const { logits, weights } = attentionModel(ids, parameters, {
            vocab: VOCAB,
            hidden: HIDDEN,
            softmax,
          });
          return { logits, outputs: { weights } };
        },
        async answer(run, input = "1 2 3 4 5") {
          const given = `${input}`.split(/[\s,]+/).filter((word) => word !== "");
          const ids = Array.from({ length: 5 }, (_, at) => {
            const id = Math.trunc(Number(given[at]));
            return id >= 0 && id < VOCAB ? id : 0;
          });
          const { logits, weights } = await run({ ids, next: 0 });
          return {
            text: `Next: ${largest(logits)}`,
            pictures: [
              {
                kind: "map",
                title: "Weight of each number",
                rows: [""],
                columns: ids.map(String),
                weights: [Array.from(weights)],
              },
            ],
          };
        },
      },
      options,
    ),
});

export const ATTENTION_MODEL = systemOf(true);
export const ATTENTION_MODEL_LITERAL = systemOf(false);
