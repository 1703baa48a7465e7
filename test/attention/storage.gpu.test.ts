// q, k, v and output stored in 16 bits: arithmetic stays f32, so only what is stored is rounded.

import { describe, expect, it } from "vitest";
import { bfloat16Bits, float16Bits } from "../../src/gpu/elements.ts";
import { bfloat16Value } from "../../src/gpu/read.ts";
import { attention, tensor } from "../../src/index.ts";
import { breadth } from "../support/breadth.ts";
import { type Case, runCase, title } from "../support/cases.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";

failOnGpuErrors();

const small = { variant: "8x32" } as const;
const all = (problems: readonly Case[]) => {
  for (const problem of problems) {
    it(title(problem), async () => runCase(await testDevice(), { ...small, ...problem }));
  }
};

describe("storage", () => {
  all([
    { H: 2, M: 37, N: 70, D: 16, dtype: "f16" },
    { H: 2, M: 37, N: 70, D: 16, dtype: "bf16" },
    { H: 2, M: 37, N: 70, D: 5, Dv: 7, dtype: "f16", causal: true },
    { H: 2, M: 37, N: 70, D: 5, Dv: 7, dtype: "bf16", layout: "bmhd" },
    { H: 2, M: 37, N: 70, D: 16, dtype: ["f32", "f16", "bf16", "f32"] },
    { H: 2, M: 37, N: 70, D: 16, dtype: ["bf16", "f32", "f16", "f16"] },
    {
      H: 4,
      Hkv: 2,
      M: 37,
      N: 70,
      D: 16,
      dtype: ["f16", "f16", "f16", "f32"],
      sinks: true,
      softcap: 5,
      causal: true,
    },
    { H: 2, M: 70, N: 37, D: 16, dtype: "f16", causal: true, spread: 5 }, // empty rows
    { H: 2, M: 37, N: 70, D: 16, dtype: "f16", spread: 1e-4 }, // subnormal inputs
    { H: 2, M: 61, N: 90, D: 6, dtype: "f16", cuSeqlensQ: [0, 17, 61], cuSeqlensKv: [0, 50, 90] },
    // Breadth adds the tiles that are chosen for devices.
    ...breadth<Case>({
      H: 2,
      M: 70,
      N: 70,
      D: 16,
      dtype: ["f16", "bf16", "f16", "bf16"],
      causal: true,
      variant: "64x32",
    }),
    {
      H: 2,
      M: 70,
      N: 70,
      D: 6,
      dtype: ["bf16", "f16", "bf16", "f16"],
      causal: true,
      variant: "32x32",
    },
  ]);
});

describe("stored values", () => {
  // With one key the output is its value, so every value has to come back as it was rounded.
  const VALUES = [
    0,
    -0,
    1,
    -1,
    1e-3,
    65504,
    -65504,
    2 ** -14,
    2 ** -15,
    3 * 2 ** -24,
    2 ** -24,
    0.1,
    1 / 3,
    1e4,
  ];
  for (const dtype of ["f16", "bf16"] as const) {
    it(`come back in ${dtype}, from f32 and from itself`, async () => {
      const device = await testDevice();
      const shape = [1, 1, 1, VALUES.length];
      const zero = tensor(device, [1, 1, 1, 4], { data: [0, 0, 0, 0] });
      const expected = VALUES.map((value) =>
        dtype === "f16" ? float16Bits(value) : bfloat16Bits(value),
      );
      for (const from of ["f32", dtype] as const) {
        const v = tensor(device, shape, { dtype: from, data: VALUES });
        const output = tensor(device, shape, {
          dtype,
          data: new Array(VALUES.length).fill(Number.NaN),
        });
        await attention(zero, zero, v, { output, ...small });
        const bits = Array.from(await output.read(), (x) =>
          dtype === "f16" ? float16Bits(x) : bfloat16Bits(x),
        );
        expect(bits).toEqual(expected.map((value) => (value === 0x8000 ? 0 : value))); // 0 * -0 + 0
      }
    });
  }
  it("of bf16 round to nearest, ties to even, and keep a NaN", () => {
    const ulp = 2 ** -7;
    expect(bfloat16Value(bfloat16Bits(1 + ulp / 2))).toBe(1);
    expect(bfloat16Value(bfloat16Bits(1 + 1.5 * ulp))).toBe(1 + 2 * ulp);
    expect(bfloat16Value(bfloat16Bits(-1 - 0.6 * ulp))).toBe(-1 - ulp);
    expect(bfloat16Value(bfloat16Bits(Number.POSITIVE_INFINITY))).toBe(Number.POSITIVE_INFINITY);
    expect(bfloat16Value(bfloat16Bits(Number.NaN))).toBeNaN();
    expect(bfloat16Value(bfloat16Bits(3.4028235e38))).toBe(Number.POSITIVE_INFINITY);
  });
  it("beside the output are left alone, though they share its words", async () => {
    const device = await testDevice();
    const data = Array.from({ length: 3 * 5 }, (_, i) => i + 1);
    const v = tensor(device, [1, 1, 1, 5], { data: [10, 20, 30, 40, 50] });
    const zero = tensor(device, [1, 1, 1, 4], { data: [0, 0, 0, 0] });
    const whole = tensor(device, [3, 5], { dtype: "f16", data });
    const output = whole.view({ shape: [1, 1, 1, 5], strides: [0, 0, 0, 1], offset: 5 });
    await attention(zero, zero, v, { output, ...small });
    expect(Array.from(await whole.read())).toEqual([
      ...data.slice(0, 5),
      10,
      20,
      30,
      40,
      50,
      ...data.slice(10),
    ]);
  });
});
