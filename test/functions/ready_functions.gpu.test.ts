// What the ready mask and score functions refuse, word for word.

import { describe, it } from "vitest";
import {
  alibiScore,
  alibiSlopes,
  allOf,
  anyOf,
  causalMask,
  chunkMask,
  dilatedWindow,
  documentMask,
  globalWindow,
  neighborhood2d,
  prefixLm,
  slidingWindow,
  softcapScore,
  t5Score,
  tensor,
} from "../../src/index.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

describe("the library refuses", () => {
  const refusals: readonly [
    what: string,
    work: (device: GPUDevice) => unknown,
    message: string | RegExp,
  ][] = [
    [
      "half a key",
      () => slidingWindow(0.5, 0),
      "slidingWindow: left must be a whole number from -1 up, got 0.5.",
    ],
    [
      "a window below -1",
      () => slidingWindow(0, -2),
      "slidingWindow: right must be a whole number from -1 up, got -2.",
    ],
    ["no chunk", () => chunkMask(0), "chunkMask: size must be a whole number from 1 up, got 0."],
    [
      "a negative prefix",
      () => prefixLm(-1),
      "prefixLm: prefix must be a whole number from 0 up, got -1.",
    ],
    [
      "prefixes that aren't integers",
      (device) => prefixLm(tensor(device, [2])),
      "prefixLm: prefix must be a dense tensor [B] of i32 or u32, got f32 [2] with strides [1].",
    ],
    [
      "ids that aren't a tensor",
      () => documentMask([0, 0, 1] as never),
      "documentMask: ids must be a Tensor; make one with tensor(). Got [0, 0, 1].",
    ],
    [
      "ids with strides",
      (device) => documentMask(tensor(device, [4, 2], { dtype: "i32" }).permute(1, 0)),
      "documentMask: ids must be a dense tensor [N] or [B, N] of i32 or u32, got i32 [2,4] with strides [1,2].",
    ],
    [
      "ids of queries of another type",
      (device) =>
        documentMask(tensor(device, [4], { dtype: "i32" }), tensor(device, [4], { dtype: "u32" })),
      "documentMask: queryIds must be a dense tensor [M] or [B, M] of i32, got u32 [4] with strides [1].",
    ],
    [
      "no dilation",
      () => dilatedWindow(4, 0),
      "dilatedWindow: dilation must be a whole number from 1 up, got 0.",
    ],
    [
      "a negative reach",
      () => dilatedWindow(-1, 1),
      "dilatedWindow: reach must be a whole number from 0 up, got -1.",
    ],
    [
      "no number of globals",
      () => globalWindow(Number.NaN, 1, 1),
      "globalWindow: globals must be a whole number from 0 up, got NaN.",
    ],
    [
      "a global window below -1",
      () => globalWindow(1, -2, 1),
      "globalWindow: left must be a whole number from -1 up, got -2.",
    ],
    [
      "... on either side",
      () => globalWindow(1, 1, -2),
      "globalWindow: right must be a whole number from -1 up, got -2.",
    ],
    [
      "no grid",
      () => neighborhood2d(0, 3, 1),
      "neighborhood2d: width must be a whole number from 1 up, got 0.",
    ],
    [
      "half a row",
      () => neighborhood2d(3, 1.5, 1),
      "neighborhood2d: height must be a whole number from 1 up, got 1.5.",
    ],
    [
      "no kernel",
      () => neighborhood2d(3, 3, 0),
      "neighborhood2d: kernel must be a whole number from 1 up, got 0.",
    ],
    [
      "a kernel wider than the grid",
      () => neighborhood2d(3, 9, 5),
      "neighborhood2d: a kernel of 5 x 5 does not fit a grid of 3 x 9.",
    ],
    [
      "slopes of three axes",
      (device) => alibiScore(tensor(device, [1, 2, 3])),
      /^alibiScore: slopes must be a dense tensor \[H\] or \[B, H\] of f32, got f32 \[1,2,3\]/,
    ],
    [
      "a table without heads",
      (device) => t5Score({ table: tensor(device, [32]) }),
      /^t5Score: table must be a dense tensor \[buckets, H\] of f32, got f32 \[32\]/,
    ],
    [
      "an odd table",
      (device) => t5Score({ table: tensor(device, [7, 2]) }),
      "t5Score needs at least 4 buckets, an even number, got 7.",
    ],
    [
      "a distance below the buckets",
      (device) => t5Score({ table: tensor(device, [32, 2]), maxDistance: 8 }),
      "t5Score.maxDistance must be a whole number above 8 and up to 65536, got 8.",
    ],
    ["a cap of 0", () => softcapScore(0), "softcapScore: cap must be a positive number, got 0."],
    [
      "no heads",
      () => alibiSlopes(0),
      "alibiSlopes: heads must be a whole number from 1 to 2^29 - 1, got 0.",
    ],
    [
      "no largest slope",
      () => alibiSlopes(8, Number.NaN),
      "alibiSlopes: max must be a finite number, got NaN.",
    ],
  ];
  it.each(refusals)("%s", async (_, work, message) => {
    const device = await testDevice();
    await expectError(() => work(device), "argument", message);
  });
  it("what isn't a mask function", async () => {
    await expectError(
      () => allOf(causalMask(), softcapScore(1) as never),
      "argument",
      "allOf: part 2 must come from maskFunction(), got an AttentionFunction.",
    );
    await expectError(
      () => anyOf(null as never),
      "argument",
      "anyOf: part 1 must come from maskFunction(), got null.",
    );
  });
});
