// The LSTM with attention over time, on genres of the Brown corpus.

import { ranked, startClassifier } from "../classifier.ts";
import type { System } from "../system.ts";
import { type LabelledText, LENGTH, loadTexts, textBatch } from "../texts.ts";
import { textClassifier } from "./model.ts";

const BATCH = 32;

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
  async start(device, options) {
    const { labels, vocab, train, test, read } = await loadTexts();
    return startClassifier<Pick<LabelledText, "ids" | "label">>(
      device,
      {
        optimizer: { kind: "Adam", lr: 1e-3 },
        batchSize: BATCH,
        testSize: BATCH,
        train,
        test,
        labelOf: ({ label }) => label,
        batch: textBatch,
        record(graph, parameters, size) {
          const ids = graph.input("ids", [size, LENGTH], "i32");
          const lengths = graph.input("lengths", [size], "i32");
          const { logits, weights } = textClassifier({ ids, lengths }, parameters, {
            vocab,
            embedding: 128,
            hidden: 128,
            classes: labels.length,
            bidirectional: false,
          });
          return { logits, outputs: { weights } };
        },
        async answer(run, input) {
          const text = typeof input === "string" && input.trim() ? input : test[0].text;
          const { ids, words } = read(text);
          const { logits, weights } = await run({ ids, label: 0 });
          return {
            text: ranked(logits, labels),
            pictures: [
              {
                kind: "map",
                title: "Where it looked",
                rows: [""],
                columns: words,
                weights: [Array.from(weights.subarray(0, words.length))],
              },
            ],
          };
        },
      },
      options,
    );
  },
};
