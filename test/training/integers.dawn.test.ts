// Programs with weights of integers: what they compute, adapters beside them, and what is refused.

import { describe, expect, it } from "vitest";
import { dequantiseRow, quantiseRow } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import {
  add,
  checkGradients,
  embedding,
  Graph,
  isAdapter,
  linear,
  type Parameters,
  recordProgram,
  withAdapters,
} from "../../src/training/index.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

/** The numbers that the integers of rows of `inner` stand for. */
const numbersOf = (data: Float32Array, inner: number, bits: 8 | 4, group: number) =>
  Float64Array.from(
    Array.from({ length: data.length / inner }, (_, row) => {
      const options = { bits, group };
      const own = data.subarray(row * inner, (row + 1) * inner);
      return Array.from(dequantiseRow(quantiseRow(own, options), options));
    }).flat(),
  );

describe("a program with weights of integers", () => {
  it("multiplies by them, and takes their rows", async () => {
    const table = normal(1, 9 * 24);
    const w = normal(2, 5 * 24);
    const ids = [8, 0, 3];
    const program = await recordProgram(await testDevice(), (graph) => {
      const settings = { frozen: true, dtype: "int8" } as const;
      const rows = embedding(
        graph.input("ids", [3], "i32"),
        graph.parameter("table", [9, 24], table, settings),
      );
      const weight = graph.parameter("w", [5, 24], w, {
        frozen: true,
        dtype: "int4",
        groupSize: 8,
      });
      expect([weight.dtype, String(weight.shape)]).toEqual(["int4", "5,24"]);
      return { outputs: { y: linear(rows, weight), part: linear(rows, weight.slice(0, 1, 3)) } };
    });
    await program.run({ ids });
    const [y, part] = await Promise.all([program.outputs.y.read(), program.outputs.part.read()]);
    const T = numbersOf(table, 24, 8, 24);
    const W = numbersOf(w, 24, 4, 8);
    for (const [m, id] of ids.entries()) {
      for (let n = 0; n < 5; n++) {
        let sum = 0;
        for (let k = 0; k < 24; k++) sum += T[id * 24 + k] * W[n * 24 + k];
        expect(Math.abs(y[m * 5 + n] - sum)).toBeLessThan(1e-5);
        if (n === 1 || n === 2) expect(part[m * 2 + n - 1]).toBe(y[m * 5 + n]);
      }
    }
    // Words of both: 9 rows of a scale and 6 words, 5 of three scales and 3 words.
    expect(program.bytes.parameters).toBe(4 * (9 * 7 + 5 * 6));
    program.destroy();
  });

  it("learns adapters beside them, also of layers before others", async () => {
    const data = (name: string, size: number) => normal(name.length, size, 0.5);
    const define = (graph: Graph) => {
      const base: Parameters = (name, shape) => {
        const known = graph.parameters.get(name)?.value;
        const size = shape.reduce((product, one) => product * one, 1);
        const frozen = isAdapter(name) ? {} : ({ frozen: true, dtype: "int8" } as const);
        return known ?? graph.parameter(name, shape, data(name, size), frozen);
      };
      const parameters = withAdapters(base, { rank: 2, alpha: 3, targets: () => true });
      const x = graph.input("x", [3, 16]);
      const inner = linear(x, parameters("first.weight", [8, 16]));
      const y = linear(inner, parameters("second.weight", [8, 8]));
      const loss = linear(y.reshape(1, 24), graph.constant([1, 24], normal(5, 24)));
      return { loss: loss.reshape(1) };
    };
    const program = await recordProgram(await testDevice(), define, { gradients: true });
    const learned = ["first.lora_A", "first.lora_B", "second.lora_A", "second.lora_B"];
    const found = await checkGradients(program, { x: normal(4, 48) });
    expect(found.map(({ name }) => name)).toEqual(learned.map((name) => `${name}.weight`));
    for (const one of found) {
      expect(one).toMatchObject({ within: true });
      expect(Math.abs(one.given)).toBeGreaterThan(10 * one.resolution);
    }
    program.destroy();
  });

  it("has parameters of another program only if they are stored alike", async () => {
    const device = await testDevice();
    const settings = { frozen: true, dtype: "int8" } as const;
    const define = (graph: Graph) => ({
      outputs: {
        y: linear(
          graph.input("x", [1, 16]),
          graph.parameter("w", [2, 16], normal(3, 32), settings),
        ),
      },
    });
    const first = await recordProgram(device, define);
    const second = await recordProgram(device, define, { parameters: first.parameters });
    await second.run({ x: normal(4, 16) });
    expect(Number.isFinite((await second.outputs.y.read())[0])).toBe(true);
    second.destroy();
    const w = first.parameters.get("w")?.view({ shape: [5, 2] });
    await expectError(
      () => recordProgram(device, define, { parameters: new Map([["w", w]]) as never }),
      "argument",
      "program: the parameter w is u32 [5,2], and the program's is u32 [2,5].",
    );
    first.destroy();
  });
});

it("weights of integers that nothing can be done with are refused", async () => {
  const graph = new Graph();
  const int8 = { frozen: true, dtype: "int8" } as const;
  const refuse = (work: () => unknown, message: RegExp) => expectError(work, "argument", message);
  const weight = graph.parameter("w", [4, 16], undefined, int8);
  const x = graph.input("x", [4, 16]);
  await refuse(
    () => graph.parameter("a", [4, 12], undefined, int8),
    /multiple of 8 for K, got \[4,12\]/,
  );
  await refuse(() => graph.parameter("b", [16], undefined, int8), /is \[N, K\]/);
  await refuse(() => graph.parameter("c", [4, 16], undefined, { dtype: "int8" }), /only frozen/);
  await refuse(
    () => graph.parameter("d", [4, 16], undefined, { ...int8, groupSize: 12 }),
    /multiple of 8 that divides 16, got 12/,
  );
  await refuse(
    () => graph.parameter("e", [4, 16], undefined, { frozen: true, groupSize: 8 }),
    /groupSize is for int8 and int4/,
  );
  await refuse(() => add(x, weight), /w is int8, which only linear\(\) and embedding\(\) take/);
  await refuse(
    () => linear(weight, x),
    /linear: w is int8, which only linear\(\) and embedding\(\) take/,
  );
});
