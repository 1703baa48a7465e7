// The ready mask and score functions against plain JavaScript, score by score and block by block,
// and against the options that say the same.

import { describe, expect, it } from "vitest";
import {
  allOf,
  anyOf,
  attention,
  causalMask,
  chunkMask,
  createBlockMask,
  dilatedWindow,
  documentMask,
  globalWindow,
  type MaskFunction,
  maskFunction,
  neighborhood2d,
  prefixLm,
  slidingWindow,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import {
  blockKindsOf,
  maskValues,
  maskValuesOf,
  neighborhood,
  type Predicate,
  range,
  type Scores,
} from "../support/masks.ts";

failOnGpuErrors();

type Integers = (shape: number[], data: number[], dtype?: "i32" | "u32") => Tensor;
interface Twin {
  readonly make: (integers: Integers) => MaskFunction;
  readonly js: Predicate;
  /** Sizes beside those that every mask is tested with. */
  readonly scores?: readonly Scores[];
}

const DOCUMENTS = [
  [3, 3, 3, 0, 0, 7, 7, 7, 7],
  [0, 1, 1, 1, 1, 1, -1, -1, 2],
];

const TWINS: Readonly<Record<string, Twin>> = {
  causal: { make: () => causalMask(), js: ({ kvIdx, position }) => kvIdx <= position },
  "window 3, 1": {
    make: () => slidingWindow(3, 1),
    js: ({ kvIdx, position }) => position - 3 <= kvIdx && kvIdx <= position + 1,
  },
  "window without a left end": {
    make: () => slidingWindow(-1, 2),
    js: ({ kvIdx, position }) => kvIdx <= position + 2,
  },
  "window without a right end": {
    make: () => slidingWindow(0, -1),
    js: ({ kvIdx, position }) => kvIdx >= position,
  },
  "window beyond all keys": { make: () => slidingWindow(2 ** 40, 2 ** 31 - 1), js: () => true },
  "chunks of 4": {
    make: () => chunkMask(4),
    js: ({ kvIdx, position }) => Math.floor(kvIdx / 4) === Math.floor(position / 4),
  },
  "prefix of 3": {
    make: () => prefixLm(3),
    js: ({ kvIdx, position }) => kvIdx < 3 || kvIdx <= position,
  },
  "prefixes on the GPU": {
    make: (integers) => prefixLm(integers([2], [5, -1])),
    js: ({ batch, kvIdx, position }) => kvIdx < [5, -1][batch] || kvIdx <= position,
  },
  "prefixes of u32": {
    make: (integers) => prefixLm(integers([2], [0, 2], "u32")),
    js: ({ batch, kvIdx, position }) => kvIdx < [0, 2][batch] || kvIdx <= position,
  },
  documents: {
    make: (integers) => documentMask(integers([9], DOCUMENTS[0])),
    js: ({ kvIdx, position }) =>
      kvIdx < 9 && position in DOCUMENTS[0] && DOCUMENTS[0][position] === DOCUMENTS[0][kvIdx],
  },
  "documents of batch entries": {
    make: (integers) => documentMask(integers([2, 9], DOCUMENTS.flat())),
    js: ({ batch, kvIdx, position }) =>
      kvIdx < 9 &&
      position in DOCUMENTS[0] &&
      DOCUMENTS[batch][position] === DOCUMENTS[batch][kvIdx],
  },
  "documents of queries": {
    make: (integers) =>
      documentMask(integers([2, 9], DOCUMENTS.flat()), integers([4], [7, 0, 1, 2])),
    js: ({ batch, qIdx, kvIdx }) =>
      kvIdx < 9 && qIdx < 4 && DOCUMENTS[batch][kvIdx] === [7, 0, 1, 2][qIdx],
  },
  "documents of queries of batch entries": {
    make: (integers) => documentMask(integers([9], DOCUMENTS[0]), integers([2, 5], range(10))),
    js: ({ batch, qIdx, kvIdx }) =>
      kvIdx < 9 && qIdx < 5 && DOCUMENTS[0][kvIdx] === batch * 5 + qIdx,
  },
  "dilated window": {
    make: () => dilatedWindow(6, 3),
    js: ({ kvIdx, position }) => [-6, -3, 0, 3, 6].includes(kvIdx - position),
  },
  "globals and a window": {
    make: () => globalWindow(2, 1, 0),
    js: ({ kvIdx, position }) =>
      kvIdx < 2 || position === 0 || position === 1 || [-1, 0].includes(kvIdx - position),
  },
  "neighborhood 3 x 3 of 5 x 4": {
    make: () => neighborhood2d(5, 4, 3),
    js: neighborhood(5, 4, 3),
    scores: [
      { M: 20, N: 20 },
      { M: 30, N: 25, offset: -3 },
    ],
  },
  "neighborhood 4 x 4 of 6 x 5": {
    make: () => neighborhood2d(6, 5, 4),
    js: neighborhood(6, 5, 4),
    scores: [{ M: 30, N: 30 }],
  },
  "neighborhood 1 x 1": {
    make: () => neighborhood2d(3, 3, 1),
    js: neighborhood(3, 3, 1),
    scores: [{ M: 9, N: 9 }],
  },
  "neighborhood of the whole grid": {
    make: () => neighborhood2d(3, 3, 3),
    js: neighborhood(3, 3, 3),
    scores: [{ M: 9, N: 9 }],
  },
  "all of causal, two windows and documents": {
    make: (integers) =>
      allOf(
        causalMask(),
        slidingWindow(5, 0),
        slidingWindow(3, 3),
        documentMask(integers([9], DOCUMENTS[0])),
      ),
    js: ({ kvIdx, position }) =>
      kvIdx <= position &&
      kvIdx >= position - 3 &&
      kvIdx < 9 &&
      DOCUMENTS[0][position] === DOCUMENTS[0][kvIdx],
  },
  "any of a window and a dilated one": {
    make: () => anyOf(slidingWindow(1, 0), dilatedWindow(8, 4)),
    js: ({ kvIdx, position }) => [-8, -4, -1, 0, 4, 8].includes(kvIdx - position),
  },
  "all of any": {
    make: () =>
      allOf(
        anyOf(slidingWindow(1, 0), slidingWindow(-1, -1)),
        anyOf(slidingWindow(0, 0), prefixLm(2)),
        causalMask(),
      ),
    js: ({ kvIdx, position }) => kvIdx <= position,
  },
  "all of nothing": { make: () => allOf(), js: () => true },
  "any of nothing": { make: () => anyOf(), js: () => false },
};

/** Calls `work` with a maker of integer tensors, which are destroyed afterwards. */
async function withIntegers(
  work: (device: GPUDevice, integers: Integers) => Promise<void>,
): Promise<void> {
  const device = await testDevice();
  const made: Tensor[] = [];
  try {
    await work(device, (shape, data, dtype = "i32") => {
      made.push(tensor(device, shape, { dtype, data }));
      return made[made.length - 1];
    });
  } finally {
    for (const used of made) used.destroy();
  }
}

const SMALL: readonly Scores[] = [
  { B: 2, H: 2, M: 9, N: 9 },
  { B: 2, M: 4, N: 9 },
  { B: 2, M: 7, N: 5, offset: -2 },
  { B: 2, M: 3, N: 12, offset: 1000 },
];

describe("a mask function says what its twin in JavaScript says", () => {
  it.each(Object.entries(TWINS))("%s", async (_, { make, js, scores = [] }) => {
    await withIntegers(async (device, integers) => {
      const mask = make(integers);
      for (const one of [...SMALL, ...scores]) {
        expect(await maskValues(device, mask, one), JSON.stringify(one)).toEqual(
          maskValuesOf(js, one),
        );
      }
    });
  });
  it("a neighborhood has as many keys for every query", () => {
    const seen = maskValuesOf(neighborhood(6, 5, 4), { M: 30, N: 30 });
    for (const row of range(30))
      expect(seen.slice(30 * row, 30 * (row + 1)).filter(Boolean)).toHaveLength(16);
  });
});

describe("the block mask of", () => {
  const large: Scores = { M: 150, N: 200 };
  const BLOCKS: Readonly<Record<string, Twin & { readonly of?: Scores }>> = {
    causal: TWINS.causal,
    "a window": {
      make: () => slidingWindow(70, 10),
      js: ({ kvIdx, position }) => position - 70 <= kvIdx && kvIdx <= position + 10,
    },
    chunks: {
      make: () => chunkMask(64),
      js: ({ kvIdx, position }) => Math.floor(kvIdx / 64) === Math.floor(position / 64),
    },
    "documents of batch entries": {
      make: (integers) =>
        documentMask(
          integers(
            [2, 200],
            range(400).map((n) => Math.floor(n / 90)),
          ),
        ),
      js: ({ batch, kvIdx, position }) =>
        Math.floor((batch * 200 + kvIdx) / 90) === Math.floor((batch * 200 + position) / 90),
      of: { B: 2, M: 200, N: 200 },
    },
    "globals and a window": {
      make: () => globalWindow(40, 30, 0),
      js: ({ kvIdx, position }) =>
        kvIdx < 40 || position < 40 || (position - 30 <= kvIdx && kvIdx <= position),
    },
    "a neighborhood": {
      make: () => neighborhood2d(16, 12, 5),
      js: neighborhood(16, 12, 5),
      of: { M: 192, N: 192 },
    },
    "any of a prefix and a window": {
      make: () => anyOf(prefixLm(10), slidingWindow(5, 5)),
      js: ({ kvIdx, position }) => kvIdx < 10 || kvIdx <= position + 5,
    },
  };
  it.each(Object.entries(BLOCKS))("%s", async (_, { make, js, of = large }) => {
    await withIntegers(async (device, integers) => {
      const { B = 1, M, N } = of;
      for (const blockSize of [
        [64, 32],
        [128, 64],
      ] as const) {
        const blocks = await createBlockMask(device, make(integers), {
          batch: B,
          seqQ: M,
          seqKv: N,
          blockSize,
        });
        const kinds = blockKindsOf(maskValuesOf(js, of), of, blockSize);
        expect(await blocks.read()).toEqual(kinds);
        expect(new Set(kinds).size).toBeGreaterThan(1);
        blocks.destroy();
      }
    });
  });
});

describe("no keys and no queries", () => {
  it("have block masks, and attention by them", async () => {
    await withIntegers(async (device, integers) => {
      const mask = allOf(causalMask(), documentMask(integers([0], [])));
      for (const [seqQ, seqKv] of [
        [3, 0],
        [0, 3],
        [0, 0],
      ]) {
        const blockMask = await createBlockMask(device, mask, { seqQ, seqKv });
        expect(await blockMask.read()).toEqual([]);
        const q = tensor(device, [1, 1, seqQ, 8]);
        const k = tensor(device, [1, 1, seqKv, 8]);
        for (const options of [{ blockMask }, { maskFunction: mask }]) {
          const { output } = await attention(q, k, k, { variant: "8x32", ...options });
          expect(Array.from(await output.read())).toEqual(new Array(seqQ * 8).fill(0));
          output.destroy();
        }
        for (const used of [q, k, blockMask]) used.destroy();
      }
    });
  });
});

describe("masks made of masks", () => {
  it("rename what is of the module, and nothing else", async () => {
    const device = await testDevice();
    const tricky = maskFunction(
      `// reach of /* a comment */ mask
struct Pair { reach: i32, position : i32 }
const limit = 3;
fn helper(pair: Pair) -> bool { let limit_1 = pair . position; return limit_1 - pair.reach <= reach - limit; }
fn mask(at: Position) -> bool { return helper(Pair(i32(at.kv_idx), at.position)); }`,
      { captures: { reach: { i32: 4 }, position: { u32: 7 } } },
    );
    const scores = { M: 12, N: 12 };
    const js: Predicate = ({ kvIdx, position }) => position - kvIdx <= 1;
    expect(await maskValues(device, tricky, scores)).toEqual(maskValuesOf(js, scores));
    for (const both of [
      allOf(tricky, tricky),
      allOf(anyOf(tricky), tricky),
      anyOf(allOf(tricky, tricky), tricky),
    ]) {
      expect(await maskValues(device, both, scores)).toEqual(maskValuesOf(js, scores));
    }
    expect(Object.keys(allOf(tricky, anyOf(tricky)).captures)).toEqual(
      ["reach_1", "position_1", "reach_2", "position_2"].map((name) => name.replace(/_2$/, "_1_2")),
    );
    expect(allOf(tricky, causalMask()).label).toBe("allOf(mask function, causalMask)");
  });
  it("report an error of the compiler in the part that has it", async () => {
    const device = await testDevice();
    const broken = maskFunction(
      "fn mask(at: Position) -> bool {\n  let x: u32 = true;\n  return far < 1u;\n}",
      {
        label: "my mask",
        captures: { far: { u32: 1 } },
      },
    );
    const mask = allOf(causalMask(), anyOf(slidingWindow(1, 1), broken));
    await expectError(
      () => createBlockMask(device, mask, { seqQ: 64, seqKv: 64 }),
      "shader",
      /^block_mask does not compile:\nmy mask:2:7: .*u32/,
    );
    const mixed = maskFunction("fn mask(at: Position) -> bool {\n  return far < 1.5;\n}", {
      label: "my mask",
      captures: { far: { u32: 1 } },
    });
    // The capture has a longer name in the part, and the column is still the author's.
    await expectError(
      () => createBlockMask(device, allOf(mixed), { seqQ: 64, seqKv: 64 }),
      "shader",
      /^block_mask does not compile:\nmy mask:2:10: /,
    );
  });
});
