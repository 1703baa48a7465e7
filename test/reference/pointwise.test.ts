// The reference of pointwise operations against numbers worked by hand.

import { describe, expect, it } from "vitest";
import { normalCdf, pointwise } from "../../src/reference/index.ts";
import { close, tensor } from "./hand.ts";

describe("the normal distribution function", () => {
  it("has the values of its tables", () => {
    // Abramowitz and Stegun, tables 26.1 and 26.2.
    close([normalCdf(0), normalCdf(1), normalCdf(-1)], [0.5, 0.841344746068543, 0.158655253931457]);
    expect(normalCdf(-3) / 1.3498980316301e-3).toBeCloseTo(1, 11);
    expect(normalCdf(-10) / 7.61985302416e-24).toBeCloseTo(1, 10);
    expect(normalCdf(40)).toBe(1);
  });
  it("is one function where its two formulas meet", () => {
    expect(normalCdf(-3 - 1e-12) / normalCdf(-3 + 1e-12)).toBeCloseTo(1, 10);
  });
});

describe("reference pointwise", () => {
  const x = tensor([2, 3], [1, 2, 3, 4, 5, 6]);
  it("adds what broadcasts", () => {
    close(pointwise(x, { bias: tensor([3], [10, 20, 30]) }), [11, 22, 33, 14, 25, 36]);
    const both = { bias: tensor([3], [10, 20, 30]), residual: tensor([2, 1], [100, 200]) };
    close(pointwise(x, both), [111, 122, 133, 214, 225, 236]);
    close(pointwise(tensor([2, 1], [1, 2]), {}, [2, 2]), [1, 1, 2, 2]);
  });
  it("is gelu of sums", () => {
    const phi = 0.841344746068543;
    close(pointwise(tensor([3], [0, 2, -2]), { activation: "gelu", bias: tensor([1], [-1]) }), [
      phi - 1,
      phi,
      -3 * normalCdf(-3),
    ]);
    // u(1) = sqrt(2 / pi) 1.044715
    const tanh = Math.tanh(0.7978845608028654 * 1.044715);
    close(pointwise(tensor([2], [1, -1]), { activation: "gelu-tanh" }), [
      0.5 * (1 + tanh),
      -0.5 * (1 - tanh),
    ]);
  });
});
