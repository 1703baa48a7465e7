// ONNX models as bytes, for runtimes that take only models. Field numbers are those of onnx.proto.

import { PbfWriter } from "pbf";

/** A tensor that goes into or comes out of a model. */
export interface ModelTensor {
  readonly name: string;
  /** A size that runs differ in is given by a name. */
  readonly shape: readonly (number | string)[];
  /** Default f32. */
  readonly dtype?: ModelDtype;
}

/** Element types of tensors, by their numbers in onnx.proto. */
const DTYPES = { f32: 1, i32: 6, i64: 7 } as const;
export type ModelDtype = keyof typeof DTYPES;

/** A node of a model of one node. */
export interface ModelNode {
  readonly operator: string;
  readonly domain: string;
  /** Whole numbers. */
  readonly attributes: Readonly<Record<string, number>>;
  readonly inputs: readonly ModelTensor[];
  readonly outputs: readonly ModelTensor[];
}

/** A node of a graph. An input or output that is left out has the empty name. */
export interface GraphNode {
  readonly operator: string;
  /** Default ONNX's own. */
  readonly domain?: string;
  /** Whole numbers. */
  readonly attributes?: Readonly<Record<string, number>>;
  readonly reals?: Readonly<Record<string, number>>;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
}

/** Numbers that belong to the model. */
export interface Initialiser {
  readonly name: string;
  readonly shape: readonly number[];
  readonly data: Float32Array<ArrayBuffer> | BigInt64Array<ArrayBuffer>;
}

export interface ModelGraph {
  readonly nodes: readonly GraphNode[];
  readonly initialisers: readonly Initialiser[];
  readonly inputs: readonly ModelTensor[];
  readonly outputs: readonly ModelTensor[];
}

const FLOAT_ATTRIBUTE = 1;
const INT_ATTRIBUTE = 2;
/** The domain of onnxruntime's own operators. */
export const CONTRIB = "com.microsoft";

/** Writes a model of one node. */
export function modelOf({ inputs, outputs, ...node }: ModelNode): Uint8Array {
  const names = (tensors: readonly ModelTensor[]) => tensors.map(({ name }) => name);
  const one = { ...node, inputs: names(inputs), outputs: names(outputs) };
  return graphModel({ nodes: [one], initialisers: [], inputs, outputs });
}

/** Writes a model of several nodes, which stand in an order in which they can run. */
export function graphModel(graph: ModelGraph): Uint8Array {
  const writer = new PbfWriter();
  writer.writeVarintField(1, 10); // IR version
  writer.writeMessage(7, writeGraph, graph);
  const domains = new Set(graph.nodes.map(({ domain = "" }) => domain));
  for (const domain of new Set(["", ...domains])) {
    // biome-ignore format: a table
    writer.writeMessage(
      8,
      (_, opset) => {
        opset.writeStringField(1, domain);
        opset.writeVarintField(2, domain === "" ? 20 : 1);
      },
      undefined,
    );
  }
  return writer.finish();
}

function writeGraph({ nodes, initialisers, inputs, outputs }: ModelGraph, graph: PbfWriter): void {
  for (const node of nodes) graph.writeMessage(1, writeNode, node);
  graph.writeStringField(2, "graph");
  for (const one of initialisers) graph.writeMessage(5, writeInitialiser, one);
  for (const tensor of inputs) graph.writeMessage(11, writeTensor, tensor);
  for (const tensor of outputs) graph.writeMessage(12, writeTensor, tensor);
}

function writeNode(
  { operator, domain = "", attributes = {}, reals = {}, inputs, outputs }: GraphNode,
  node: PbfWriter,
): void {
  for (const name of inputs) node.writeStringField(1, name);
  for (const name of outputs) node.writeStringField(2, name);
  node.writeStringField(4, operator);
  for (const [name, value] of Object.entries(attributes)) {
    node.writeMessage(5, writeAttribute, { name, value, isReal: false });
  }
  for (const [name, value] of Object.entries(reals)) {
    node.writeMessage(5, writeAttribute, { name, value, isReal: true });
  }
  node.writeStringField(7, domain);
}

function writeAttribute(
  { name, value, isReal }: { name: string; value: number; isReal: boolean },
  attribute: PbfWriter,
): void {
  attribute.writeStringField(1, name);
  if (isReal) attribute.writeFloatField(2, value);
  else attribute.writeVarintField(3, value);
  attribute.writeVarintField(20, isReal ? FLOAT_ATTRIBUTE : INT_ATTRIBUTE);
}

function writeInitialiser({ name, shape, data }: Initialiser, tensor: PbfWriter): void {
  for (const size of shape) tensor.writeVarintField(1, size);
  tensor.writeVarintField(2, data instanceof Float32Array ? DTYPES.f32 : DTYPES.i64);
  tensor.writeStringField(8, name);
  tensor.writeBytesField(9, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
}

function writeTensor({ name, shape, dtype = "f32" }: ModelTensor, info: PbfWriter): void {
  const sizes = (_: undefined, dims: PbfWriter) => {
    for (const size of shape) dims.writeMessage(1, writeSize, size);
  };
  const dense = (_: undefined, type: PbfWriter) => {
    type.writeVarintField(1, DTYPES[dtype]);
    type.writeMessage(2, sizes, undefined);
  };
  info.writeStringField(1, name);
  info.writeMessage(2, (_, type) => type.writeMessage(1, dense, undefined), undefined);
}

function writeSize(size: number | string, dim: PbfWriter): void {
  if (typeof size === "string") dim.writeStringField(2, size);
  else dim.writeVarintField(1, size);
}
