// The LSTM with attention over time, on genres of the Brown corpus.

import type { System } from "../system.ts";
import { startTexts, type TextModel } from "../text_session.ts";
import { textClassifier } from "./model.ts";

export const TEXT_CLASSIFIER: System = {
  name: "text_classifier",
  title: "LSTM with attention",
  about:
    "Embedding 128, LSTM 128, attention over its outputs, and a linear layer tell which genre of the Brown corpus 32 words are from.",
  steps: 450, // 10 epochs
  every: 45,
  input: {
    kind: "text",
    label: "A sentence or two",
    example: "he took her hand and they walked along the river without a word",
  },
  start: (device, options) => startTexts(device, MODEL, options),
};

const MODEL: TextModel = {
  asked: 0,
  record(inputs, parameters, { vocab, labels }) {
    const { logits, weights } = textClassifier(inputs, parameters, {
      vocab,
      embedding: 128,
      hidden: 128,
      classes: labels.length,
      bidirectional: false,
    });
    return { logits, outputs: { weights } };
  },
  pictures: ({ weights }, words) => [
    {
      kind: "map",
      title: "Where it looked",
      rows: [""],
      columns: words,
      weights: [Array.from(weights.subarray(0, words.length))],
    },
  ],
};
