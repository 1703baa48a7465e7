// The reference of the layer against numbers worked by hand.

import { describe, expect, it } from "vitest";
import { multiHeadAttention, type ReferenceMultiHead } from "../../src/reference/index.ts";

const identity = { weight: { data: [1, 0, 0, 1], shape: [2, 2] } };
const tensor = (data: number[], ...shape: number[]) => ({ data, shape });

/** Two heads of one element each: scores are products of numbers. */
const TWO_HEADS: ReferenceMultiHead = { query: identity, key: identity, value: identity };
const expectNear = (actual: ArrayLike<number>, expected: readonly number[]) => {
  for (const [index, value] of expected.entries()) expect(actual[index]).toBeCloseTo(value, 12);
};
const LN2 = Math.log(2);
const LN3 = Math.log(3);

describe("multiHeadAttention", () => {
  // Head 0: q = 1, keys 0 and ln 2, so weights 1/3 and 2/3. Head 1: keys ln 3 and 0, so 3/4 and
  // 1/4.
  const query = tensor([1, 1], 1, 1, 2);
  const key = tensor([0, LN3, LN2, 0], 1, 2, 2);
  const value = tensor([3, 4, 6, 8], 1, 2, 2);

  it("attends in each head on its own", () => {
    const { output, lse, weights } = multiHeadAttention(query, key, value, TWO_HEADS, { heads: 2 });
    expect(output[0]).toBeCloseTo(5, 12); // 3/3 + 2 * 6/3
    expect(output[1]).toBeCloseTo(5, 12); // 3 * 4/4 + 8/4
    expect(lse[0]).toBeCloseTo(LN3, 12);
    expect(lse[1]).toBeCloseTo(Math.log(4), 12);
    expectNear(weights, [1 / 3, 2 / 3, 3 / 4, 1 / 4]);
  });
  it("projects before and after, with biases", () => {
    const layer: ReferenceMultiHead = {
      query: { ...identity, bias: tensor([1, 1], 2) }, // from zeros to the query above
      key: { weight: tensor([0, 1, 1, 0], 2, 2) }, // swaps the elements of the keys
      value: { weight: tensor([2, 0, 0, 2], 2, 2) },
      output: { weight: tensor([1, 1, 1, -1, 0, 1], 3, 2), bias: tensor([0, 0, 100], 3) },
    };
    const swapped = tensor([LN3, 0, 0, LN2], 1, 2, 2);
    const { output } = multiHeadAttention(tensor([0, 0], 1, 1, 2), swapped, value, layer, {
      heads: 2,
    });
    expectNear(output, [20, 0, 110]); // heads give 10 and 10
  });
  it("lets several heads share a key head", () => {
    const layer = {
      ...TWO_HEADS,
      key: { weight: tensor([1, 0], 1, 2) },
      value: { weight: tensor([1, 0], 1, 2) },
    };
    const { output } = multiHeadAttention(query, key, value, layer, { heads: 2, kvHeads: 1 });
    expect(output[0]).toBeCloseTo(5, 12);
    expect(output[1]).toBeCloseTo(5, 12); // as head 0 gives
  });
  it("has a learned key and one of zeros behind the others, whatever a mask says", () => {
    const layer = { ...TWO_HEADS, biasK: tensor([LN2, 0], 2), biasV: tensor([9, 80], 2) };
    const mask = tensor([1, 0], 1, 1, 1, 2); // only the first of the two keys counts
    const options = { heads: 2, zeroAttention: true, mask };
    const { output, weights, lse } = multiHeadAttention(query, key, value, layer, options);
    // Head 0: exp of the scores is 1 for the first key, 2 for the learned one, 1 for the one of
    // zeros.
    expectNear(weights, [1 / 4, 0, 2 / 4, 1 / 4]);
    expect(output[0]).toBeCloseTo((3 + 2 * 9) / 4, 12);
    expect(output[1]).toBeCloseTo((3 * 4 + 80) / 5, 12); // head 1: 3, 1 and 1
    expect(lse[1]).toBeCloseTo(Math.log(5), 12);
  });
  it("gives unused queries the bias alone, and no weights", () => {
    const layer = { ...TWO_HEADS, output: { ...identity, bias: tensor([7, 8], 2) } };
    const { output, lse, weights } = multiHeadAttention(query, key, value, layer, {
      heads: 2,
      qLengths: [0],
    });
    expect([...output]).toEqual([7, 8]);
    expect([...lse]).toEqual([Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY]);
    expect([...weights]).toEqual([0, 0, 0, 0]);
  });
  it("rounds what is stored between the steps", () => {
    const options = { heads: 2, stored: Math.round };
    const { output } = multiHeadAttention(
      query,
      tensor([0, 0, 0.4, 0.4], 1, 2, 2),
      value,
      TWO_HEADS,
      options,
    );
    expect([...output]).toEqual([5, 6]); // keys become 0, and the mean of 3 and 6 becomes 5
  });
});
