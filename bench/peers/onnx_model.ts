// An ONNX model of one node, as bytes, for runtimes that take only models. Field numbers are those
// of onnx.proto.

import { PbfWriter } from "pbf";

/** A tensor that goes into or comes out of the model, f32. */
export interface ModelTensor {
  readonly name: string;
  readonly shape: readonly number[];
}

export interface ModelNode {
  readonly operator: string;
  readonly domain: string;
  readonly attributes: Readonly<Record<string, number>>;
  readonly inputs: readonly ModelTensor[];
  readonly outputs: readonly ModelTensor[];
}

const FLOAT_TENSOR = 1;
const INT_ATTRIBUTE = 2;

/** Writes a model. Attributes are whole numbers only. */
export function modelOf(node: ModelNode): Uint8Array {
  const writer = new PbfWriter();
  writer.writeVarintField(1, 10); // IR version
  writer.writeMessage(7, writeGraph, node);
  for (const [domain, version] of [
    ["", 20],
    [node.domain, 1],
  ] as const) {
    // biome-ignore format: a table
    writer.writeMessage(
      8,
      (_, opset) => {
        opset.writeStringField(1, domain);
        opset.writeVarintField(2, version);
      },
      undefined,
    );
  }
  return writer.finish();
}

function writeGraph(
  { operator, domain, attributes, inputs, outputs }: ModelNode,
  graph: PbfWriter,
): void {
  graph.writeMessage(
    1,
    (_, node) => {
      for (const { name } of inputs) node.writeStringField(1, name);
      for (const { name } of outputs) node.writeStringField(2, name);
      node.writeStringField(4, operator);
      for (const attribute of Object.entries(attributes))
        node.writeMessage(5, writeAttribute, attribute);
      node.writeStringField(7, domain);
    },
    undefined,
  );
  graph.writeStringField(2, "graph");
  for (const tensor of inputs) graph.writeMessage(11, writeTensor, tensor);
  for (const tensor of outputs) graph.writeMessage(12, writeTensor, tensor);
}

function writeAttribute([name, value]: [string, number], attribute: PbfWriter): void {
  attribute.writeStringField(1, name);
  attribute.writeVarintField(3, value);
  attribute.writeVarintField(20, INT_ATTRIBUTE);
}

function writeTensor({ name, shape }: ModelTensor, info: PbfWriter): void {
  const sizes = (_: undefined, dims: PbfWriter) => {
    for (const size of shape)
      dims.writeMessage(1, (value, dim) => dim.writeVarintField(1, value), size);
  };
  const dense = (_: undefined, type: PbfWriter) => {
    type.writeVarintField(1, FLOAT_TENSOR);
    type.writeMessage(2, sizes, undefined);
  };
  info.writeStringField(1, name);
  info.writeMessage(2, (_, type) => type.writeMessage(1, dense, undefined), undefined);
}
