// What graphs of ONNX become in WGSL.

import { expect, it } from "vitest";
import { graphFunction } from "../../src/interop/onnx/graph/graph.ts";

const scalar = (name: string, dtype: string, value: number) => ({
  name,
  dtype,
  dims: [],
  data: [value],
});
const node = (op: string, inputs: string[], output: string, attributes = {}) => ({
  op,
  inputs,
  attributes,
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
    scalar("zero", "int64", 0),
    scalar("one", "int64", 1),
    scalar("two", "int64", 2),
    scalar("three", "int64", 3),
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
  const nodes = [
    node("Mul", ["p", "p"], "a"),
    node("Add", ["a", "a"], "b"),
    node("Mul", ["b", "a"], "c"),
  ];
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
  const nodes = Array.from({ length: 200 }, (_, i) =>
    node("Add", [i ? `x${i}` : "s", i ? `x${i}` : "s"], `x${i + 1}`),
  );
  const { source } = graphFunction(
    {} as GPUDevice,
    "score",
    { inputs: ["s"], outputs: ["x200"], nodes },
    [1, 1, 1, 1],
  );
  expect(source.split("\n")).toHaveLength(203);
});

const translate = (graph: object) =>
  graphFunction({} as GPUDevice, "score", graph as never, [1, 1, 2, 2]);

it("names and values of a model never reach the text", () => {
  const name = "x; } @compute fn f() { o[0]";
  const nodes = [
    node("Mul", [name, name], "\u2028\r//"),
    node("Add", ["\u2028\r//", name], "__proto__"),
  ];
  const { source } = translate({ inputs: [{ name }], outputs: ["__proto__"], nodes });
  expect(source.split("\n").slice(1, -1)).toEqual([
    "  let t0 = s * s;",
    "  let t1 = t0 + s;",
    "  return t1;",
  ]);
  for (const alpha of ["1.0; o[0] = s", Number.NaN, Infinity, 1e39, null, {}, [1]]) {
    const graph = {
      inputs: ["x"],
      outputs: ["y"],
      nodes: [node("LeakyRelu", ["x"], "y", { alpha })],
    };
    if (alpha === null) expect(translate(graph).source).toContain("0.01 * s");
    else expect(() => translate(graph)).toThrow(/LeakyRelu: alpha must be a finite number, got /);
  }
});

it("what isn't a graph is refused with a reason", () => {
  const x = { inputs: ["x"], outputs: ["y"] };
  const chain = (length: number) =>
    Array.from({ length }, (_, i) => node("Neg", [i ? `x${i}` : "x"], `x${i + 1}`));
  const stored = (data: unknown, dims: unknown = [1], dtype: unknown = "float32") => ({
    ...x,
    initializers: [{ name: "c\n", dtype, dims, data }],
  });
  const graphs: readonly (readonly [unknown, RegExp])[] = [
    [null, /^expected \{ inputs, outputs, nodes \}, got null$/],
    [{ ...x, inputs: "x" }, /^inputs must be a list, got "x"$/],
    [{ ...x, outputs: [{}] }, /^the output must be a name, got a value of type object$/],
    [{ ...x, nodes: {} }, /^nodes must be a list, got a value of type object$/],
    [{ ...x, nodes: [null] }, /^node 0 must be \{ op, inputs, outputs \}, got null$/],
    [{ ...x, nodes: [{ op: 5, outputs: ["y"] }] }, /^node 0: op must be a name, got 5$/],
    [{ ...x, nodes: [{ op: "Neg", inputs: ["x"] }] }, /^node 0 has no output$/],
    [{ ...x, nodes: [node("Neg", ["a\u001b[2J"], "y")] }, /nothing gives its input a\\u001b\[2J$/],
    [{ ...x, nodes: chain(20_000) }, /^nodes: there are 20000; at most 10000 are taken$/],
    [
      { ...x, outputs: ["x600"], nodes: chain(600) },
      /^node 500, Neg: operators follow one another more than 500 deep$/,
    ],
    [
      { ...x, nodes: [node("Add", new Array(2000).fill("x"), "y")] },
      /inputs: there are 2000; at most 1000/,
    ],
    [
      { ...x, nodes: [node("Unsqueeze", ["x"], "y", { axes: new Array(1e5).fill(0) })] },
      /axes must be a list of up to 32/,
    ],
    [
      { ...x, nodes: [node("Transpose", ["x"], "y", { perm: [0, 0, 1, 2] })] },
      /perm \[0,0,1,2\] is no order of 4 axes$/,
    ],
    [
      { ...x, nodes: [node("Trilu", ["x"], "y", { upper: "no" })] },
      /upper must be a whole number, got "no"$/,
    ],
    [
      { ...x, nodes: [node("Constant", [], "y", { value_floats: 5n })] },
      /value_floats must be a number or a list/,
    ],
    [stored("not base64!"), /^c\\n: its data is no base64 of whole elements of float32$/],
    [stored("AAA="), /its data is no base64 of whole elements/],
    [stored([{}]), /^c\\n: data must be numbers or base64, got \[a value of type object\]$/],
    [stored([1], [-1]), /^c\\n: dims must be sizes, got \[-1\]$/],
    [stored([1], [1], null), /^c\\n: dtype must be a name, got null$/],
  ];
  for (const [graph, message] of graphs)
    expect(() => translate(graph as object), String(message)).toThrow(message);
});

it("a chain of 500 operators is followed, of each kind that looks at elements", () => {
  for (const op of ["Neg", "Identity", "Reshape"]) {
    const nodes = Array.from({ length: 500 }, (_, i) => {
      const inputs = [i ? `x${i}` : "x", ...(op === "Reshape" ? [`shape${i % 2}`] : [])];
      return node(op, inputs, `x${i + 1}`);
    });
    const initializers = [
      { name: "shape0", dtype: "int64", dims: [2], data: [2, 2] },
      { name: "shape1", dtype: "int64", dims: [4], data: [1, 1, 2, 2] },
    ];
    expect(translate({ inputs: ["x"], outputs: ["x500"], nodes, initializers }).source).toContain(
      "return ",
    );
  }
});
