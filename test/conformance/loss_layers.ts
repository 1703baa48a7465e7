// Embeddings, dropout and losses with their gradients as operators of vectors, by PyTorch's names of
// their tensors.

import {
  bceWithLogits,
  bceWithLogitsBackward,
  crossEntropy,
  crossEntropyBackward,
  dropout,
  embedding,
  embeddingBackward,
  mseLoss,
  mseLossBackward,
} from "../../src/index.ts";
import type { NamedOperator } from "./named.ts";

/** Leaves out what is undefined. */
const defined = <T extends object>(options: T) =>
  Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as {
    [Name in keyof T]: NonNullable<T[Name]>;
  };

const Embedding: NamedOperator = async ({ attributes, tensor }) => {
  const { scale, paddingId } = attributes;
  const weight = tensor("weight");
  const ids = tensor("ids");
  const { output } = await embedding(weight, ids, defined({ scale }));
  const dOutput = tensor("d_output");
  const options = defined({ scale, paddingId });
  const { dWeight } = await embeddingBackward(weight, ids, dOutput, options);
  return { output, d_weight: dWeight };
};

const Dropout: NamedOperator = async ({ attributes, tensor, optional }) => {
  const { p = 0.5, seed, step } = attributes;
  const keepMask = optional("keep_mask");
  const options = { p, ...(keepMask ? { keepMask } : defined({ seed, step })) };
  const { output } = await dropout(tensor("x"), options);
  const { output: dX } = await dropout(tensor("d_output"), options);
  return { output, d_x: dX };
};

const CrossEntropyLoss: NamedOperator = async ({ attributes, tensor, optional, own }) => {
  const { ignoreIndex, labelSmoothing, reduction } = attributes;
  const logits = tensor("logits");
  const target = tensor("target");
  const classWeights = optional("class_weights");
  const options = defined({ ignoreIndex, labelSmoothing, reduction, classWeights });
  const { loss } = await crossEntropy(logits, target, options);
  const dLoss = optional("d_loss");
  const backward = { ...options, ...defined({ dLoss }), loss: true };
  const { dLogits, loss: again } = await crossEntropyBackward(logits, target, backward);
  const values = await loss.read();
  const same = (await (again ? own(again) : loss).read()).every((value, at) =>
    Object.is(value, values[at]),
  );
  if (!same) throw new Error("the loss with the gradient isn't the loss");
  return { loss, d_logits: dLogits };
};

const gradients = ["dX", "dTarget"] as const;

const MSELoss: NamedOperator = async ({ attributes, tensor, optional }) => {
  const options = defined({ reduction: attributes.reduction });
  const x = tensor("x");
  const target = tensor("target");
  const { loss } = await mseLoss(x, target, options);
  const backward = { ...options, ...defined({ dLoss: optional("d_loss") }), gradients };
  const { dX, dTarget } = await mseLossBackward(x, target, backward);
  return { loss, d_x: dX, d_target: dTarget };
};

const BCEWithLogitsLoss: NamedOperator = async ({ attributes, tensor, optional }) => {
  const options = defined({
    reduction: attributes.reduction,
    weight: optional("weight"),
    posWeight: optional("pos_weight"),
  });
  const x = tensor("x");
  const target = tensor("target");
  const { loss } = await bceWithLogits(x, target, options);
  const backward = { ...options, ...defined({ dLoss: optional("d_loss") }), gradients };
  const { dX, dTarget } = await bceWithLogitsBackward(x, target, backward);
  return { loss, d_x: dX, d_target: dTarget };
};

export const lossLayers = {
  BCEWithLogitsLoss,
  CrossEntropyLoss,
  Dropout,
  Embedding,
  MSELoss,
};
