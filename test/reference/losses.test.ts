// The gradients of losses and embeddings against central differences of their own results.

import { describe, expect, it } from "vitest";
import {
  argmax,
  crossEntropy,
  crossEntropyBackward,
  elementLoss,
  elementLossBackward,
  embedding,
  embeddingBackward,
  type ReferenceCrossEntropyOptions,
} from "../../src/reference/index.ts";
import { expectGradients, type Values, weighed } from "../support/central_differences.ts";
import { drawOf } from "../support/draw.ts";
import { close, tensor } from "./hand.ts";

describe("gradients of losses are the derivatives of the losses", () => {
  it.each<[string, ReferenceCrossEntropyOptions]>([
    ["the mean", {}],
    ["the sum, some rows ignored", { reduction: "sum", ignoreIndex: 2 }],
    ["rows of smoothed targets", { reduction: "none", labelSmoothing: 0.2 }],
    ["all at once", { classWeights: [0.5, 2, 1, 3], labelSmoothing: 0.1, ignoreIndex: 0 }],
  ])("crossEntropy, %s", (_, options) => {
    const draw = drawOf(1);
    const target = [0, 1, 2, 3, 1, 2];
    const values: Values = { logits: draw.apart(24) };
    const dLoss = draw.normal(options.reduction === "none" ? 6 : 1);
    const of = (moved: Values) => ({ data: moved.logits, shape: [6, 4] });
    const loss = (moved: Values) => weighed(crossEntropy(of(moved), target, options), dLoss);
    const logits = crossEntropyBackward(of(values), target, dLoss, options);
    expectGradients({ values, loss, gradients: { logits } }, 1);
  });
  it.each([
    ["squared", "mean"],
    ["squared", "none"],
    ["logistic", "mean"],
    ["logistic", "sum"],
  ] as const)("elementLoss, %s, %s", (kind, reduction) => {
    const draw = drawOf(2);
    const values: Values = { x: draw.apart(12), target: draw.apart(12) };
    const dLoss = draw.normal(reduction === "none" ? 12 : 1);
    const weights =
      kind === "logistic"
        ? {
            weight: { data: draw.normal(12), shape: [3, 4] },
            posWeight: { data: draw.normal(4), shape: [4] },
          }
        : {};
    const options = { kind, reduction, ...weights };
    const of = (moved: Values) => ({ data: moved.x, shape: [3, 4] });
    const loss = (moved: Values) => weighed(elementLoss(of(moved), moved.target, options), dLoss);
    const { dX, dTarget } = elementLossBackward(of(values), values.target, dLoss, options);
    expectGradients({ values, loss, gradients: { x: dX, target: dTarget } }, 2);
  });
  it("embedding", () => {
    const draw = drawOf(3);
    const ids = [1, 0, 1, -1, 4, 2];
    const values: Values = { weight: draw.apart(12) };
    const dOutput = draw.normal(18);
    const of = (moved: Values) => ({ data: moved.weight, shape: [4, 3] });
    const loss = (moved: Values) => weighed(embedding(of(moved), ids, { scale: 3 }), dOutput);
    const weight = embeddingBackward(of(values), ids, dOutput, { scale: 3 });
    expectGradients({ values, loss, gradients: { weight } }, 3);
    const padded = embeddingBackward(of(values), ids, dOutput, { scale: 3, paddingId: 1 });
    expect(Array.from(padded.subarray(3, 6))).toEqual([0, 0, 0]);
    expect(padded[0]).toBe(weight[0]);
  });
});

describe("losses by hand", () => {
  it("are those of the formulas", () => {
    const half = tensor([2, 2], [0, 0, 0, Math.log(3)]);
    close(crossEntropy(half, [0, 1], { reduction: "none" }), [Math.log(2), Math.log(4 / 3)]);
    close(crossEntropy(half, [0, -100]), [Math.log(2)]);
    close(crossEntropy(half, [-100, -100]), [Number.NaN]);
    close(elementLoss(tensor([2], [1, 3]), [0, 1], { kind: "squared" }), [2.5]);
    const logistic = { kind: "logistic", reduction: "none" } as const;
    close(elementLoss(tensor([2], [0, 1000]), [1, 1], logistic), [Math.log(2), 0]);
  });
  it("the largest element is the first one, and a NaN before all", () => {
    const rows = tensor([3, 3], [1, 2, 2, 1, Number.NaN, 3, -1, -1, -1]);
    expect(Array.from(argmax(rows))).toEqual([1, 1, 0]);
  });
});
