// Multiplicative attention: q^T W k by a projection and dot products, against the references of
// both.

import { describe, expect, it } from "vitest";
import {
  type MultiplicativeProblem,
  multiplicativeAttention,
  planMultiplicativeAttention,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import { attention as reference } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { product } from "../support/cases.ts";
import { expectClose } from "../support/closeness.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

const B = 2;
const H = 4;
const Hkv = 2;
const M = 19;
const N = 37;
const Dq = 12;
const Dk = 8;
const Dv = 4;

interface Numbers {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}
const random = (seed: number, shape: readonly number[]): Numbers => ({
  shape,
  data: normal(seed, product(shape), 0.7),
});

/** Computes q W in float64, or with every operation rounded to f32. */
function projected(q: Numbers, weight: Numbers, round: (x: number) => number): Float64Array {
  const perHead = weight.shape.length === 3;
  return Float64Array.from({ length: B * H * M * Dk }, (_, index) => {
    const row = Math.floor(index / Dk);
    const column = index % Dk;
    const from = perHead ? (Math.floor(row / M) % H) * Dq * Dk : 0;
    let sum = 0;
    for (let d = 0; d < Dq; d++) {
      sum = round(sum + round(q.data[row * Dq + d] * weight.data[from + d * Dk + column]));
    }
    return sum;
  });
}

describe("multiplicative attention", () => {
  it.each([
    [[Dq, Dk], "bhmd"],
    [[H, Dq, Dk], "bhmd"],
    [[H, Dq, Dk], "bmhd"],
  ] as const)("with weights %j in %s", async (weightShape, layout) => {
    const device = await testDevice();
    const q = random(1, [B, H, M, Dq]);
    const k = random(2, [B, Hkv, N, Dk]);
    const v = random(3, [B, Hkv, N, Dv]);
    const weight = random(4, weightShape);
    const used: Tensor[] = [];
    const upload = ({ shape, data }: Numbers, order = [0, 1, 2, 3]) => {
      const dense = tensor(device, shape, { data });
      used.push(dense);
      return shape.length === 4 ? dense.permute(...order) : dense;
    };
    const order = layout === "bhmd" ? [0, 1, 2, 3] : [0, 2, 1, 3];
    const [gpuQ, gpuK, gpuV] = [q, k, v].map((one) => upload(one, order));
    const options = { layout, causal: true, kvLengths: [N, 11], variant: "8x32" } as const;
    const { output, lse } = await multiplicativeAttention(gpuQ, gpuK, gpuV, upload(weight), {
      ...options,
      lse: true,
    });
    used.push(output, lse as Tensor);
    const both = (precision: "f64" | "f32") => {
      const round = precision === "f64" ? (x: number) => x : Math.fround;
      const rows = { shape: [B, H, M, Dk], data: projected(q, weight, round) };
      return reference(rows, k, v, { causal: true, kvLengths: [N, 11], scale: 1, precision });
    };
    const f64 = both("f64");
    const plain = both("f32");
    const values = await output.permute(...order).read();
    expectClose("output", values, { f64: f64.output, plain: plain.output }, [B, H, M, Dv]);
    expectClose("lse", await (lse as Tensor).read(), { f64: f64.lse, plain: plain.lse }, [B, H, M]);
    for (const one of used) one.destroy();
  });

  it("is planned once, for tensors that change", async () => {
    const device = await testDevice();
    const make = (seed: number, shape: number[]) =>
      tensor(device, shape, { data: random(seed, shape).data });
    const k = make(2, [1, H, N, Dk]);
    const v = make(3, [1, H, N, Dv]);
    const weight = make(4, [H, Dq, Dk]);
    const q = make(1, [1, H, M, Dq]);
    const other = make(9, [1, H, M, Dq]);
    const output = tensor(device, [1, H, M, Dv]);
    const plan = await planMultiplicativeAttention(device, { q, k, v, weight, variant: "8x32" });
    const run = async (given: Tensor) => {
      const encoder = device.createCommandEncoder();
      plan.encode(encoder, { q: given, output });
      device.queue.submit([encoder.finish()]);
      return [...(await output.read())];
    };
    const first = await run(q);
    const second = await run(other);
    const third = await run(q);
    expect(third).toEqual(first);
    expect(second).not.toEqual(first);
    const once = await multiplicativeAttention(other, k, v, weight, { variant: "8x32" });
    expect([...(await once.output.read())]).toEqual(second);
    expect(plan.workspaceBytes).toBe(4 * H * M * Dk);
    expect(plan.kernel).toMatch(/^matmul .*, forward 8x32$/);
    for (const one of [k, v, weight, q, other, output, once.output, plan]) one.destroy();
  });

  it("refuses weights that do not go between, and other similarities", async () => {
    const device = await testDevice();
    const spec = (...shape: number[]) => ({ shape });
    const good = {
      q: spec(1, 4, 5, 12),
      k: spec(1, 2, 7, 8),
      v: spec(1, 2, 7, 4),
      weight: spec(12, 8),
    };
    const refuse = (change: object, message: string) => {
      const problem = { ...good, ...change } as MultiplicativeProblem;
      return expectError(() => planMultiplicativeAttention(device, problem), "argument", message);
    };
    const weights = "weight must be [Dq, Dk] = [12, 8] or [H, Dq, Dk] = [4, 12, 8]";
    await refuse({ weight: spec(8, 12) }, `multiplicativeAttention: ${weights}, got [8, 12].`);
    await refuse(
      { weight: spec(2, 12, 8) },
      `multiplicativeAttention: ${weights}, got [2, 12, 8].`,
    );
    await refuse(
      { similarity: "cosine" },
      "multiplicativeAttention: the projected queries are compared by dot products; leave similarity out.",
    );
  });
});
