// Draws which keys a row of the reference sees: x is a key seen, . a key not seen.

import { describe, expect, it } from "vitest";
import {
  attention,
  type ReferenceOptions,
  type ReferencePosition,
} from "../../src/reference/index.ts";
import { close, seen, tensor, zeros } from "./hand.ts";

// Three queries at the end of five keys: p = 2, 3, 4.
const M3N5 = { M: 3, N: 5 };
const EMPTY = Number.NEGATIVE_INFINITY;

describe("window", () => {
  it("reaches to the left and to the right of the query's position", () => {
    expect(seen(M3N5, { window: [1, 0] })).toEqual([".xx..", "..xx.", "...xx"]);
    expect(seen(M3N5, { window: [1, 1] })).toEqual([".xxx.", "..xxx", "...xx"]);
    expect(seen(M3N5, { window: [0, 0] })).toEqual(["..x..", "...x.", "....x"]);
  });

  it("is unbounded on a side of -1", () => {
    expect(seen(M3N5, { window: [-1, 0] })).toEqual(seen(M3N5, { causal: true }));
    expect(seen(M3N5, { window: [0, -1] })).toEqual(["..xxx", "...xx", "....x"]);
    expect(seen(M3N5, { window: [-1, -1] })).toEqual(["xxxxx", "xxxxx", "xxxxx"]);
  });

  it("goes by the alignment, the offset and the used keys, causal or not", () => {
    expect(seen(M3N5, { window: [1, 1], causal: "top-left" })).toEqual(["x....", "xx...", ".xx.."]);
    expect(seen(M3N5, { window: [1, 1], queryOffset: 0 })).toEqual(["xx...", "xxx..", ".xxx."]);
    expect(seen(M3N5, { window: [1, 1], kvLengths: [4] })).toEqual(["xxx..", ".xxx.", "..xx."]);
    expect(seen(M3N5, { window: [2, 2], causal: true })).toEqual(["xxx..", ".xxx.", "..xxx"]);
  });

  it("leaves rows without a key beyond both ends", () => {
    expect(seen(M3N5, { window: [1, 0], queryOffset: -2 })).toEqual([".....", ".....", "x...."]);
    expect(seen(M3N5, { window: [1, 0], queryOffset: 4 })).toEqual(["...xx", "....x", "....."]);
    expect(seen(M3N5, { window: [0, -1], queryOffset: -9 })).toEqual(["xxxxx", "xxxxx", "xxxxx"]);
  });

  it("costs what it shows: the other keys are not visited", () => {
    const untouchable = new Proxy([1, 2, 3], {
      get(target, name) {
        if (name === "0" || name === "2") throw new Error(`key ${name} was read`);
        return Reflect.get(target, name);
      },
    });
    const keys = tensor([1, 1, 3, 1], untouchable);
    close(attention(zeros(1, 1, 1, 1), keys, keys, { window: [0, 0], queryOffset: 1 }).output, [2]);
  });
});

describe("sinkTokens", () => {
  it("are seen before window and chunk, but not ahead of the query", () => {
    expect(seen(M3N5, { window: [0, 0], sinkTokens: 1 })).toEqual(["x.x..", "x..x.", "x...x"]);
    expect(seen(M3N5, { window: [1, 0], sinkTokens: 2 })).toEqual(["xxx..", "xxxx.", "xx.xx"]);
    expect(seen(M3N5, { attentionChunk: 2, causal: true, sinkTokens: 1 })).toEqual([
      "x.x..",
      "x.xx.",
      "x...x",
    ]);
    expect(seen(M3N5, { causal: "top-left", window: [0, -1], sinkTokens: 9 })).toEqual([
      "x....",
      "xx...",
      "xxx..",
    ]);
    expect(seen(M3N5, { queryOffset: -1, window: [0, 0], sinkTokens: 1 })).toEqual([
      ".....",
      "x....",
      "xx...",
    ]);
    expect(seen(M3N5, { queryOffset: 7, window: [0, 0], sinkTokens: 1 })).toEqual([
      "x....",
      "x....",
      "x....",
    ]);
  });
});

describe("attentionChunk", () => {
  it("cuts positions into chunks, the first at 0", () => {
    expect(seen(M3N5, { attentionChunk: 2 })).toEqual(["..xx.", "..xx.", "....x"]);
    expect(seen(M3N5, { attentionChunk: 3 })).toEqual(["xxx..", "...xx", "...xx"]);
    expect(seen(M3N5, { attentionChunk: 1 })).toEqual(["..x..", "...x.", "....x"]);
    expect(seen(M3N5, { attentionChunk: 100 })).toEqual(["xxxxx", "xxxxx", "xxxxx"]);
    expect(seen(M3N5, { attentionChunk: 3, causal: true })).toEqual(["xxx..", "...x.", "...xx"]);
    expect(seen(M3N5, { attentionChunk: 3, window: [1, 0] })).toEqual([".xx..", "...x.", "...xx"]);
  });

  it("rounds negative positions down, so that none of them shares the chunk of key 0", () => {
    // p = -2, -1, 0
    expect(seen(M3N5, { attentionChunk: 2, queryOffset: -2 })).toEqual([".....", ".....", "xx..."]);
    expect(seen(M3N5, { attentionChunk: 4, queryOffset: -2 })).toEqual([".....", ".....", "xxxx."]);
  });
});

describe("qLengths", () => {
  it("ends the used queries, which align a causal mask", () => {
    const two = { B: 2, M: 3, N: 4 };
    expect(seen(two, { qLengths: [1, 0] })).toEqual([
      "xxxx",
      "....",
      "....",
      "....",
      "....",
      "....",
    ]);
    expect(seen(two, { qLengths: [2, 3], kvLengths: [3, 4], causal: true })).toEqual([
      "xx..",
      "xxx.",
      "....",
      "xx..",
      "xxx.",
      "xxxx",
    ]);
    expect(seen(two, { qLengths: [9, -1] })).toEqual([
      "xxxx",
      "xxxx",
      "xxxx",
      "....",
      "....",
      "....",
    ]);
  });
});

describe("mask", () => {
  it("shows the keys of its non-zero elements, broadcast along axes of size 1", () => {
    const sizes = { B: 2, H: 2, M: 1, N: 3 };
    expect(seen(sizes, { mask: tensor([1, 1, 1, 3], [1, 0, 7]) })).toEqual([
      "x.x",
      "x.x",
      "x.x",
      "x.x",
    ]);
    expect(seen(sizes, { mask: tensor([2, 1, 1, 3], [1, 0, 1, 0, 0, 0]) })).toEqual([
      "x.x",
      "x.x",
      "...",
      "...",
    ]);
    expect(seen(sizes, { mask: tensor([1, 2, 1, 1], [0, 1]) })).toEqual([
      "...",
      "xxx",
      "...",
      "xxx",
    ]);
    expect(seen({ M: 2, N: 2 }, { mask: tensor([1, 1, 2, 1], [1, 0]) })).toEqual(["xx", ".."]);
  });

  it("reads strides and an offset, and joins other masks", () => {
    const mask = {
      data: [9, 1, 0, 0, 1, 1, 1],
      shape: [1, 1, 2, 3],
      strides: [0, 0, 1, 2],
      offset: 1,
    };
    expect(seen({ M: 2, N: 3 }, { mask })).toEqual(["x.x", ".xx"]);
    expect(seen({ M: 2, N: 3 }, { mask, causal: true })).toEqual(["x..", ".xx"]);
    expect(seen({ M: 2, N: 3 }, { mask, window: [0, -1] })).toEqual(["..x", "..x"]);
  });
});

describe("maskFunction", () => {
  it("is asked about keys that the other masks leave", () => {
    const asked: ReferencePosition[] = [];
    const maskFunction = (at: ReferencePosition) => {
      asked.push(at);
      return at.kvIdx > 0;
    };
    expect(seen({ M: 1, N: 3 }, { maskFunction, queryOffset: 5, kvLengths: [2] })).toEqual([".x."]);
    expect(asked).toEqual([
      { batch: 0, head: 0, qIdx: 0, kvIdx: 0, position: 5 },
      { batch: 0, head: 0, qIdx: 0, kvIdx: 1, position: 5 },
    ]);
    expect(
      seen({ B: 2, H: 2, M: 1, N: 1 }, { maskFunction: ({ batch, head }) => batch !== head }),
    ).toEqual([".", "x", "x", "."]);
  });
});

describe("every mask", () => {
  // Key 1 of three is the only one seen, and the only one without NaN.
  const bias = tensor([1, 1, 1, 3], [EMPTY, 0, EMPTY]);
  const kinds: Record<string, ReferenceOptions> = {
    window: { window: [0, 0], queryOffset: 1 },
    chunk: { attentionChunk: 1, queryOffset: 1 },
    mask: { mask: tensor([1, 1, 1, 3], [0, 1, 0]) },
    bias: { bias },
    maskFunction: { maskFunction: ({ kvIdx }) => kvIdx === 1 },
  };
  it.each(Object.entries(kinds))(
    "%s hides NaN and wins over biases and functions",
    (_, options) => {
      const poisoned = tensor([1, 1, 3, 1], [Number.NaN, 5, Number.POSITIVE_INFINITY]);
      const q = tensor([1, 1, 1, 1], [1]);
      close(attention(q, poisoned, poisoned, options).output, [5]);
      const everything: ReferenceOptions = {
        softcap: 3,
        sinks: [EMPTY],
        alibiSlopes: [2],
        scoreFunction: () => 1e6,
      };
      close(attention(q, poisoned, poisoned, { ...everything, ...options }).output, [5]);
    },
  );

  const none: Record<string, ReferenceOptions> = {
    lengths: { kvLengths: [0] },
    causal: { causal: true, queryOffset: -9 },
    window: { window: [0, 0], queryOffset: 9 },
    chunk: { attentionChunk: 2, queryOffset: -1 },
    mask: { mask: tensor([1, 1, 1, 1], [0]) },
    bias: { bias: tensor([1, 1, 1, 1], [EMPTY]) },
    maskFunction: { maskFunction: () => false },
  };
  it.each(Object.entries(none))("%s can leave a row empty, but for its sink", (_, options) => {
    const poisoned = tensor([1, 1, 3, 1], [Number.NaN, Number.NaN, Number.NaN]);
    const q = tensor([1, 1, 1, 1], [1]);
    for (const precision of ["f64", "f32"] as const) {
      const plain = attention(q, poisoned, poisoned, { ...options, precision });
      expect(plain).toEqual({
        output: Float64Array.of(0),
        lse: Float64Array.of(EMPTY),
        rowMax: Float64Array.of(EMPTY),
      });
      const sink = attention(q, poisoned, poisoned, { ...options, precision, sinks: [3] });
      expect(sink).toEqual({
        output: Float64Array.of(0),
        lse: Float64Array.of(3),
        rowMax: Float64Array.of(EMPTY),
      });
    }
  });
});
