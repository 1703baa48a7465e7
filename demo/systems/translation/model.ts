// Translation: a GRU reads the source, and a GRU with additive attention writes the target. Teacher
// forcing: each step is given the right word before.

import {
  attention,
  attentionWeights,
  byInputs,
  concatenate,
  embedding,
  gruLayer,
  linear,
  linearLayer,
  type Parameters,
  under,
  type Value,
} from "../../../src/training/index.ts";

export interface TranslatorSizes {
  readonly sourceVocab: number;
  readonly targetVocab: number;
  readonly embedding: number;
  readonly hidden: number;
}

/** What the decoder looks at: the states of the encoder, and their keys. */
export interface Encoded {
  /** [B, S, hidden] */
  readonly states: Value;
  /** [B, 1, S, hidden] */
  readonly keys: Value;
  /** [B, hidden]: the last state of each entry. */
  readonly last: Value;
  /** [B] */
  readonly lengths: Value;
}

/** Reads source ids [B, S], of which `lengths` [B] count. */
export function encode(
  source: Value,
  lengths: Value,
  parameters: Parameters,
  { sourceVocab, embedding: width, hidden }: TranslatorSizes,
): Encoded {
  const [B, S] = source.shape;
  const words = embedding(
    source,
    parameters("source_embedding.weight", [sourceVocab, width], { normal: 1 }),
  );
  const { output: states, last } = gruLayer(words, under(parameters, "encoder"), {
    hidden,
    lengths,
  });
  const keys = linear(states, parameters("key.weight", [hidden, hidden], byInputs(hidden)));
  return { states, keys: keys.reshape(B, 1, S, hidden), last: last.reshape(B, hidden), lengths };
}

/** A step of the decoder: from embedded words [B, E] and a state [B, hidden] to the next ones. */
export function decodeStep(
  words: Value,
  state: Value,
  { states, keys, lengths }: Encoded,
  parameters: Parameters,
  { targetVocab, hidden }: TranslatorSizes,
) {
  const [B, S] = states.shape;
  const query = linear(state, parameters("query.weight", [hidden, hidden], byInputs(hidden)));
  const q = query.reshape(B, 1, 1, hidden);
  const vector = parameters("score.weight", [1, hidden], byInputs(hidden)).reshape(hidden);
  const similarity = { kind: "additive", vector } as const;
  const settings = { similarity, kvLengths: lengths };
  const context = attention(q, keys, states.reshape(B, 1, S, hidden), settings);
  const seen = context.reshape(B, hidden);
  const { last } = gruLayer(
    concatenate([words, seen], 1).reshape(B, 1, words.shape[1] + hidden),
    under(parameters, "decoder"),
    { hidden, initial: state.reshape(1, B, hidden) },
  );
  const next = last.reshape(B, hidden);
  const both = concatenate([next, seen], 1);
  return {
    state: next,
    logits: linearLayer(both, under(parameters, "output"), targetVocab),
    weights: attentionWeights(q, keys, settings).reshape(B, S),
  };
}

/** The embedded words [..., E] of target ids. */
export function targetWords(ids: Value, parameters: Parameters, sizes: TranslatorSizes): Value {
  const { targetVocab, embedding: width } = sizes;
  const shape = [targetVocab, width];
  return embedding(ids, parameters("target_embedding.weight", shape, { normal: 1 }));
}

/**
 * Logits [B, T, vocab] of the words after `before` [B, T], and the weights [B, T, S] of what they
 * looked at in the source.
 */
export function translator(
  {
    source,
    lengths,
    before,
  }: { readonly source: Value; readonly lengths: Value; readonly before: Value },
  parameters: Parameters,
  sizes: TranslatorSizes,
): { readonly logits: Value; readonly alignments: Value } {
  const [B, T] = before.shape;
  const [, S] = source.shape;
  const encoded = encode(source, lengths, parameters, sizes);
  const words = targetWords(before, parameters, sizes);
  let state = encoded.last;
  const steps: ReturnType<typeof decodeStep>[] = [];
  for (let t = 0; t < T; t++) {
    const word = words.slice(1, t, t + 1).reshape(B, sizes.embedding);
    const step = decodeStep(word, state, encoded, parameters, sizes);
    state = step.state;
    steps.push(step);
  }
  const rows = (of: "logits" | "weights", width: number) =>
    concatenate(
      steps.map((step) => step[of].reshape(B, 1, width)),
      1,
    );
  return { logits: rows("logits", sizes.targetVocab), alignments: rows("weights", S) };
}
