// What graphs of ONNX become in WGSL.

import { expect, it } from "vitest";
import { graphFunction } from "../../src/interop/onnx/graph.ts";

const scalar = (name: string, dtype: string, value: number) => ({ name, dtype, dims: [], data: [value] });
const node = (op: string, inputs: string[], output: string, attributes = {}) => ({
  ...{ op, inputs, attributes },
  outputs: [output],
});
const CAUSAL = {
  inputs: ["scores"],
  outputs: ["out"],
  nodes: [
    node("Shape", ["scores"], "shape"),
    node("Gather", ["shape", "two"], "M"),
    node("Gather", ["shape", "three"], "N"),
    node("Range", ["zero", "M", "one"], "rows"),
    node("Range", ["zero", "N", "one"], "j"),
    node("Unsqueeze", ["rows", "last"], "i"),
    node("GreaterOrEqual", ["i", "j"], "seen"),
    node("Where", ["seen", "scores", "minus_infinity"], "out"),
  ],
  initializers: [
    ...[scalar("zero", "int64", 0), scalar("one", "int64", 1), scalar("two", "int64", 2), scalar("three", "int64", 3)],
    { name: "last", dtype: "int64", dims: [1], data: [-1] },
    { ...scalar("minus_infinity", "float32", 0), data: "AACA/w==" },
  ],
};

it("positions are those of the score, and lengths compile nothing", () => {
  const expected = `fn score(s: f32, at: Position) -> f32 {
  let t0 = i32(at.q_idx) >= i32(at.kv_idx);
  let t1 = select(0f, s, t0);
  return select(t1, HIDDEN, !t0);
}`;
  for (const shape of [
    [1, 2, 4, 4],
    [3, 8, 100, 2000],
  ]) {
    // biome-ignore format: two shapes
    const { source, captures } = graphFunction({} as GPUDevice, "score", CAUSAL, shape);
    expect(source).toBe(expected);
    expect(captures).toEqual({});
  }
});

it("what is used twice is computed once", () => {
  const nodes = [node("Mul", ["p", "p"], "a"), node("Add", ["a", "a"], "b"), node("Mul", ["b", "a"], "c")];
  const { source } = graphFunction(
    {} as GPUDevice,
    "probability",
    { inputs: ["p"], outputs: ["c"], nodes },
    [1, 1, 2, 2],
  );
  expect(source.split("\n").slice(1, -1)).toEqual([
    "  let t0 = p * p;",
    "  let t1 = t0 + t0;",
    "  let t2 = t1 * t0;",
    "  return t2;",
  ]);
});

it("a chain of any length takes time in its length", () => {
  const nodes = Array.from({ length: 200 }, (_, i) => node("Add", [i ? `x${i}` : "s", i ? `x${i}` : "s"], `x${i + 1}`));
  const { source } = graphFunction({} as GPUDevice, "score", { inputs: ["s"], outputs: ["x200"], nodes }, [1, 1, 1, 1]);
  expect(source.split("\n")).toHaveLength(203);
});
