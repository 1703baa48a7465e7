// Masks of bits whose words do not lie side by side.

import { expect, it } from "vitest";
import { attention, tensor } from "../../src/index.ts";
import { attention as reference } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { expectClose } from "../support/closeness.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";

failOnGpuErrors();

it("a mask of bits is read by the strides of all of its axes", async () => {
  const device = await testDevice();
  const M = 5;
  const N = 70;
  const D = 8;
  const WORDS = Math.ceil(N / 32);
  const cpu = (shape: readonly number[], seed: number) => ({
    shape,
    data: normal(seed, shape[2] * shape[3]),
  });
  const q = cpu([1, 1, M, D], 1);
  const k = cpu([1, 1, N, D], 2);
  const v = cpu([1, 1, N, D], 3);
  const mask = {
    shape: [1, 1, M, N],
    data: Uint8Array.from(normal(4, M * N), (x) => Number(x > 0)),
  };
  const words = new Uint32Array(M * WORDS);
  mask.data.forEach((kept, at) => {
    const key = at % N;
    if (kept) words[Math.floor(at / N) * WORDS + (key >> 5)] |= 1 << (key & 31);
  });
  // Words of the same keys lie near each other, one for each query, with gaps between them.
  const strides = [0, 0, 2, 2 * M + 3];
  const bits = tensor(device, [1, 1, M, WORDS], { dtype: "u32", data: words, strides });
  const gpu = [q, k, v].map(({ shape, data }) => tensor(device, shape, { data }));
  const { output } = await attention(gpu[0], gpu[1], gpu[2], { mask: bits, variant: "8x32" });
  const f64 = reference(q, k, v, { mask }).output;
  const plain = reference(q, k, v, { mask, precision: "f32" }).output;
  expect(f64.some((x) => x !== 0)).toBe(true);
  expectClose("output", await output.read(), { f64, plain }, [1, 1, M, D]);
  for (const one of [...gpu, bits, output]) one.destroy();
});
