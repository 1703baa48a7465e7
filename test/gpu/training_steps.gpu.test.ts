// Many steps of training: one submission each, no allocation after the first, and neither time nor
// memory grows. `npm run test:breadth` makes 10,000 of them.

import { expect, it } from "vitest";
import {
  crossEntropy,
  drawn,
  embedding,
  linearLayer,
  parametersOf,
  recordProgram,
  softmaxPool,
  under,
} from "../../src/training/index.ts";
import { breadth } from "../support/breadth.ts";
import { counted } from "../support/counted.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";

failOnGpuErrors();

const [STEPS] = [...breadth(10_000), 300];
const VOCAB = 11;

/** Bytes of the heap of JavaScript, where the engine tells. */
function heapBytes(): number {
  const inNode = globalThis.process?.memoryUsage?.().heapUsed;
  const inPage = (performance as { memory?: { usedJSHeapSize: number } }).memory?.usedJSHeapSize;
  return inNode ?? inPage ?? 0;
}

const median = (values: readonly number[]) =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

it(`${STEPS} steps: one submission each, nothing allocated after the first, flat in time and memory`, async () => {
  const { device, count, bytes } = counted(await testDevice());
  const program = await recordProgram(
    device,
    (graph) => {
      const parameters = parametersOf(graph, drawn(1));
      const ids = graph.input("ids", [4, 5], "i32");
      const words = embedding(ids, parameters("words", [VOCAB, 16], { normal: 1 }));
      const scores = linearLayer(words, under(parameters, "attention"), 1).reshape(4, 5);
      const { pooled } = softmaxPool(words, scores);
      const logits = linearLayer(pooled, under(parameters, "decoder"), VOCAB);
      return { loss: crossEntropy(logits, graph.input("targets", [4], "i32")) };
    },
    { optimizer: { kind: "AdamW", lr: 1e-2, clip: { maxNorm: 1 } } },
  );
  const batch = (step: number) => {
    const first = Array.from({ length: 4 }, (_, row) => (step * 3 + row * 2) % VOCAB);
    return {
      ids: first.flatMap((id) => [0, 1, 2, 3, 4].map((more) => (id + more) % VOCAB)),
      targets: first.map((id) => (id + 5) % VOCAB),
    };
  };
  const tenth = STEPS / 10;
  const times: number[] = [];
  const first = (await program.run(batch(0))) as number;
  const before = { ...count, bytes: bytes() };
  let heap = 0;
  let last = first;
  for (let step = 1; step < STEPS; step++) {
    const started = performance.now();
    last = (await program.run(batch(step))) as number;
    times.push(performance.now() - started);
    if (step === tenth) heap = heapBytes();
  }
  expect({ ...count, bytes: bytes() }).toEqual({ ...before, submits: before.submits + STEPS - 1 });
  expect(last).toBeLessThan(first / 2);
  const grown = median(times.slice(-tenth)) / median(times.slice(0, tenth));
  // Machines are noisy; what grows with the steps would grow ninefold.
  expect(grown).toBeLessThan(2);
  expect(heapBytes() - heap).toBeLessThan(64 * 2 ** 20);
  if (STEPS > 1000)
    console.warn(`${STEPS} steps: the last tenth took ${grown.toFixed(2)} times the first`);
  program.destroy();
  expect(bytes()).toBe(0);
}, 900_000);
