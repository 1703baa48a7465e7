// Writing the target, piece by piece: the best few beginnings are kept at a time. With one it is
// greedy decoding.

import {
  drawn,
  type Graph,
  type Program,
  parametersOf,
  recordProgram,
} from "../../../src/training/index.ts";
import { BEGIN, END, PADDING } from "./data.ts";
import { decodeStep, encode, type TranslatorSizes, targetWords } from "./model.ts";

/** A beginning of a target. */
export interface Beam {
  readonly ids: readonly number[];
  /** The sum of the logarithms of the probabilities of its pieces. */
  readonly score: number;
  /** For each piece, the weights of the source. */
  readonly weights: readonly (readonly number[])[];
  readonly isDone: boolean;
}

/** Translates with the parameters of a program that trains. */
export interface Decoder {
  /** The best target of source ids, and its weights. */
  decode(source: readonly number[], beams: number): Promise<Beam>;
  destroy(): void;
}

/** Beginnings that a decoder can keep. */
export const MOST_BEAMS = 4;

/** Records the programs of a decoder: one reads a source, one adds a piece to all beginnings. */
export async function makeDecoder(
  device: GPUDevice,
  sizes: TranslatorSizes,
  { sourceLength, targetLength }: { readonly sourceLength: number; readonly targetLength: number },
  parameters: Program["parameters"],
): Promise<Decoder> {
  const { hidden, targetVocab } = sizes;
  const reading = await recordProgram(
    device,
    (graph) => {
      const source = graph.input("source", [1, sourceLength], "i32");
      const lengths = graph.input("lengths", [1], "i32");
      const { states, keys, last } = encode(source, lengths, from(graph), sizes);
      return { outputs: { states, keys, last } };
    },
    { parameters },
  );
  const writing = await recordProgram(
    device,
    (graph) => {
      const encoded = {
        states: graph.input("states", [MOST_BEAMS, sourceLength, hidden]),
        keys: graph.input("keys", [MOST_BEAMS, 1, sourceLength, hidden]),
        last: graph.input("last", [MOST_BEAMS, hidden]),
        lengths: graph.input("lengths", [MOST_BEAMS], "i32"),
      };
      const words = targetWords(graph.input("ids", [MOST_BEAMS], "i32"), from(graph), sizes);
      return { outputs: decodeStep(words, encoded.last, encoded, from(graph), sizes) };
    },
    { parameters },
  );
  const decode = async (source: readonly number[], count: number): Promise<Beam> => {
    const ids = new Int32Array(sourceLength).fill(PADDING);
    ids.set(source.slice(0, sourceLength));
    const length = Math.min(source.length, sourceLength);
    await reading.run({ source: ids, lengths: [length] });
    const [states, keys, last] = await Promise.all(
      [reading.outputs.states, reading.outputs.keys, reading.outputs.last].map((one) => one.read()),
    );
    const all = { states: repeated(states), keys: repeated(keys) };
    const lengths = new Array<number>(MOST_BEAMS).fill(length);
    let state = repeated(last);
    let beams: Beam[] = [{ ids: [], score: 0, weights: [], isDone: false }];
    for (let step = 0; step <= targetLength && beams.some(({ isDone }) => !isDone); step++) {
      const before = Int32Array.from(
        { length: MOST_BEAMS },
        (_, row) => beams[row]?.ids.at(-1) ?? BEGIN,
      );
      await writing.run({ ...all, lengths, ids: before, last: state });
      const [next, logits, weights] = await Promise.all(
        [writing.outputs.state, writing.outputs.logits, writing.outputs.weights].map(
          async (one) => (await one.read()) as Float32Array,
        ),
      );
      const candidates = beams.flatMap((beam, row) => {
        if (beam.isDone) return [{ beam, row }];
        const scores = logarithms(logits.subarray(row * targetVocab, (row + 1) * targetVocab));
        const looked = Array.from(weights.subarray(row * sourceLength, (row + 1) * sourceLength));
        return scores.map((score, id) => {
          const longer = {
            ids: [...beam.ids, id],
            score: beam.score + score,
            weights: [...beam.weights, looked],
            isDone: id === END,
          };
          return { beam: longer, row };
        });
      });
      candidates.sort((a, b) => b.beam.score - a.beam.score);
      const best = candidates.slice(0, count);
      beams = best.map(({ beam }) => beam);
      state = new Float32Array(MOST_BEAMS * hidden);
      for (const [at, { row }] of best.entries())
        state.set(next.subarray(row * hidden, (row + 1) * hidden), at * hidden);
    }
    return beams[0];
  };
  return {
    decode,
    destroy() {
      reading.destroy();
      writing.destroy();
    },
  };
}

/** Parameters of another program; what they are first does not matter. */
const from = (graph: Graph) => parametersOf(graph, drawn(0));

/** The same elements for each beginning. */
function repeated(elements: ArrayLike<number>): Float32Array<ArrayBuffer> {
  const all = new Float32Array(MOST_BEAMS * elements.length);
  for (let row = 0; row < MOST_BEAMS; row++) all.set(elements, row * elements.length);
  return all;
}

/** Logarithms of probabilities. No target has padding or begins again. */
function logarithms(logits: Float32Array): number[] {
  const values = Array.from(logits, (value, id) =>
    id === PADDING || id === BEGIN ? Number.NEGATIVE_INFINITY : value,
  );
  const top = Math.max(...values);
  const sum = values.reduce((all, value) => all + Math.exp(value - top), 0);
  return values.map((value) => value - top - Math.log(sum));
}
