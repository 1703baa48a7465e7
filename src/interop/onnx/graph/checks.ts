// Checks the form of a graph that came from a model's file, which may be anything.

import { numbersOf } from "../../../given.ts";
import type { OnnxGraph } from "../operator_types.ts";
import { expect, shown, shownName } from "./terms.ts";

/**
 * A tensor in a graph: a list of numbers, which may be BigInts, or base64 of little-endian values.
 */
export interface StoredTensor {
  readonly name: string;
  /** The name of the dtype in NumPy: float32, int64, bool, ... */
  readonly dtype: string;
  readonly dims: readonly number[];
  readonly data: string | readonly number[];
}

export interface GraphNode {
  readonly op: string;
  readonly domain: string;
  readonly inputs: readonly string[];
  readonly output: string;
  readonly attributes: Readonly<Record<string, unknown>>;
}

export interface CheckedGraph {
  readonly input: string;
  readonly output: string;
  readonly nodes: readonly GraphNode[];
  readonly initializers: readonly StoredTensor[];
}

const MOST_NODES = 10_000;
const MOST_INPUTS = 1000;
/** The most axes of a tensor in a graph. */
export const MOST_AXES = 32;

const isRecord = (given: unknown): given is Readonly<Record<string, unknown>> =>
  typeof given === "object" && given !== null && !Array.isArray(given);

/** A list of at most `most` elements; an empty one if it was left out. */
function listOf(what: string, given: unknown, most: number): readonly unknown[] {
  if (given === undefined || given === null) return [];
  expect(Array.isArray(given), () => `${what} must be a list, got ${shown(given)}`);
  expect(
    given.length <= most,
    () => `${what}: there are ${given.length}; at most ${most} are taken`,
  );
  return given;
}

function nameOf(what: string, given: unknown): string {
  const name = isRecord(given) ? given.name : given;
  expect(typeof name === "string", () => `${what} must be a name, got ${shown(given)}`);
  return name;
}

const MEMBERS: readonly string[] = [
  "inputs",
  "outputs",
  "nodes",
  "initializers",
  "name",
  "doc_string",
];

/** The parts of a graph. Throws GraphError for a value that isn't a graph. */
export function checkedGraph(graph: OnnxGraph): CheckedGraph {
  expect(isRecord(graph), () => `expected { inputs, outputs, nodes }, got ${shown(graph)}`);
  for (const member in graph) {
    expect(
      MEMBERS.includes(member),
      () => `a graph has no member ${shown(member)}, but ${MEMBERS.join(", ")}`,
    );
  }
  const inputs = listOf("inputs", graph.inputs, MOST_INPUTS);
  const outputs = listOf("outputs", graph.outputs, MOST_INPUTS);
  expect(inputs.length === 1 && outputs.length === 1, () => "must have one input and one output");
  return {
    input: nameOf("the input", inputs[0]),
    output: nameOf("the output", outputs[0]),
    nodes: listOf("nodes", graph.nodes, MOST_NODES).map(checkedNode),
    initializers: listOf("initializers", graph.initializers, MOST_NODES).map((stored) => {
      expect(isRecord(stored), () => `an initializer must be a tensor, got ${shown(stored)}`);
      return checkedTensor(stored, nameOf("an initializer", stored));
    }),
  };
}

function checkedNode(node: unknown, index: number): GraphNode {
  const what = `node ${index}`;
  expect(isRecord(node), () => `${what} must be { op, inputs, outputs }, got ${shown(node)}`);
  const { op, domain = "", attributes = {} } = node;
  expect(
    typeof op === "string" && typeof domain === "string",
    () => `${what}: op must be a name, got ${shown(op)}`,
  );
  expect(
    isRecord(attributes),
    () => `${what}: attributes must be { name: value }, got ${shown(attributes)}`,
  );
  const inputs = listOf(`${what}: inputs`, node.inputs, MOST_INPUTS);
  const outputs = listOf(`${what}: outputs`, node.outputs, MOST_INPUTS);
  expect(outputs.length > 0, () => `${what} has no output`);
  return {
    op,
    domain,
    attributes,
    inputs: inputs.map((input) => nameOf(`${what}: an input`, input ?? "")),
    output: nameOf(`${what}: an output`, outputs[0]),
  };
}

/** A whole number among the attributes of a node. */
export function wholeOf(
  attributes: Readonly<Record<string, unknown>>,
  name: string,
  otherwise?: number,
): number {
  const given = attributes[name] ?? otherwise;
  expect(Number.isSafeInteger(given), () => `${name} must be a whole number, got ${shown(given)}`);
  return given as number;
}

/** A stored tensor, checked. @param name Its name in messages */
export function checkedTensor(stored: unknown, name = "a constant"): StoredTensor {
  expect(
    isRecord(stored),
    () => `${shownName(name)} must be { dtype, dims, data }, got ${shown(stored)}`,
  );
  const { dtype } = stored;
  const data = numbered(stored.data);
  const dims = numbered(
    listOf(`dims of ${shownName(name)}`, numbersOf(stored.dims), MOST_AXES),
  ) as readonly unknown[];
  expect(
    typeof dtype === "string",
    () => `${shownName(name)}: dtype must be a name, got ${shown(dtype)}`,
  );
  expect(
    dims.every(
      (size) => Number.isInteger(size) && (size as number) >= 0 && (size as number) < 2 ** 31,
    ),
    () => `${shownName(name)}: dims must be sizes, got ${shown(dims)}`,
  );
  expect(
    typeof data === "string" ||
      (Array.isArray(data) && data.every((value) => typeof value === "number")),
    () => `${shownName(name)}: data must be numbers or base64, got ${shown(data)}`,
  );
  return { name, dtype, dims: dims as readonly number[], data };
}

/** A list with numbers in place of BigInts, which files with int64 give. */
const numbered = (given: unknown): unknown => {
  const list = numbersOf(given);
  return Array.isArray(list)
    ? list.map((value) => (typeof value === "bigint" ? Number(value) : value))
    : list;
};
