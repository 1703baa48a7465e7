// The Transformer encoder, on the same texts as the LSTM.

import { ranked, startClassifier } from "../classifier.ts";
import { headMaps, watching } from "../looks.ts";
import type { System } from "../system.ts";
import { type LabelledText, LENGTH, loadTexts, textBatch } from "../texts.ts";
import { encoderClassifier } from "./model.ts";

const BATCH = 32;
const HEADS = 4;

export const ENCODER_CLASSIFIER: System = {
  name: "encoder_classifier",
  title: "Transformer encoder",
  about:
    "Two layers of a Transformer encoder with norms first, 4 heads, width 64, and the mean of its rows, on the same texts as the LSTM.",
  steps: 450, // 10 epochs
  every: 45,
  input: {
    kind: "text",
    label: "A sentence or two",
    example: "the lord is my shepherd and i shall not want",
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
        record(graph, parameters, size, watched) {
          const ids = graph.input("ids", [size, LENGTH], "i32");
          const lengths = graph.input("lengths", [size], "i32");
          const { outputs, watch } = watching();
          const inputs = { ids, lengths, watch: watched ? watch : undefined };
          const logits = encoderClassifier(inputs, parameters, {
            vocab,
            width: 64,
            heads: HEADS,
            layers: 2,
            feedForward: 128,
            classes: labels.length,
          });
          return { logits, outputs };
        },
        async answer(run, input) {
          const text = typeof input === "string" && input.trim() ? input : test[130].text;
          const { ids, words } = read(text);
          const { logits, ...layers } = await run({ ids, label: 0 });
          const last = Object.values(layers).at(-1) as Float32Array;
          const maps = { heads: HEADS, length: LENGTH, labels: words };
          return { text: ranked(logits, labels), pictures: headMaps(last, maps) };
        },
      },
      options,
    );
  },
};
