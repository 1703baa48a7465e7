// The gradients of attention against central differences of its own results, over its options, and
// against numbers worked by hand.

import { describe, expect, it } from "vitest";
import { attention, attentionBackward } from "../../src/reference/index.ts";
import { expectGradients, weighed } from "../support/central_differences.ts";
import { gradientProblem, gradientsByName } from "../support/gradient_problems.ts";
import { close, tensor } from "./hand.ts";

const PROBLEMS = 60;

describe("attentionBackward", () => {
  it(`is the derivative of attention, in ${PROBLEMS} problems over all options`, () => {
    for (let seed = 1; seed <= PROBLEMS; seed++) {
      const { name, values, build, dOutput, dLse } = gradientProblem(seed);
      const loss = (moved: typeof values) => {
        const { q, k, v, options } = build(moved);
        const { output, lse } = attention(q, k, v, options);
        return weighed(output, dOutput) + weighed(lse, dLse);
      };
      const { q, k, v, options } = build(values);
      const gradients = gradientsByName(attentionBackward(q, k, v, { ...options, dOutput, dLse }));
      try {
        expectGradients({ values, loss, gradients }, seed);
      } catch (error) {
        throw new Error(`problem ${seed}, ${name}`, { cause: error });
      }
    }
  });

  // Scores 0 and ln 3: weights 1/4 and 3/4, output 1/4 * 8 + 3/4 * 4 = 5.
  const LN3 = Math.log(3);
  const q = tensor([1, 1, 1, 1], [1]);
  const k = tensor([1, 1, 2, 1], [0, LN3]);
  const v = tensor([1, 1, 2, 1], [8, 4]);
  it("gives p (dP - delta) for each score", () => {
    const { dQ, dK, dV } = attentionBackward(q, k, v, { dOutput: [1] });
    close(dV, [1 / 4, 3 / 4]);
    close(dK, [3 / 4, -3 / 4]); // 1/4 (8 - 5), 3/4 (4 - 5)
    close(dQ, [(-3 / 4) * LN3]);
  });
  it("gives p for each score by the LSE alone", () => {
    const { dK, dV, dBias } = attentionBackward(q, k, v, { dLse: [2] });
    close(dV, [0, 0]);
    close(dK, [1 / 2, 3 / 2]);
    expect(dBias).toHaveLength(0);
  });
  it("gives a sink -p delta, and its LSE's gradient in a row without keys", () => {
    // exp(sink) = 4: weights 1/8, 3/8 and the sink's 1/2, output 5/2.
    const sinks = [Math.log(4)];
    close(attentionBackward(q, k, v, { sinks, dOutput: [1] }).dSinks, [-5 / 4]);
    const { dSinks, dK } = attentionBackward(q, k, v, {
      sinks,
      kvLengths: [0],
      dOutput: [Number.NaN],
      dLse: [7],
    });
    close(dSinks, [7]);
    close(dK, [0, 0]);
  });
  it("stops a temperature's gradient at its bound", () => {
    const options = { temperature: 2, dOutput: [1] };
    const { dTemperature } = attentionBackward(q, tensor([1, 1, 2, 1], [0, LN3 / 2]), v, options);
    close(dTemperature, [(-3 / 8) * LN3]); // dS of the second key times its q.k
    const bounded = { logTemperature: 5, maxTemperature: 3, dOutput: [1] };
    close(attentionBackward(q, k, v, bounded).dLogTemperature, [0]);
  });
  it("wants the derivatives of a score function, and elements that are there", () => {
    const scoreFunction = (s: number) => s;
    expect(() => attentionBackward(q, k, v, { scoreFunction, dOutput: [1] })).toThrow(
      "scoreGradient",
    );
    const scoreGradient = {
      derivative: () => 1,
      captures: { w: 1 },
      captured: () => [{ name: "w", index: 1, derivative: 1 }],
    };
    expect(() =>
      attentionBackward(q, k, v, { scoreFunction, scoreGradient, dOutput: [1] }),
    ).toThrow("captures.w has no element 1");
  });
});
