// The gradients of linear attention against central differences of its own results.

import { describe, expect, it } from "vitest";
import {
  linearAttention,
  linearAttentionBackward,
  type ReferenceLinearBackwardOptions,
} from "../../src/reference/index.ts";
import { expectGradients, type Values, weighed } from "../support/central_differences.ts";
import { drawOf } from "../support/draw.ts";
import { close, tensor } from "./hand.ts";

const PROBLEMS = 25;
const RULES = [undefined, "linear", "gated", "delta", "gated_delta"] as const;

/** A random problem of a rule, with NaN in tokens that don't count. */
function problem(seed: number) {
  const draw = drawOf(seed);
  const updateRule = RULES[seed % RULES.length];
  const causal = draw.chance(60);
  const B = draw.whole(1, 2);
  const Hk = draw.whole(1, 2);
  const Hkv = Hk * draw.whole(1, 2);
  const Hq = draw.chance(50) ? Hkv * draw.whole(1, 2) : Hk;
  const H = Math.max(Hq, Hkv);
  const N = draw.whole(1, 5);
  const M = causal ? N : draw.whole(1, 4);
  const D = draw.whole(1, 3);
  const Dv = draw.whole(1, 3);
  const gates = draw.pick([1, D]);
  const betas = draw.pick([1, Hkv]);
  const layout = draw.pick(["bhmd", "bmhd"] as const);
  const count = (shape: readonly number[]) => shape.reduce((product, size) => product * size, 1);
  const shapes: Record<string, readonly number[]> = {
    q: [B, Hq, M, D],
    k: [B, Hk, N, D],
    v: [B, Hkv, N, Dv],
    ...(updateRule?.startsWith("gated") && { decay: [B, Hkv, N, gates] }),
    ...(updateRule?.endsWith("delta") && { beta: [B, betas, N, 1] }),
    ...(draw.chance(50) && { pastState: [B, Hkv, D, Dv], pastNormalizer: [B, Hkv, D] }),
  };
  const kvLengths = draw.chance(50) ? Array.from({ length: B }, () => draw.whole(0, N)) : undefined;
  const masked = Array.from({ length: B * N }, () => Number(draw.chance(80)));
  const keyMask = draw.chance(50) ? { data: masked, shape: [B, N] } : undefined;
  const counts = (b: number, n: number) =>
    n < (kvLengths?.[b] ?? N) && (keyMask === undefined || masked[b * N + n] !== 0);
  const values = Object.fromEntries(
    Object.entries(shapes).map(([name, shape]) => {
      // Where q or k is 0, the second derivative of elu jumps.
      const numbers = draw.apart(count(shape));
      const ofTokens = ["k", "v", "decay", "beta"].includes(name);
      const perEntry = count(shape.slice(1));
      return [
        name,
        numbers.map((x, at) => {
          const b = Math.floor(at / perEntry);
          const n = Math.floor((at % (N * shape[3])) / shape[3]);
          // A weight phi(q).z of about 0 would make everything steep.
          const own = name.startsWith("past") ? Math.abs(x) : x;
          return ofTokens && !counts(b, n) ? Number.NaN : own;
        }),
      ];
    }),
  );
  const view = (moved: Values, name: string) => {
    const [b, h, m, d] = shapes[name];
    const data = moved[name];
    return layout === "bhmd"
      ? tensor([b, h, m, d], data as unknown as number[])
      : { data, shape: [b, m, h, d], strides: [h * m * d, d, m * d, 1] };
  };
  const plain = {
    layout,
    causal,
    ...(updateRule && { updateRule }),
    ...(kvLengths && { kvLengths }),
    ...(keyMask && { keyMask }),
    ...(draw.chance(30) && { scale: 0.7 }),
    // What is mapped is positive, and then a sum over tokens is safe to divide by.
    ...(updateRule && draw.chance(40) && { featureMap: "elu" as const, normalized: true }),
  };
  const build = (moved: Values) => {
    const options: ReferenceLinearBackwardOptions = {
      ...plain,
      ...(shapes.decay && { decay: view(moved, "decay") }),
      ...(shapes.beta && { beta: view(moved, "beta") }),
      ...(shapes.pastState && {
        pastState: moved.pastState,
        pastNormalizer: moved.pastNormalizer,
      }),
    };
    return { q: view(moved, "q"), k: view(moved, "k"), v: view(moved, "v"), options };
  };
  const incoming = {
    dOutput: draw.normal(B * H * M * Dv),
    dState: draw.normal(B * Hkv * D * Dv),
    dNormalizer: draw.normal(B * Hkv * D),
  };
  return { values, build, incoming, name: JSON.stringify({ ...shapes, ...plain }) };
}

describe("linearAttentionBackward", () => {
  it(`is the derivative of linear attention, in ${PROBLEMS} problems over all update rules`, () => {
    for (let seed = 1; seed <= PROBLEMS; seed++) {
      const { values, build, incoming, name } = problem(seed);
      const loss = (moved: Values) => {
        const { q, k, v, options } = build(moved);
        const { output, state, normalizer } = linearAttention(q, k, v, options);
        const { dOutput, dState, dNormalizer } = incoming;
        return weighed(output, dOutput) + weighed(state, dState) + weighed(normalizer, dNormalizer);
      };
      const { q, k, v, options } = build(values);
      const found = linearAttentionBackward(q, k, v, { ...options, ...incoming });
      const gradients = {
        q: found.dQ,
        k: found.dK,
        v: found.dV,
        decay: found.dDecay,
        beta: found.dBeta,
        pastState: found.dPastState,
        pastNormalizer: found.dPastNormalizer,
      };
      try {
        expectGradients({ values, loss, gradients }, seed);
      } catch (error) {
        throw new Error(`problem ${seed}, ${name}`, { cause: error });
      }
    }
  });

  const one = (...values: number[]) => tensor([1, 1, values.length, 1], values);
  it("reads what a token has written, weighed by what decay leaves", () => {
    // S = 1/2 * 2 * 3 + 5 * 7 = 38, o = 11 * 38.
    const options = {
      updateRule: "gated" as const,
      causal: false,
      scale: 1,
      decay: one(0, Math.log(1 / 2)),
      dOutput: [1],
    };
    const found = linearAttentionBackward(one(11), one(2, 5), one(3, 7), options);
    close(found.dQ, [38]);
    close(found.dK, [33 / 2, 77]);
    close(found.dV, [11, 55]);
    close(found.dDecay, [0, 33]); // of what there was: 11 * 1/2 * 6
    close(found.dPastState, [11 / 2]);
  });
  it("gives 0 where no token counts", () => {
    const found = linearAttentionBackward(one(1), one(Number.NaN), one(Number.NaN), {
      kvLengths: [0],
      dOutput: [1],
    });
    expect(Array.from(found.dQ)).toEqual([0]);
    expect(Array.from(found.dK)).toEqual([0]);
    expect(Array.from(found.dV)).toEqual([0]);
  });
});
