// Sessions of systems that classify: a program that learns, and one that measures with the same
// parameters.

import {
  type Batch,
  crossEntropy,
  drawn,
  type Graph,
  type Parameters,
  type ProgramOptimizer,
  parametersOf,
  recordProgram,
  Training,
  type Value,
} from "../../src/training/index.ts";
import { batchOf } from "./order.ts";
import type { Answer, Metrics, Session, SessionOptions } from "./system.ts";

/** What a classifier is made of. */
export interface Classifier<Example> {
  readonly optimizer: ProgramOptimizer;
  readonly batchSize: number;
  /** How many examples are measured at a time; it divides the number of those for tests. */
  readonly testSize: number;
  readonly train: readonly Example[];
  readonly test: readonly Example[];
  readonly labelOf: (example: Example) => number;
  /** Elements of the inputs for examples. */
  readonly batch: (examples: readonly Example[]) => Batch;
  /**
   * Records the model for so many examples: logits [size, classes], and what is looked at.
   *
   * @param watched Whether somebody looks
   */
  readonly record: (
    graph: Graph,
    parameters: Parameters,
    size: number,
    watched: boolean,
  ) => { readonly logits: Value; readonly outputs?: Readonly<Record<string, Value>> };
  /** What the model says to an example; `run` gives the logits and what is looked at. */
  readonly answer: (
    run: (example: Example) => Promise<Readonly<Record<string, Float32Array>>>,
    input: string | readonly number[] | undefined,
  ) => Promise<Answer>;
}

/** The place of the largest of some numbers. */
export const largest = (values: ArrayLike<number>): number => {
  let best = 0;
  for (let at = 1; at < values.length; at++) if (values[at] > values[best]) best = at;
  return best;
};

/** How many rows of logits [rows, classes] have the largest at their target; negative ones have none. */
export function countRight(logits: Float32Array, targets: ArrayLike<number>): number {
  const classes = logits.length / targets.length;
  let right = 0;
  for (let row = 0; row < targets.length; row++) {
    const own = logits.subarray(row * classes, (row + 1) * classes);
    if (largest(own) === targets[row]) right++;
  }
  return right;
}

/** Starts a session of a classifier. */
export async function startClassifier<Example>(
  device: GPUDevice,
  classifier: Classifier<Example>,
  { seed, ...kept }: SessionOptions,
): Promise<Session> {
  const { train, test, batchSize, testSize, labelOf } = classifier;
  const define = (size: number, watched: boolean) => (graph: Graph) => {
    const parameters = parametersOf(graph, drawn(seed));
    const { logits, outputs } = classifier.record(graph, parameters, size, watched);
    const targets = graph.input("targets", [size], "i32");
    return { loss: crossEntropy(logits, targets), outputs: { logits, ...outputs } };
  };
  const { optimizer } = classifier;
  const training = await Training.start(device, define(batchSize, false), { optimizer, ...kept });
  const shared = { parameters: training.program.parameters };
  const measuring = await recordProgram(device, define(testSize, false), shared);
  const looking = await recordProgram(device, define(1, true), shared);
  const inputs = (examples: readonly Example[]): Batch => ({
    ...classifier.batch(examples),
    targets: examples.map(labelOf),
  });
  const tests = Array.from({ length: test.length / testSize }, (_, at) =>
    inputs(test.slice(at * testSize, (at + 1) * testSize)),
  );
  return {
    training,
    batch(step) {
      const chosen = batchOf(step, train.length, batchSize, seed);
      return inputs(chosen.map((at) => train[at]));
    },
    test: () => tests,
    async evaluate(): Promise<Metrics> {
      let loss = 0;
      let right = 0;
      for (const batch of tests) {
        loss += ((await measuring.run(batch)) as number) / tests.length;
        const logits = (await measuring.outputs.logits.read()) as Float32Array;
        right += countRight(logits, batch.targets as readonly number[]);
      }
      return { loss, accuracy: right / test.length };
    },
    answer: (input) =>
      classifier.answer(async (example) => {
        await looking.run(inputs([example]));
        const read = Object.entries(looking.outputs).map(
          async ([name, one]) => [name, (await one.read()) as Float32Array] as const,
        );
        return Object.fromEntries(await Promise.all(read));
      }, input),
    destroy() {
      for (const program of [looking, measuring, training]) program.destroy();
    },
  };
}

/** Probabilities of classes, the largest first, in words. */
export function ranked(logits: ArrayLike<number>, labels: readonly string[]): string {
  const values = Array.from(logits);
  const top = Math.max(...values);
  const exponents = values.map((value) => Math.exp(value - top));
  const sum = exponents.reduce((a, b) => a + b, 0);
  return labels
    .map((label, at) => ({ label, part: exponents[at] / sum }))
    .sort((a, b) => b.part - a.part)
    .slice(0, 3)
    .map(({ label, part }) => `${label} ${(100 * part).toFixed(0)} %`)
    .join(", ");
}
