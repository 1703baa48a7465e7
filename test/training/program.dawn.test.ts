// Programs: what they compute, their gradients against float64, their memory, and what they refuse.

import { describe, expect, it } from "vitest";
import type { Tensor } from "../../src/index.ts";
import { normal } from "../../src/reference/random.ts";
import {
  activate,
  add,
  attendPacked,
  broadcast,
  checkGradients,
  concatenate,
  contiguous,
  type Graph,
  linear,
  matmul,
  meanRows,
  multiply,
  type Program,
  patches,
  recordProgram,
  type Value,
} from "../../src/training/index.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

/** A loss: the sum of the elements of a value, each times a fixed number. */
function weighed(x: Value, weights: Float32Array): Value {
  const row = contiguous(x).reshape(1, x.size);
  return linear(row, x.graph.constant([1, x.size], weights)).reshape(1);
}

const read = async (tensor: Tensor | undefined) => Array.from((await tensor?.read()) ?? []);

async function withProgram<T>(
  define: (graph: Graph) => { loss?: Value; outputs?: Record<string, Value> },
  use: (program: Program) => Promise<T>,
  gradients = true,
): Promise<T> {
  const program = await recordProgram(await testDevice(), define, { gradients });
  try {
    return await use(program);
  } finally {
    program.destroy();
  }
}

describe("a program", () => {
  it("computes a layer, and gradients of its parameters", async () => {
    const x = normal(1, 3 * 4);
    const w = normal(2, 5 * 4);
    const b = normal(3, 5);
    const c = normal(4, 3 * 5);
    const define = (graph: Graph) => {
      const input = graph.input("x", [3, 4]);
      const inner = linear(input, graph.parameter("w", [5, 4], w), graph.parameter("b", [5], b));
      const y = activate(inner, "tanh");
      return { loss: weighed(y, c), outputs: { y } };
    };
    await withProgram(define, async (program) => {
      const loss = await program.run({ x });
      const y = [];
      const dW = new Array(20).fill(0);
      const dB = new Array(5).fill(0);
      for (let m = 0; m < 3; m++) {
        for (let n = 0; n < 5; n++) {
          let sum = b[n];
          for (let k = 0; k < 4; k++) sum += x[m * 4 + k] * w[n * 4 + k];
          const value = Math.tanh(sum);
          y.push(value);
          const slope = c[m * 5 + n] * (1 - value * value);
          for (let k = 0; k < 4; k++) dW[n * 4 + k] += slope * x[m * 4 + k];
          dB[n] += slope;
        }
      }
      const close = (got: readonly number[], expected: readonly number[]) => {
        expect(got).toHaveLength(expected.length);
        for (const [at, value] of got.entries()) expect(value).toBeCloseTo(expected[at], 5);
      };
      close(await read(program.outputs.y), y);
      close([loss as number], [y.reduce((sum, value, at) => sum + value * c[at], 0)]);
      close(await read(program.gradients.get("w")), dW);
      close(await read(program.gradients.get("b")), dB);
    });
  });

  it("adds up the gradients of all uses and views of a parameter", async () => {
    const p = normal(1, 24);
    const c = normal(2, 12 + 24 + 24 + 6);
    const define = (graph: Graph) => {
      const value = graph.parameter("p", [2, 3, 4], p);
      const parts = [
        value.slice(1, 1, 3).slice(2, 0, 3).permute(2, 0, 1), // a part, [3, 2, 2]
        value.permute(2, 0, 1), // all of it in another order
        add(value, value),
        value.slice(2, 3, 4), // another part
      ].map((part) => contiguous(part).reshape(1, part.size));
      return { loss: weighed(concatenate(parts, 1), c) };
    };
    await withProgram(define, async (program) => {
      await program.run({});
      const expected = new Array(24).fill(0);
      let next = 0;
      const at = (a: number, b: number, d: number) => (a * 3 + b) * 4 + d;
      for (let d = 0; d < 3; d++)
        for (let a = 0; a < 2; a++) for (let b = 1; b < 3; b++) expected[at(a, b, d)] += c[next++];
      for (let d = 0; d < 4; d++)
        for (let a = 0; a < 2; a++) for (let b = 0; b < 3; b++) expected[at(a, b, d)] += c[next++];
      for (let i = 0; i < 24; i++) expected[i] += 2 * c[next++];
      for (let a = 0; a < 2; a++) for (let b = 0; b < 3; b++) expected[at(a, b, 3)] += c[next++];
      const got = await read(program.gradients.get("p"));
      for (const [i, value] of got.entries()) expect(value).toBeCloseTo(expected[i], 5);
    });
  });

  it("has gradients of products, repeated rows, means and attention that differences agree with", async () => {
    const B = 2;
    const T = 5;
    const W = 4;
    const data = { packed: normal(1, B * T * 3 * W), token: normal(2, W), scale: normal(3, B * W) };
    const c = normal(4, B * W);
    const define = (graph: Graph) => {
      const packed = graph.parameter("packed", [B, T, 3 * W], data.packed);
      const token = graph.parameter("token", [1, 1, W], data.token);
      const scale = graph.parameter("scale", [B, W], data.scale);
      const lengths = graph.input("lengths", [B], "i32");
      const rows = attendPacked(packed, 2, { causal: true });
      const all = concatenate([broadcast(token, [B, 1, W]), rows], 1);
      const square = matmul(all, all.permute(0, 2, 1)); // [B, T + 1, T + 1]
      const mean = meanRows(matmul(square, all), lengths);
      return { loss: weighed(multiply(mean, scale), c) };
    };
    await withProgram(define, async (program) => {
      const lengths = new Int32Array([3, 6]);
      await program.run({ lengths });
      const found = await checkGradients(program, { lengths });
      expect(found.map(({ name }) => name)).toEqual(Object.keys(data));
      for (const { within, given, resolution } of found) {
        expect(within).toBe(true);
        expect(resolution).toBeLessThan(0.05 * Math.abs(given));
      }
      // Parameters are as they were, and a wrong gradient is told from a right one.
      expect(await read(program.parameters.get("token"))).toEqual(Array.from(data.token));
      const spoilt = { ...program, run: program.run.bind(program) };
      const halves = new Map(program.gradients);
      const token = (await read(program.gradients.get("token"))).map((x) => 0.9 * x);
      halves.set("token", { read: async () => Float32Array.from(token) } as unknown as Tensor);
      const wrong = await checkGradients(
        Object.assign(spoilt, { gradients: halves }) as unknown as Program,
        { lengths },
      );
      expect(wrong.filter(({ within }) => !within).map(({ name }) => name)).toEqual(["token"]);
    });
  });

  it("cuts pictures into patches", async () => {
    const images = Float32Array.from({ length: 2 * 3 * 4 * 4 }, (_, at) => at);
    const define = (graph: Graph) => ({
      outputs: { rows: patches(graph.input("images", [2, 3, 4, 4]), 2) },
    });
    await withProgram(
      define,
      async (program) => {
        await program.run({ images });
        const expected = [];
        for (let b = 0; b < 2; b++)
          for (let row = 0; row < 2; row++)
            for (let column = 0; column < 2; column++)
              for (let channel = 0; channel < 3; channel++)
                for (let y = 0; y < 2; y++)
                  for (let x = 0; x < 2; x++)
                    expected.push(((b * 3 + channel) * 4 + row * 2 + y) * 4 + column * 2 + x);
        expect(await read(program.outputs.rows)).toEqual(expected);
      },
      false,
    );
  });

  it("shares memory between what is not there at the same time, and runs ahead of its losses", async () => {
    const w = normal(1, 64);
    const define = (graph: Graph) => {
      let x = graph.input("x", [8, 8]);
      for (let layer = 0; layer < 6; layer++) {
        const weight = graph.parameter(`w${layer}`, [8, 8], w);
        x = activate(linear(x, weight), "relu");
      }
      return { loss: weighed(x, new Float32Array(64).fill(1)) };
    };
    await withProgram(
      define,
      async (program) => {
        const { computed, unshared } = program.bytes;
        expect(computed).toBe(2 * 64 * 4);
        expect(unshared).toBe(12 * 64 * 4 + 4);
        const runs = Array.from({ length: 10 }, (_, run) =>
          program.run({ x: normal(run + 2, 64) }),
        );
        const ahead = await Promise.all(runs);
        const after = [];
        for (let run = 0; run < 10; run++)
          after.push(await program.run({ x: normal(run + 2, 64) }));
        expect(ahead).toEqual(after);
        expect(new Set(ahead).size).toBe(10);
      },
      false,
    );
  });

  it("refuses options that it does not know or can't use", async () => {
    const device = await testDevice();
    const define = (graph: Graph) => ({
      outputs: { y: add(graph.input("x", [2]), graph.input("z", [2])) },
    });
    const refused: readonly [options: object, message: string | RegExp][] = [
      [{ optimiser: { kind: "SGD" } }, /^program: there is no option "optimiser"/],
      [{ inFlight: 0 }, "program: inFlight must be a whole number from 1 up, got 0."],
      [{ gradients: 1 }, /^program: gradients must be/],
      [{ parameters: {} }, /^program: parameters must be a Map of tensors by name/],
      [{ optimizer: 5, label: "p" }, "p: gradients need a loss; the definition has to give one."],
    ];
    for (const [options, message] of refused)
      await expectError(() => recordProgram(device, define, options), "argument", message);
    await expectError(
      () => recordProgram(device, undefined as never),
      "argument",
      "program: a definition is a function of a graph, got undefined.",
    );
  });

  it("refuses batches and definitions that do not fit", async () => {
    const define = (graph: Graph) => {
      const x = graph.input("x", [2, 3]);
      return { outputs: { y: activate(x, "relu") } };
    };
    await withProgram(
      define,
      async (program) => {
        const all = normal(1, 6);
        await expectError(() => program.run({}), "argument", "program: the input x is missing.");
        await expectError(
          () => program.run({ x: all, z: all }),
          "argument",
          'program: there is no input "z"; inputs are x.',
        );
        await expectError(() => program.run({ x: normal(1, 5) }), "argument", /6 elements|5/);
        program.destroy();
        await expectError(
          () => program.run({ x: all }),
          "destroyed",
          "program: the program was destroyed.",
        );
      },
      false,
    );
    const device = await testDevice();
    await expectError(
      () => recordProgram(device, define, { gradients: true }),
      "argument",
      "program: gradients need a loss; the definition has to give one.",
    );
    await expectError(
      () =>
        recordProgram(device, (graph) => {
          const x = graph.parameter("x", [2, 3]);
          return { outputs: { x: x.permute(1, 0).reshape(6) } };
        }),
      "argument",
      "x.reshape: the elements of [3,2] with strides [1,3] do not lie as [6] needs them; take contiguous(value) first.",
    );
  });
});
