// Translates a graph in an attribute, which maps the tensor of scores (or of probabilities) to a
// tensor of the same shape, to a WGSL function of one score: every element of the result is
// followed back to the scores, constants and positions that it comes from.

import { type Captures, type Tensor, tensor } from "../../../index.ts";
import type { OnnxGraph } from "../operator_types.ts";
import {
  checkedGraph,
  checkedTensor,
  type GraphNode,
  MOST_AXES,
  type StoredTensor,
} from "./checks.ts";
import { ELEMENTWISE } from "./elements.ts";
import { SHAPES } from "./shapes.ts";
import {
  broadcastAt,
  commonShape,
  type GraphTensor,
  numbersTensor,
  remembered,
  sizeOf,
} from "./tensors.ts";
import { Code, expect, GraphError, type Kind, shown, shownName, Term } from "./terms.ts";

/**
 * The most operators that may follow one another, because the translation recurses through them.
 */
const MOST_DEPTH = 500;

/** A translated graph. */
export interface GraphFunction {
  readonly source: string;
  /** Constants in memory, if there are any. */
  readonly captures: Captures;
  readonly owned: readonly Tensor[];
}

/**
 * Translates a graph to `fn score(s: f32, at: Position) -> f32` or
 * `fn probability(p: f32, at: Position) -> f32`. Throws GraphError for a graph that can't be
 * followed.
 *
 * @param shape [B, H, M, N] of its input and its output
 */
export function graphFunction(
  device: GPUDevice,
  name: "score" | "probability",
  graph: OnnxGraph,
  shape: readonly number[],
): GraphFunction {
  const code = new Code(name);
  const { input, output, nodes, initializers } = checkedGraph(graph);
  const values = new Map<string, GraphTensor>();
  for (const stored of initializers) values.set(stored.name, storedTensor(code, stored));
  values.set(input, scoresTensor(name === "score" ? "s" : "p", shape));
  const depths = new Map<string, number>();
  for (const [index, node] of nodes.entries()) {
    try {
      const depth =
        1 + node.inputs.reduce((most, input) => Math.max(most, depths.get(input) ?? 0), 0);
      expect(
        depth <= MOST_DEPTH,
        () => `operators follow one another more than ${MOST_DEPTH} deep`,
      );
      const made = applyNode(code, node, values);
      const isShape =
        made.shape.length <= MOST_AXES &&
        made.shape.every((size) => Number.isInteger(size) && size >= 0);
      expect(
        isShape,
        () => `gives the shape ${shown(made.shape)}; at most ${MOST_AXES} axes are taken`,
      );
      values.set(node.output, remembered(made));
      depths.set(node.output, depth);
    } catch (error) {
      throw named(error, `node ${index}, ${shownName(node.op)}`);
    }
  }
  const result = values.get(output);
  expect(result !== undefined, () => `nothing gives the output ${shownName(output)}`);
  expect(
    result.shape.length === 4 &&
      result.shape.every((size, axis) => size === shape[axis]) &&
      result.kind === "f32",
    () =>
      `must give floats [${shape.join(", ")}], as it takes, not ${result.kind} [${result.shape.join(", ")}]`,
  );
  return written(device, name, code, result.at(COORDINATES));
}

/** The indices of an element, as the function gets them. */
const COORDINATES = ["batch", "head", "q_idx", "kv_idx"].map((axis) =>
  Term.of("i32", `i32(at.${axis})`),
);

/** The input of the graph, of which an element is known at its own place only. */
function scoresTensor(name: string, shape: readonly number[]): GraphTensor {
  const element = Term.of("f32", name);
  return {
    shape,
    kind: "f32",
    at: (index) => {
      expect(
        index.every(({ text }, axis) => shape[axis] === 1 || text === COORDINATES[axis].text),
        () => "an element of the result must come from the input at its own place only",
      );
      return element;
    },
  };
}

function written(
  device: GPUDevice,
  name: "score" | "probability",
  code: Code,
  result: Term,
): GraphFunction {
  expect(
    name === "score" || result.hidden === undefined,
    () => "a probability may become -Infinity, which has no place in WGSL",
  );
  const { hidden, text } = result;
  const given = hidden === undefined ? text : `select(${text}, HIDDEN, ${hidden})`;
  const source = [
    ...code.helpers.values(),
    `fn ${name}(${name === "score" ? "s" : "p"}: f32, at: Position) -> f32 {`,
    ...code.lines.map((line) => `  ${line}`),
    `  return ${given};`,
    "}",
  ].join("\n");
  if (!code.memory.length) return { source, captures: {}, owned: [] };
  const data = Uint32Array.from(code.memory);
  const memory = tensor(device, [data.length], {
    dtype: "u32",
    data,
    label: `constants of the ${name} graph`,
  });
  return { source, captures: { [code.memoryName]: memory }, owned: [memory] };
}

function applyNode(
  code: Code,
  node: GraphNode,
  values: ReadonlyMap<string, GraphTensor>,
): GraphTensor {
  const { op, domain, inputs, attributes: given } = node;
  const known = () => ["Constant", ...Object.keys(SHAPES), ...Object.keys(ELEMENTWISE)].join(", ");
  const isKnown = op === "Constant" || Object.hasOwn(SHAPES, op) || Object.hasOwn(ELEMENTWISE, op);
  expect(
    (domain === "" || domain === "ai.onnx") && isKnown,
    () => `there is no such operator here, but ${known()}`,
  );
  const operands = inputs.map((input) => {
    if (!input) return undefined;
    const value = values.get(input);
    expect(value !== undefined, () => `nothing gives its input ${shownName(input)}`);
    return value;
  });
  if (op === "Constant") return constantOf(code, given);
  const { value, ...rest } = given;
  const attributes =
    value === undefined ? given : { ...rest, value: storedTensor(code, checkedTensor(value)) };
  if (Object.hasOwn(SHAPES, op)) return SHAPES[op](code, operands, attributes);
  return elementwise(code, op, op === "Clip" ? withBounds(code, operands, given) : operands, given);
}

function elementwise(
  code: Code,
  op: string,
  operands: readonly (GraphTensor | undefined)[],
  attributes: Readonly<Record<string, unknown>>,
): GraphTensor {
  const { kind, make } = ELEMENTWISE[op];
  const all = operands.map((operand, index) => {
    expect(operand !== undefined, () => `input ${index} is missing`);
    return operand;
  });
  expect(all.length > 0, () => "input 0 is missing");
  const result = kind(
    all.map((operand) => operand.kind),
    attributes,
  );
  const at = (index: readonly Term[]) => {
    const terms = all.map((operand) => broadcastAt(operand, index));
    try {
      return make(code, terms, attributes);
    } catch (error) {
      throw named(error, op);
    }
  };
  return { shape: commonShape(all.map(({ shape }) => shape)), kind: result, at };
}

/** The operands of Clip; a bound that was left out is infinite. */
function withBounds(
  code: Code,
  [x, ...given]: readonly (GraphTensor | undefined)[],
  attributes: Readonly<Record<string, unknown>>,
) {
  const bound = (index: number, name: string, none: number) =>
    given[index] ?? numbersTensor(code, x?.kind ?? "f32", [], [Number(attributes[name] ?? none)]);
  return [x, bound(0, "min", -Infinity), bound(1, "max", Infinity)];
}

/** Kinds of an attribute of Constant, but for `value`. */
const CONSTANTS: Readonly<Record<string, Kind>> = {
  value_float: "f32",
  value_floats: "f32",
  value_int: "i32",
  value_ints: "i32",
};

function constantOf(code: Code, attributes: Readonly<Record<string, unknown>>): GraphTensor {
  if (attributes.value !== undefined) return storedTensor(code, checkedTensor(attributes.value));
  const [name] = Object.keys(attributes);
  expect(
    Object.hasOwn(CONSTANTS, name ?? ""),
    () => `has no value that is understood: ${shown(name)}`,
  );
  const value = attributes[name];
  if (typeof value === "number") return numbersTensor(code, CONSTANTS[name], [], [value]);
  const isList = Array.isArray(value) && value.every((one) => typeof one === "number");
  expect(isList, () => `${name} must be a number or a list of numbers, got ${shown(value)}`);
  return numbersTensor(code, CONSTANTS[name], [value.length], value);
}

const half = (bits: number, bias: number, width: number): number => {
  const exponent = (bits >> width) & (2 * bias + 1);
  const mantissa = bits & (2 ** width - 1);
  const sign = bits & 0x8000 ? -1 : 1;
  if (exponent === 2 * bias + 1) return mantissa ? Number.NaN : sign * Infinity;
  return (
    sign *
    (exponent ? 2 ** width + mantissa : mantissa) *
    2 ** (Math.max(exponent, 1) - bias - width)
  );
};

/** Readers of element types: values from their bytes. */
const READ: Readonly<Record<string, (bytes: ArrayBuffer) => ArrayLike<number>>> = {
  float32: (bytes) => new Float32Array(bytes),
  float64: (bytes) => new Float64Array(bytes),
  float16: (bytes) => Array.from(new Uint16Array(bytes), (bits) => half(bits, 15, 10)),
  bfloat16: (bytes) => Array.from(new Uint16Array(bytes), (bits) => half(bits, 127, 7)),
  int64: (bytes) => Array.from(new BigInt64Array(bytes), Number),
  uint64: (bytes) => Array.from(new BigUint64Array(bytes), Number),
  int32: (bytes) => new Int32Array(bytes),
  uint32: (bytes) => new Uint32Array(bytes),
  int16: (bytes) => new Int16Array(bytes),
  uint16: (bytes) => new Uint16Array(bytes),
  int8: (bytes) => new Int8Array(bytes),
  uint8: (bytes) => new Uint8Array(bytes),
  bool: (bytes) => new Uint8Array(bytes),
};

function storedTensor(code: Code, { name, dtype, dims, data }: StoredTensor): GraphTensor {
  const what = shownName(name);
  expect(
    Object.hasOwn(READ, dtype),
    () => `${what} is of ${shownName(dtype)}; there are ${Object.keys(READ).join(", ")}`,
  );
  const values = typeof data === "string" ? decoded(what, dtype, data) : data;
  expect(values.length === sizeOf(dims), () => `${what} [${dims}] has ${values.length} elements`);
  const kind = /float/.test(dtype) ? "f32" : dtype === "bool" ? "bool" : "i32";
  return numbersTensor(code, kind, dims, values);
}

/** The values that base64 stands for. */
function decoded(what: string, dtype: string, data: string): ArrayLike<number> {
  try {
    return READ[dtype](Uint8Array.from(atob(data), (character) => character.charCodeAt(0)).buffer);
  } catch {
    throw new GraphError(`${what}: its data is no base64 of whole elements of ${dtype}`);
  }
}

const named = (error: unknown, where: string): unknown =>
  error instanceof GraphError ? new GraphError(`${where}: ${error.message}`) : error;
