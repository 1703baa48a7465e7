// What operations say to values and settings of another kind: a FoveaError each, while a program is
// recorded, and never an error of the language.

import { expect, it } from "vitest";
import { FoveaError } from "../../src/index.ts";
import * as training from "../../src/training/index.ts";
import { HOSTILE } from "../support/hostile_values.ts";

const { Graph } = training;
const OPERATIONS = { ...training } as unknown as Readonly<
  Record<string, (...args: unknown[]) => unknown>
>;

type Call = readonly [
  name: keyof typeof training,
  given: (graph: InstanceType<typeof Graph>) => unknown[],
];

const CALLS: readonly Call[] = [
  ["linear", (g) => [g.input("x", [3, 4]), g.parameter("w", [5, 4]), g.parameter("b", [5])]],
  ["matmul", (g) => [g.input("a", [3, 4]), g.input("b", [4, 5])]],
  ["layerNorm", (g) => [g.input("x", [3, 4]), g.parameter("w", [4]), g.parameter("b", [4]), {}]],
  ["rmsNorm", (g) => [g.input("x", [3, 4]), g.parameter("w", [4]), {}]],
  ["softmax", (g) => [g.input("x", [3, 4])]],
  ["dropout", (g) => [g.input("x", [3, 4]), 0.5, {}]],
  ["activate", (g) => [g.input("x", [3, 4]), "gelu"]],
  ["add", (g) => [g.input("a", [3, 4]), g.input("b", [3, 4])]],
  ["multiply", (g) => [g.input("a", [3, 4]), g.input("b", [3, 4])]],
  ["broadcast", (g) => [g.input("a", [1, 4]), [3, 4]]],
  ["contiguous", (g) => [g.input("a", [3, 4])]],
  ["concatenate", (g) => [[g.input("a", [3, 4]), g.input("b", [3, 4])], 0]],
  ["attention", (g) => [q(g, "q"), q(g, "k"), q(g, "v"), {}]],
  ["attentionWeights", (g) => [q(g, "q"), q(g, "k"), {}]],
  ["linearAttention", (g) => [q(g, "q"), q(g, "k"), q(g, "v"), {}]],
  ["rotary", (g) => [q(g, "q"), {}]],
  ["crossEntropy", (g) => [g.input("x", [3, 4]), g.input("t", [3], "i32"), {}]],
  ["mseLoss", (g) => [g.input("x", [3, 4]), g.input("t", [3, 4])]],
  ["bceWithLogits", (g) => [g.input("x", [3, 4]), g.input("t", [3, 4])]],
  ["patches", (g) => [g.input("x", [2, 1, 8, 8]), 4]],
  ["patchEmbedding", (g) => [g.input("x", [2, 1, 8, 8]), g.parameter("w", [6, 1, 4, 4])]],
  ["positionEncoding", (g) => [g.input("x", [2, 3, 4]), {}]],
  ["lstm", (g) => [g.input("x", [2, 3, 4]), weights(g, 4), {}]],
  ["gru", (g) => [g.input("x", [2, 3, 4]), weights(g, 3), {}]],
  ["embedding", (g) => [g.input("ids", [2, 3], "i32"), g.parameter("w", [5, 4]), {}]],
  ["linearLayer", (g) => [g.input("x", [3, 4]), parameters(g), 5]],
  ["layerNormLayer", (g) => [g.input("x", [3, 4]), parameters(g)]],
  ["lstmLayer", (g) => [g.input("x", [2, 3, 4]), parameters(g), { hidden: 5 }]],
  ["gruLayer", (g) => [g.input("x", [2, 3, 4]), parameters(g), { hidden: 5 }]],
  ["multiHeadLayer", (g) => [g.input("x", [2, 3, 4]), parameters(g), 2]],
  ["encoderLayer", (g) => [g.input("x", [2, 3, 4]), parameters(g), { heads: 2, width: 8 }]],
  ["meanRows", (g) => [g.input("x", [2, 3, 4])]],
  ["softmaxPool", (g) => [g.input("x", [2, 3, 4]), g.input("s", [2, 3])]],
  ["parametersOf", (g) => [g, training.drawn(1)]],
  ["under", (g) => [parameters(g), "name"]],
  ["drawn", () => [1]],
  ["withAdapters", (g) => [parameters(g), { rank: 2, targets: () => true }]],
];
const q = (g: InstanceType<typeof Graph>, name: string) => g.input(name, [2, 2, 3, 4]);
const parameters = (g: InstanceType<typeof Graph>) => training.parametersOf(g, training.drawn(1));
const weights = (g: InstanceType<typeof Graph>, gates: number) => ({
  weightIh: g.parameter("wi", [gates * 5, 4]),
  weightHh: g.parameter("wh", [gates * 5, 5]),
});

it.each(CALLS)("%s refuses what it cannot use with a FoveaError", (name, given) => {
  const wrong: string[] = [];
  const accepted: string[] = [];
  const count = given(new Graph(true)).length;
  for (let at = 0; at < count; at++) {
    for (const [what, value] of HOSTILE) {
      const args = given(new Graph(true));
      args[at] = value;
      try {
        OPERATIONS[name](...args);
        if (name === "drawn" || name === "under" || name === "parametersOf") accepted.push(what);
      } catch (error) {
        if (!(error instanceof FoveaError)) wrong.push(`argument ${at} ${what}: ${error}`);
      }
    }
  }
  expect(wrong).toEqual([]);
  // Of what stands for nothing else, all is refused but whole numbers, functions and texts.
  if (name === "drawn") expect(accepted).toEqual(["-1"]);
  if (name === "under") expect(accepted).toEqual(["a function", "text"]);
  if (name === "parametersOf") expect(accepted).toEqual(["a function"]);
});
