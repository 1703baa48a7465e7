// Losses: one number each, from what a model gives and what it should have given.

import type { OptionNames } from "../../given.ts";
import { planBceWithLogits } from "../../operations/losses/bce_with_logits.ts";
import { planBceWithLogitsBackward } from "../../operations/losses/bce_with_logits_backward.ts";
import { planCrossEntropy } from "../../operations/losses/cross_entropy.ts";
import { planCrossEntropyBackward } from "../../operations/losses/cross_entropy_backward.ts";
import { planMseLoss } from "../../operations/losses/mse_loss.ts";
import { planMseLossBackward } from "../../operations/losses/mse_loss_backward.ts";
import { graphOf, takeSettings } from "../arguments.ts";
import type { Value } from "../value.ts";

/** Options of {@link crossEntropy}. */
export interface CrossEntropySettings {
  /** A target that does not count. Default -100. */
  readonly ignoreIndex?: number;
  /** The share of each target that all classes have together. Default 0. */
  readonly labelSmoothing?: number;
  /** [C] f32: what each class weighs. Default 1 for all. */
  readonly classWeights?: Value;
  /** The mean over the targets that count, by their weights, or the sum. Default `"mean"`. */
  readonly reduction?: "mean" | "sum";
}

const CROSS_ENTROPY_SETTINGS: OptionNames<CrossEntropySettings> = {
  ignoreIndex: "number",
  labelSmoothing: "number",
  classWeights: "any",
  reduction: "string",
};

/**
 * Cross-entropy of logits: -log softmax(logits)[target], as PyTorch's CrossEntropyLoss. No
 * probabilities are in memory.
 *
 * @param logits [..., C]
 * @param target [...] i32
 * @returns [1]
 */
export function crossEntropy(
  logits: Value,
  target: Value,
  settings: CrossEntropySettings = {},
): Value {
  const label = "cross-entropy";
  const { classWeights, ...options } = takeSettings(label, settings, CROSS_ENTROPY_SETTINGS);
  const graph = graphOf(label, { logits, target }, { classWeights });
  const inputs = classWeights ? [logits, target, classWeights] : [logits, target];
  const loss = graph.computed("cross-entropy", [1], [logits]);
  graph.add({
    label: "cross-entropy",
    inputs,
    outputs: [loss],
    plan: (device, at) =>
      planCrossEntropy(device, {
        logits: at(logits),
        target: at(target),
        loss: at(loss),
        ...options,
        ...(classWeights && { classWeights: at(classWeights) }),
      }),
    gradient({ of, into }) {
      const dLoss = of(loss);
      if (!dLoss) return;
      const dLogits = into(logits);
      graph.add({
        label: "cross-entropy backward",
        inputs: [...inputs, dLoss],
        outputs: [dLogits],
        plan: (device, at) =>
          planCrossEntropyBackward(device, {
            logits: at(logits),
            target: at(target),
            dLoss: at(dLoss),
            dLogits: at(dLogits),
            ...options,
            ...(classWeights && { classWeights: at(classWeights) }),
          }),
      });
    },
  });
  return loss;
}

/** The mean of (x - target)^2, [1]. No gradient goes to the target. */
export const mseLoss = (x: Value, target: Value): Value =>
  elementLoss("MSE", planMseLoss, planMseLossBackward, x, target);

/**
 * The mean of binary cross-entropies of logits, -(t log sigmoid(x) + (1 - t) log(1 - sigmoid(x))),
 * [1]. No gradient goes to the target.
 */
export const bceWithLogits = (x: Value, target: Value): Value =>
  elementLoss("BCE", planBceWithLogits, planBceWithLogitsBackward, x, target);

/** A mean over elements that are compared with those of a target. */
function elementLoss(
  label: string,
  plan: typeof planMseLoss | typeof planBceWithLogits,
  planBackward: typeof planMseLossBackward | typeof planBceWithLogitsBackward,
  x: Value,
  target: Value,
): Value {
  const graph = graphOf(label, { x, target });
  const loss = graph.computed(label, [1], [x]);
  graph.add({
    label,
    inputs: [x, target],
    outputs: [loss],
    plan: (device, at) => plan(device, { x: at(x), target: at(target), loss: at(loss) }),
    gradient({ of, into }) {
      const dLoss = of(loss);
      if (!dLoss) return;
      const dX = into(x);
      graph.add({
        label: `${label} backward`,
        inputs: [x, target, dLoss],
        outputs: [dX],
        plan: (device, at) =>
          planBackward(device, {
            x: at(x),
            target: at(target),
            dLoss: at(dLoss),
            dX: at(dX),
            gradients: ["dX"],
          }),
      });
    },
  });
  return loss;
}
