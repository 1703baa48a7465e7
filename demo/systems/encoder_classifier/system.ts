// The Transformer encoder, on the same texts as the LSTM.

import { headMaps, watching } from "../looks.ts";
import type { System } from "../system.ts";
import { startTexts, type TextModel } from "../text_session.ts";
import { LENGTH } from "../texts.ts";
import { encoderClassifier } from "./model.ts";

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
  start: (device, options) => startTexts(device, MODEL, options),
};

const MODEL: TextModel = {
  asked: 130,
  record(inputs, parameters, { vocab, labels }, watched) {
    const { outputs, watch } = watching();
    const given = { ...inputs, watch: watched ? watch : undefined };
    const logits = encoderClassifier(given, parameters, {
      vocab,
      width: 64,
      heads: HEADS,
      layers: 2,
      feedForward: 128,
      classes: labels.length,
    });
    return { logits, outputs };
  },
  pictures(layers, words) {
    const last = Object.values(layers).at(-1) as Float32Array;
    return headMaps(last, { heads: HEADS, length: LENGTH, labels: words });
  },
};
