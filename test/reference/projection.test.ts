// The reference projection against numbers worked by hand.

import { describe, expect, it } from "vitest";
import { project } from "../../src/reference/index.ts";

describe("project", () => {
  const x = { data: [1, 2, 3, 4, 5, 6], shape: [2, 3] };
  const weight = { data: [1, 0, -1, 2, 1, 0], shape: [2, 3] };

  it("multiplies rows by rows of the weight", () => {
    // [1, 2, 3] . [1, 0, -1] = -2, . [2, 1, 0] = 4;  [4, 5, 6] . [1, 0, -1] = -2, . [2, 1, 0] = 13
    expect([...project(x, weight)]).toEqual([-2, 4, -2, 13]);
  });
  it("adds the bias to every row", () => {
    expect([...project(x, weight, { data: [10, 100], shape: [2] })]).toEqual([8, 104, 8, 113]);
  });
  it("takes strides and offsets: a weight of columns, every other element of a bias", () => {
    const columns = { data: [1, 2, 0, 1, -1, 0], shape: [2, 3], strides: [1, 2] };
    const bias = { data: [9, 10, 9, 100], shape: [2], strides: [2], offset: 1 };
    expect([...project(x, columns, bias)]).toEqual([8, 104, 8, 113]);
  });
  it("keeps batch entries and heads apart, in row-major order", () => {
    const entries = { data: [1, 2, 3, 4], shape: [2, 2, 1, 1] };
    expect([...project(entries, { data: [1, 10], shape: [2, 1] })]).toEqual([
      1, 10, 2, 20, 3, 30, 4, 40,
    ]);
  });
  it("takes a weight for each entry and head, or one for all entries", () => {
    const entries = { data: [1, 2, 3, 4], shape: [2, 2, 1, 1] };
    expect([...project(entries, { data: [1, 10, 100, 1000], shape: [2, 2, 1, 1] })]).toEqual([
      1, 20, 300, 4000,
    ]);
    expect([...project(entries, { data: [1, 10], shape: [1, 2, 1, 1] })]).toEqual([1, 20, 3, 40]);
  });
  it("is the bias if there is nothing to sum over", () => {
    expect([
      ...project(
        { data: [], shape: [2, 0] },
        { data: [], shape: [1, 0] },
        { data: [7], shape: [1] },
      ),
    ]).toEqual([7, 7]);
  });
  it("rounds every operation if it is asked to", () => {
    const third = project(
      { data: [1], shape: [1, 1] },
      { data: [1 / 3], shape: [1, 1] },
      undefined,
      {
        precision: "f32",
      },
    );
    expect(third[0]).toBe(Math.fround(1 / 3));
  });
});
