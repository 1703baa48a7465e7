// Generation: tokens join a cache one by one and attend to all before them, recorded by plans that
// were made once.

import { expect, it } from "vitest";
import { createKvCache, planAttention, type Tensor, tensor } from "../../src/index.ts";
import { attention as reference } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { expectClose } from "../support/closeness.ts";
import { counted } from "../support/counted.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";

failOnGpuErrors();

it("of 2,000 tokens: no allocation, no compilation and no readback after the first", async () => {
  const { device, count, bytes } = counted(await testDevice());
  const H = 4;
  const D = 8;
  const TOKENS = 2000;
  const cache = await createKvCache(device, { batch: 1, kvHeads: 1, headDim: D, capacity: TOKENS });
  const [q, k, v] = [H, 1, 1].map((heads) => tensor(device, [1, heads, 1, D]));
  const output = tensor(device, [1, H, 1, D], { data: new Float32Array(H * D).fill(Number.NaN) });
  const append = await cache.planAppend({ k, v });
  const attend = await planAttention(device, { q, cache, output, causal: true });
  expect(attend.kernel).toMatch(/^decode/);

  const [queries, keys, values] = [H, 1, 1].map((heads, what) =>
    normal(what + 1, TOKENS * heads * D),
  );
  const write = ({ buffer, size }: Tensor, data: Float32Array, token: number) =>
    device.queue.writeBuffer(buffer, 0, data as Float32Array<ArrayBuffer>, token * size, size);
  let afterFirst: typeof count | undefined;
  for (let token = 0; token < TOKENS; token++) {
    write(q, queries, token);
    write(k, keys, token);
    write(v, values, token);
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    append.encode(pass);
    attend.encode(pass);
    pass.end();
    device.queue.submit([encoder.finish()]);
    afterFirst ??= { ...count };
    if (![0, 1, 130, 1000, TOKENS - 1].includes(token)) continue;
    const query = {
      shape: [1, H, 1, D],
      data: queries.subarray(token * H * D, (token + 1) * H * D),
    };
    const [all, allValues] = [keys, values].map((data) => ({ shape: [1, 1, token + 1, D], data }));
    const f64 = reference(query, all, allValues).output;
    const plain = reference(query, all, allValues, { precision: "f32" }).output;
    const made = count.buffersMade;
    expectClose("output", await output.read(), { f64, plain }, query.shape);
    count.buffersMade = made; // for reading it here
  }
  expect(count).toEqual({ ...afterFirst, submits: count.submits });
  expect(cache.lengths).toEqual([TOKENS]);
  for (const used of [append, attend, cache, q, k, v, output]) used.destroy();
  expect(bytes()).toBe(0);
});
