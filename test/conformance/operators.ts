// Every operator that vectors can name, by domain and name.

import type { Tensor } from "../../src/index.ts";
import type { OnnxRun } from "../../src/interop/onnx/index.ts";
import { operators as onnx } from "../../src/interop/onnx/index.ts";
import { attentionLayers } from "./attention_layers.ts";
import { gradients } from "./gradients.ts";
import { keras } from "./keras.ts";
import { layers } from "./layers.ts";
import { lossLayers } from "./loss_layers.ts";
import type { NamedOperator } from "./named.ts";
import { optimizers } from "./optimizers.ts";
import { pytorch } from "./pytorch.ts";
import { recurrentLayers } from "./recurrent_layers.ts";
import { rowLayers } from "./row_layers.ts";
import { systems } from "./systems.ts";

/** An operator as a vector has it. The outputs are the caller's to destroy. */
export type Operator = (
  inputs: readonly (Tensor | null)[],
  // biome-ignore lint/suspicious/noExplicitAny: JSON of the operator's attributes
  attributes: Readonly<Record<string, any>>,
  run: OnnxRun & { readonly device: GPUDevice; readonly outputs: readonly boolean[] },
) => Promise<(Tensor | undefined)[]>;

const OPERATORS: Readonly<Record<string, Readonly<Record<string, Operator>>>> = {
  ...onnx,
  keras,
  "torch.nn": pytorch,
};

/** Operators whose tensors go by name. */
const NAMED: Readonly<Record<string, Readonly<Record<string, NamedOperator>>>> = {
  fovea: gradients,
  "torch.optim": optimizers,
  "fovea.training": systems,
  "torch.nn.grad": {
    ...layers,
    ...rowLayers,
    ...lossLayers,
    ...attentionLayers,
    ...recurrentLayers,
  },
};

/** @param op Domain and name: `ai.onnx.preview.FlexAttention`. */
export const operatorOf = (op: string): Operator | undefined => find(OPERATORS, op);

/** The same of operators whose tensors go by name. */
export const namedOperatorOf = (op: string): NamedOperator | undefined => find(NAMED, op);

function find<T>(domains: Readonly<Record<string, Readonly<Record<string, T>>>>, op: string) {
  const dot = op.lastIndexOf(".");
  const domain = op.slice(0, dot);
  const name = op.slice(dot + 1);
  const operators = Object.hasOwn(domains, domain) ? domains[domain] : {};
  return Object.hasOwn(operators, name) ? operators[name] : undefined;
}
