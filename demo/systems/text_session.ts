// Sessions of systems that classify texts: all learn alike, and from the same texts.

import type { Graph, Parameters, Value } from "../../src/training/index.ts";
import { type Classifier, ranked, startClassifier } from "./classifier.ts";
import type { Picture, Session, SessionOptions } from "./system.ts";
import { type LabelledText, LENGTH, loadTexts, type Texts, textBatch } from "./texts.ts";

const BATCH = 32;

type Recorded = ReturnType<Classifier<unknown>["record"]>;

/** What differs between models of texts. */
export interface TextModel {
  /** The text for tests that is asked about if nobody gives one. */
  readonly asked: number;
  /** Records the model; see {@link Classifier.record}. */
  readonly record: (
    inputs: { readonly ids: Value; readonly lengths: Value },
    parameters: Parameters,
    texts: Pick<Texts, "labels" | "vocab">,
    watched: boolean,
  ) => Recorded;
  /** Where the model looked, by its outputs. */
  readonly pictures: (
    outputs: Readonly<Record<string, Float32Array>>,
    words: readonly string[],
  ) => Picture[];
}

/** Starts a session of a model of texts. */
export async function startTexts(
  device: GPUDevice,
  { asked, record, pictures }: TextModel,
  options: SessionOptions,
): Promise<Session> {
  const { labels, vocab, train, test, read } = await loadTexts();
  const classifier: Classifier<Pick<LabelledText, "ids" | "label">> = {
    optimizer: { kind: "Adam", lr: 1e-3 },
    batchSize: BATCH,
    testSize: BATCH,
    train,
    test,
    labelOf: ({ label }) => label,
    batch: textBatch,
    record(graph: Graph, parameters, size, watched) {
      const ids = graph.input("ids", [size, LENGTH], "i32");
      const lengths = graph.input("lengths", [size], "i32");
      return record({ ids, lengths }, parameters, { labels, vocab }, watched);
    },
    async answer(run, input) {
      const text = typeof input === "string" && input.trim() ? input : test[asked].text;
      const { ids, words } = read(text);
      const { logits, ...outputs } = await run({ ids, label: 0 });
      return { text: ranked(logits, labels), pictures: pictures(outputs, words) };
    },
  };
  return startClassifier(device, classifier, options);
}
