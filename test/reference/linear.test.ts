// The reference of linear attention against numbers worked by hand.

import { describe, expect, it } from "vitest";
import { linearAttention, type ReferenceLinearOptions } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { close, tensor } from "./hand.ts";

const HALF = Math.log(0.5);
/** Runs one head with D = Dv = 1: one number for each token. */
const run = (q: number[], k: number[], v: number[], options: ReferenceLinearOptions = {}) =>
  linearAttention(
    tensor([1, 1, q.length, 1], q),
    tensor([1, 1, k.length, 1], k),
    tensor([1, 1, v.length, 1], v),
    options,
  );
const gates = (values: number[]) => tensor([1, 1, values.length, 1], values);

describe("reference linearAttention, mapped and normalised", () => {
  // phi(0) = 1, phi(1) = 2, phi(-ln 2) = 1/2.
  const k = [0, 1, HALF];
  const v = [4, 1, 6];
  it("divides sum phi(q).phi(k) v by sum phi(q).phi(k)", () => {
    const { output, state, normalizer } = run([0, 1], k, v);
    close(output, [18 / 7, 18 / 7]); // (4 + 2 + 3) / (1 + 2 + 1/2)
    close(state, [9]);
    close(normalizer, [3.5]);
  });
  it("reads what came up to the token if causal", () => {
    close(run([0, 0, 5], k, v, { causal: true }).output, [4, 2, 18 / 7]);
  });
  it("goes on from a state", () => {
    const { output, state, normalizer } = run([0], [0], [2], {
      causal: true,
      pastState: [4],
      pastNormalizer: [2],
    });
    close(output, [2]);
    close(state, [6]);
    close(normalizer, [3]);
  });
  it("weighs two dimensions by phi(q).phi(k)", () => {
    // phi(q) = (1, 2), phi(k) = (1, 1) and (2, 1/2): weights 3 and 3. Values (1, 0) and (3, 8).
    const { output } = linearAttention(
      tensor([1, 1, 1, 2], [0, 1]),
      tensor([1, 1, 2, 2], [0, 0, 1, HALF]),
      tensor([1, 1, 2, 2], [1, 0, 3, 8]),
    );
    close(output, [2, 4]);
  });
  it("gives 0 if no key counts, and leaves what is masked out whatever it holds", () => {
    close(run([0], [], []).output, [0]);
    close(run([0], [Number.NaN], [1], { kvLengths: [0] }).output, [0]);
    const keyMask = tensor([1, 3], [1, 0, 1]);
    close(
      run([0, 0, 0], [0, Number.NaN, HALF], [4, Number.NaN, 7], { causal: true, keyMask }).output,
      [4, 4, 5],
    );
  });
});

describe("reference linearAttention by update rules", () => {
  const q = [1, 1, 1];
  const k = [1, 1, 1];
  const v = [8, 4, 2];
  const decay = gates([HALF, HALF, HALF]);
  const beta = gates([0.5, 0.5, 0.5]);
  it.each([
    ["linear", {}, [8, 12, 14]],
    ["gated", { decay }, [8, 8, 6]],
    ["delta", { beta }, [4, 4, 3]], // + (8 - 0)/2, + (4 - 4)/2, + (2 - 4)/2
    ["gated_delta", { decay, beta }, [4, 3, 1.75]], // 2 + (4 - 2)/2, 1.5 + (2 - 1.5)/2
  ] as const)("%s", (updateRule, options, states) => {
    close(run(q, k, v, { updateRule, ...options }).output, states);
    close(
      run(q, k, v, { updateRule, ...options, scale: 3 }).output,
      states.map((s) => 3 * s),
    );
    expect(run(q, k, v, { updateRule, ...options }).state[0]).toBeCloseTo(states[2], 12);
  });
  it("scales by 1 / sqrt(D)", () => {
    const ones = tensor([1, 1, 1, 4], [1, 1, 1, 1]);
    close(
      linearAttention(ones, ones, tensor([1, 1, 1, 1], [3]), { updateRule: "linear" }).output,
      [6],
    );
  });
  it("delta with beta 1 replaces what a key of length 1 holds, and nothing else", () => {
    const k2 = tensor([1, 1, 3, 2], [1, 0, 0, 1, 1, 0]);
    const v2 = tensor([1, 1, 3, 1], [5, 3, 7]);
    const q2 = tensor([1, 1, 3, 2], [1, 0, 1, 0, 1, 1]);
    const options = { updateRule: "delta", beta: gates([1, 1, 1]), scale: 1 } as const;
    const { output, state } = linearAttention(q2, k2, v2, options);
    close(output, [5, 5, 10]);
    close(state, [7, 3]);
  });
  it("decays rows of the state each by its own, before the write", () => {
    const past = { pastState: [8, 8], pastNormalizer: [2, 2] };
    const options = {
      updateRule: "gated",
      decay: tensor([1, 1, 1, 2], [0, HALF]),
      ...past,
    } as const;
    const one = tensor([1, 1, 1, 2], [1, 1]);
    const { state, normalizer } = linearAttention(one, one, tensor([1, 1, 1, 1], [1]), options);
    close(state, [9, 5]);
    close(normalizer, [3, 2]);
  });
  it("a masked token neither decays nor writes", () => {
    const keyMask = tensor([1, 3], [1, 0, 1]);
    close(run(q, k, v, { updateRule: "gated", decay, keyMask }).output, [8, 8, 6]);
  });
  it("normalises decayed sums, if asked to", () => {
    // S: 8, 4 + 4, 4 + 2; z: 1, 1/2 + 1, 3/4 + 1.
    close(run(q, k, v, { updateRule: "gated", decay, normalized: true }).output, [
      8,
      16 / 3,
      24 / 7,
    ]);
  });
});

describe("reference linearAttention over heads", () => {
  it("lets neighbours share what has fewer heads", () => {
    // Keys 1; values of the two states 10 and 20; query heads 1, 2, 3, 4.
    const q = tensor([1, 4, 1, 1], [1, 2, 3, 4]);
    const k = tensor([1, 1, 1, 1], [1]);
    const v = tensor([1, 2, 1, 1], [10, 20]);
    close(linearAttention(q, k, v, { updateRule: "linear" }).output, [10, 20, 60, 80]);
    const fewer = tensor([1, 1, 1, 1], [5]);
    close(linearAttention(fewer, k, v, { updateRule: "linear" }).output, [50, 100]);
  });
  it("reads layouts by their axes", () => {
    const data = normal(1, 12);
    const bhmd = { data, shape: [1, 2, 3, 2] };
    const moved = [0, 1, 2].flatMap((n) =>
      [0, 1].flatMap((h) => [0, 1].map((d) => data[(h * 3 + n) * 2 + d])),
    );
    const bmhd = { data: moved, shape: [1, 3, 2, 2] };
    const straight = linearAttention(bhmd, bhmd, bhmd, { causal: true });
    close(
      linearAttention(bmhd, bmhd, bmhd, { causal: true, layout: "bmhd" }).output,
      straight.output,
    );
  });
});
