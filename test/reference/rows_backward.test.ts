// The gradients of the operations on rows against central differences of their own results.

import { describe, expect, it } from "vitest";
import {
  layerNorm,
  layerNormBackward,
  mergeAttention,
  mergeAttentionBackward,
  pointwise,
  pointwiseBackward,
  positionBias,
  positionBiasBackward,
  positionEncoding,
  positionEncodingBackward,
  project,
  projectBackward,
  type ReferenceActivation,
  rotary,
  rotaryBackward,
  softmaxAlong,
  softmaxAlongBackward,
} from "../../src/reference/index.ts";
import { expectGradients, type Values, weighed } from "../support/central_differences.ts";
import { drawOf } from "../support/draw.ts";
import { close, tensor } from "./hand.ts";

const sizeOf = (shape: readonly number[]) => shape.reduce((product, size) => product * size, 1);

/** Tensors of some shapes, and the gradient of a result, all of the same seed. */
function problem(seed: number, shapes: Readonly<Record<string, readonly number[]>>) {
  const draw = drawOf(seed);
  const values: Values = Object.fromEntries(
    Object.entries(shapes).map(([name, shape]) => [name, draw.apart(sizeOf(shape))]),
  );
  const tensors = (moved: Values) =>
    Object.fromEntries(
      Object.entries(shapes).map(([name, shape]) => [name, { data: moved[name], shape }]),
    );
  return { values, tensors, gradient: (count: number) => draw.normal(count), seed };
}

describe("gradients of operations on rows are the derivatives of their results", () => {
  it.each([
    ["a matrix", [2, 3, 4], [5, 4]],
    ["a matrix for each head", [2, 2, 3, 4], [2, 5, 4]],
    ["a matrix for each entry, and one head", [2, 1, 3, 4], [2, 1, 5, 4]],
    ["columns and rows of one", [3, 1], [1, 1]],
  ])("project, %s", (_, ofX, ofWeight) => {
    const shapes = { x: ofX, weight: ofWeight, bias: [ofWeight[ofWeight.length - 2]] };
    const { values, tensors, gradient, seed } = problem(1, shapes);
    const { x, weight } = tensors(values);
    const dOutput = gradient(project(x, weight).length);
    const loss = (moved: Values) => {
      const own = tensors(moved);
      return weighed(project(own.x, own.weight, own.bias), dOutput);
    };
    const { dX, dWeight, dBias } = projectBackward(x, weight, dOutput);
    expectGradients({ values, loss, gradients: { x: dX, weight: dWeight, bias: dBias } }, seed);
  });

  it.each([
    ["all tensors", { rms: false, axis: -1 }],
    ["two axes", { rms: false, axis: -2 }],
    ["the root mean square", { rms: true, axis: -1, epsilon: 0.1 }],
  ])("layerNorm, %s", (_, options) => {
    const shapes = {
      x: [2, 3, 4],
      residual: [1, 3, 4],
      residualBias: [4],
      weight: [4],
      bias: [3, 1],
    };
    const { values, tensors, gradient, seed } = problem(2, shapes);
    const dOutput = gradient(24);
    const dSum = gradient(24);
    const loss = (moved: Values) => {
      const { x, ...others } = tensors(moved);
      const { output, sum } = layerNorm(x, { ...options, ...others });
      return weighed(output, dOutput) + weighed(sum, dSum);
    };
    const { x, ...others } = tensors(values);
    const found = layerNormBackward(x, { ...options, ...others, dOutput, dSum });
    const gradients = {
      x: found.dX,
      residual: found.dResidual,
      residualBias: found.dResidualBias,
      weight: found.dWeight,
      bias: found.dBias,
    };
    expectGradients({ values, loss, gradients }, seed);
  });
  it("layerNorm passes a NaN on, and gives a constant row without epsilon the gradient 0", () => {
    const x = tensor([3, 2], [Number.NaN, 1, 5, 5, 1, 3]);
    const { dX } = layerNormBackward(x, { epsilon: 0, dOutput: [1, 2, 1, 2, 1, 2] });
    expect(dX[0]).toBeNaN();
    close(dX.subarray(2), [0, 0, 0, 0]); // two numbers are always -1 and 1
  });

  it.each([
    ["softmax", { log: false }],
    ["softmax along axis 1", { log: false, axis: 1 }],
    ["log softmax along axis 0", { log: true, axis: 0 }],
  ])("%s", (_, options) => {
    const { values, tensors, gradient, seed } = problem(3, { x: [2, 3, 4] });
    const dOutput = gradient(24);
    const loss = (moved: Values) => weighed(softmaxAlong(tensors(moved).x, options), dOutput);
    const gradients = { x: softmaxAlongBackward(tensors(values).x, dOutput, options) };
    expectGradients({ values, loss, gradients }, seed);
  });
  it("softmax gives -Infinity the gradient 0, and does not read its own", () => {
    const x = tensor([3], [0, Number.NEGATIVE_INFINITY, 0]);
    close(softmaxAlongBackward(x, [1, Number.NaN, 3]), [-1 / 2, 0, 1 / 2]);
    close(softmaxAlongBackward(x, [1, Number.NaN, 3], { log: true }), [-1, 0, 1]);
  });

  const activations = [undefined, "gelu", "gelu-tanh", "relu", "silu", "sigmoid", "tanh"] as const;
  it.each(activations)("pointwise, %s", (activation: ReferenceActivation | undefined) => {
    const shapes = { x: [2, 1, 4], bias: [4], residual: [3, 1], factor: [2, 3, 4] };
    const { values, tensors, gradient, seed } = problem(4, shapes);
    const shape = [2, 3, 4];
    const dOutput = gradient(24);
    const loss = (moved: Values) => {
      const { x, ...others } = tensors(moved);
      return weighed(pointwise(x, { ...others, activation }, shape), dOutput);
    };
    const { x, ...others } = tensors(values);
    const found = pointwiseBackward(x, { ...others, activation, dOutput, shape });
    const gradients = {
      x: found.dX,
      bias: found.dBias,
      residual: found.dResidual,
      factor: found.dFactor,
    };
    expectGradients({ values, loss, gradients }, seed);
  });
  it("activations have slopes of 0 and 1 far from 0, where they have any", () => {
    const far = tensor([2], [-1e200, 1e200]);
    const slope = (activation: ReferenceActivation) =>
      Array.from(pointwiseBackward(far, { activation, dOutput: [1, 1] }).dX, Math.abs);
    for (const name of ["gelu", "gelu-tanh", "relu", "silu"] as const)
      expect(slope(name), name).toEqual([0, 1]);
    for (const name of ["sigmoid", "tanh"] as const) expect(slope(name), name).toEqual([0, 0]);
    close(pointwiseBackward(tensor([1], [0]), { activation: "relu", dOutput: [1] }).dX, [0]);
  });

  it.each([
    ["halves", {}],
    ["interleaved, some channels", { interleaved: true, rotaryDim: 4, base: 100 }],
    ["conjugate, a factor", { conjugate: true, attentionFactor: 1.3 }],
    ["another layout", { layout: "bmhd" as const, position: (_: number, b: number) => b + 3 }],
  ])("rotary, %s", (_, options) => {
    const { values, tensors, gradient, seed } = problem(5, { x: [2, 3, 1, 6] });
    const dOutput = gradient(36);
    const loss = (moved: Values) => weighed(rotary(tensors(moved).x, options), dOutput);
    const { layout } = options as { layout?: string };
    const shape = layout ? [2, 1, 3, 6] : [2, 3, 1, 6];
    const gradients = { x: rotaryBackward({ data: dOutput, shape }, options) };
    expectGradients({ values, loss, gradients }, seed);
  });

  it("positionEncoding sums over rows at the same position, and drops positions without a row", () => {
    const { values, tensors, gradient, seed } = problem(6, { x: [2, 3, 4], table: [4, 4] });
    const dOutput = gradient(24);
    const options = {
      scale: 1.5,
      position: (b: number, row: number) => [1, 1, 4, 3, 1, -1][b * 3 + row],
    };
    const loss = (moved: Values) => {
      const { x, table } = tensors(moved);
      return weighed(positionEncoding(x, { ...options, table }), dOutput);
    };
    const { x, table } = tensors(values);
    const { dX, dTable } = positionEncodingBackward(x, dOutput, { ...options, table });
    expectGradients({ values, loss, gradients: { x: dX, table: dTable } }, seed);
    expect(positionEncodingBackward(x, dOutput).dTable).toHaveLength(0);
  });

  it.each([
    ["a table", { table: [4, 2] }, {}],
    ["a bias", { bias: [2, 1, 3] }, {}],
    [
      "a table and gates",
      { table: [6, 2], update: [2, 2, 3, 1], reset: [2, 1, 1], scale: [1, 2, 1, 1] },
      { bidirectional: false, maxDistance: 4, queryOffset: 2 },
    ],
    ["a bias and gates", { bias: [2, 3, 3], update: [1], reset: [2, 3, 1], scale: [2, 1, 1] }, {}],
  ] as [string, Record<string, number[]>, object][])("positionBias, %s", (_, shapes, options) => {
    const { values, tensors, gradient, seed } = problem(7, shapes);
    const shape = [2, 2, 3, 3];
    const dOutput = gradient(36);
    const optionsOf = (moved: Values) => {
      const { table, bias, update, reset, scale } = tensors(moved);
      return {
        ...options,
        ...(table && { table }),
        ...(bias && { bias }),
        ...(update && { gates: { update, reset, scale } }),
      };
    };
    const loss = (moved: Values) => weighed(positionBias(shape, optionsOf(moved)), dOutput);
    const found = positionBiasBackward(shape, dOutput, optionsOf(values));
    const gradients = {
      table: found.dTable,
      bias: found.dBias,
      update: found.dUpdate,
      reset: found.dReset,
      scale: found.dScale,
    };
    expectGradients({ values, loss, gradients }, seed);
  });

  it("mergeAttention", () => {
    const shapes = { output0: [4, 3], lse0: [4], output1: [4, 3], lse1: [4] };
    const { values, gradient, seed } = problem(8, shapes);
    // Row 1 has keys in one partial only, row 3 in none, and nothing may read what they have.
    values.output0.fill(Number.NaN, 3, 6);
    values.output0.fill(Number.NaN, 9);
    values.output1.fill(Number.NaN, 9);
    const empty = [[1, 3], [3]];
    const partials = (moved: Values) =>
      empty.map((rows, part) => ({
        output: moved[`output${part}`],
        lse: moved[`lse${part}`].map((lse, row) =>
          rows.includes(row) ? Number.NEGATIVE_INFINITY : lse,
        ),
      }));
    const dOutput = gradient(12).fill(Number.NaN, 9);
    const dLse = gradient(4).fill(Number.NaN, 3);
    const loss = (moved: Values) => {
      const { output, lse } = mergeAttention(partials(moved));
      return weighed(output, dOutput) + weighed(lse, dLse);
    };
    const [first, second] = mergeAttentionBackward(partials(values), { dOutput, dLse });
    const gradients = {
      output0: first.dOutput,
      lse0: first.dLse,
      output1: second.dOutput,
      lse1: second.dLse,
    };
    expectGradients({ values, loss, gradients }, seed);
  });
});
