// Every kind of attention in programs: gradients of all that is learned agree with differences.

import { expect, it } from "vitest";
import { attention as reference } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import {
  add,
  attention,
  checkGradients,
  contiguous,
  drawn,
  type Graph,
  linear,
  linearAttention,
  mseLoss,
  type Parameters,
  parametersOf,
  recordProgram,
  rotary,
  type Value,
} from "../../src/training/index.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";

failOnGpuErrors();

const B = 2;
const H = 2;
const M = 6;
const D = 8;

/** q, k and v as parameters, and what is made of them. */
type Define = (q: Value, k: Value, v: Value, parameters: Parameters) => Value;

const KINDS: readonly (readonly [name: string, learned: readonly string[], define: Define])[] = [
  [
    "softcap, window, bias, slopes, sinks, temperature and rotary",
    ["bias", "slopes", "sinks", "temperature"],
    (q, k, v, parameters) =>
      attention(rotary(q), rotary(k, { base: 100 }), v, {
        causal: true,
        window: [3, 0],
        softcap: 4,
        bias: parameters("bias", [1, H, M, M], { normal: 0.5 }),
        alibiSlopes: parameters("slopes", [H], { uniform: 0.5 }),
        sinks: parameters("sinks", [H], { normal: 1 }),
        temperature: parameters("temperature", [H], { constant: 1.3 }),
      }),
  ],
  [
    "normalised rows with weights, and a bias by distance",
    ["q_norm", "k_norm", "distances"],
    (q, k, v, parameters) =>
      attention(q, k, v, {
        similarity: {
          kind: "rms",
          qWeights: parameters("q_norm", [D], { normal: 1 }),
          kWeights: parameters("k_norm", [D], { normal: 1 }),
        },
        relativeBias: { table: parameters("distances", [8, H], { normal: 1 }), maxDistance: 6 },
      }),
  ],
  [
    "dropout of probabilities",
    [],
    (q, k, v) => attention(q, k, v, { causal: true, dropout: { p: 0.4 } }),
  ],
  [
    "additive scores",
    ["vector", "inner"],
    (q, k, v, parameters) =>
      attention(q, k, v, {
        similarity: {
          kind: "additive",
          vector: parameters("vector", [H, D], { normal: 1 }),
          innerBias: parameters("inner", [H, D], { normal: 0.3 }),
        },
      }),
  ],
  [
    "linear attention by the gated delta rule",
    ["decay", "beta"],
    (q, k, v, parameters) =>
      linearAttention(q, k, v, {
        updateRule: "gated_delta",
        decay: parameters("decay", [B, H, M, 1], { uniform: 0.4 }),
        beta: parameters("beta", [B, H, M, 1], { uniform: 0.6 }),
      }),
  ],
];

it.each(KINDS)("gradients of %s", async (_, learned, kind) => {
  const define = (graph: Graph) => {
    const parameters = parametersOf(graph, drawn(3));
    const rows = (name: string) => parameters(name, [B, H, M, D], { normal: 0.6 });
    const output = contiguous(kind(rows("q"), rows("k"), rows("v"), parameters));
    const weights = graph.constant([1, output.size], normal(7, output.size));
    return { loss: linear(output.reshape(1, output.size), weights).reshape(1) };
  };
  using program = await recordProgram(await testDevice(), define, { gradients: true });
  const found = await checkGradients(program, {});
  expect(found.map(({ name }) => name)).toEqual(["q", "k", "v", ...learned]);
  for (const { name, given, expected, within } of found)
    expect(within, `${name}: ${given}, by differences ${expected}`).toBe(true);
});

it("drops other probabilities at each step, those of the engine for the seed and the step", async () => {
  const device = await testDevice();
  const [q, k, v] = [1, 2, 3].map((seed) => normal(seed, B * H * M * D));
  const shape = [B, H, M, D];
  using program = await recordProgram(
    device,
    (graph) => {
      const rows = (name: string) => graph.input(name, shape);
      const learned = parametersOf(graph, drawn(1))("values", shape, { constant: 0 });
      const output = contiguous(
        attention(rows("q"), rows("k"), add(rows("v"), learned), {
          dropout: { p: 0.3, seed: 2 ** 33 + 5 },
        }),
      );
      return { loss: mseLoss(output, graph.constant(shape, v)), outputs: { output } };
    },
    { optimizer: { kind: "SGD", lr: 0 } },
  );
  const dropped: Float32Array[] = [];
  for (let step = 0; step < 3; step++) {
    await program.run({ q, k, v });
    const given = (await program.outputs.output.read()) as Float32Array;
    const [rowsOfQ, rowsOfK, rowsOfV] = [q, k, v].map((data) => ({ shape, data }));
    const options = { dropout: { p: 0.3, seed: 2 ** 33 + 5, step } };
    const { output } = reference(rowsOfQ, rowsOfK, rowsOfV, options);
    for (const [at, value] of output.entries()) expect(given[at]).toBeCloseTo(value, 5);
    dropped.push(given);
  }
  expect(dropped[1]).not.toEqual(dropped[0]);
});
