// Keys that several batch entries share, read once for all of them: attention over the prefix,
// attention over the rest of each entry, and the merge of both.

import { expect, it } from "vitest";
import { attention, mergeAttention, tensor } from "../../src/index.ts";
import { attention as reference } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { product } from "../support/cases.ts";
import { expectClose } from "../support/closeness.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";

failOnGpuErrors();

it("merges a shared prefix with keys of one's own", async () => {
  const device = await testDevice();
  const B = 3;
  const H = 2;
  const Hkv = 1;
  const M = 1;
  const D = 16;
  const shared = 150;
  const own = 40;
  const lengths = [40, 1, 17];
  const make = (what: number, shape: number[]) => ({ shape, data: normal(what, product(shape)) });
  const q = make(1, [B, H, M, D]);
  const prefixK = make(2, [1, Hkv, shared, D]);
  const prefixV = make(3, [1, Hkv, shared, D]);
  const k = make(4, [B, Hkv, own, D]);
  const v = make(5, [B, Hkv, own, D]);
  const gpu = (given: typeof q) => tensor(device, given.shape, { data: given.data });
  const [queries, ...keys] = [q, prefixK, prefixV, k, v].map(gpu);

  // Strides make the queries of all entries those of one, [1, H, B * M, D], so that the prefix is
  // read once.
  const together = queries.permute(2, 1, 0, 3);
  const output = tensor(device, [B, H, M, D]);
  const lse = tensor(device, [B, H, M]);
  await attention(together, keys[0], keys[1], {
    output: output.permute(2, 1, 0, 3),
    lse: lse.permute(2, 1, 0),
  });
  const ends = await attention(queries, keys[2], keys[3], {
    causal: true,
    kvLengths: lengths,
    lse: true,
  });
  const merged = await mergeAttention([{ output, lse }, ends]);

  // The result must equal one problem for each entry, with its keys behind the prefix.
  const values = await merged.output.read();
  for (let b = 0; b < B; b++) {
    const joined = (prefix: typeof q, suffix: typeof q) => ({
      shape: [1, Hkv, shared + lengths[b], D],
      data: [...prefix.data, ...suffix.data.subarray(b * own * D, (b * own + lengths[b]) * D)],
    });
    const entry = {
      shape: [1, H, M, D],
      data: q.data.subarray(b * H * M * D, (b + 1) * H * M * D),
    };
    const both = [joined(prefixK, k), joined(prefixV, v)] as const;
    const f64 = reference(entry, ...both, { causal: true }).output;
    const plain = reference(entry, ...both, { causal: true, precision: "f32" }).output;
    expectClose(
      "output",
      values.subarray(b * H * M * D, (b + 1) * H * M * D),
      { f64, plain },
      entry.shape,
    );
  }
  expect(together.shape).toEqual([1, H, B, D]);
  for (const used of [
    queries,
    ...keys,
    output,
    lse,
    ends.output,
    ends.lse,
    merged.output,
    merged.lse,
  ])
    used?.destroy();
});
