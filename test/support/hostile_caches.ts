// Calls of caches and of what a device is asked for, for hostile values.

import {
  attention,
  createKvCache,
  createPagedKvCache,
  type KvCacheOptions,
  type PagedKvCacheOptions,
  tensor,
} from "../../src/index.ts";
import { attention as reference, rotary as rotary64 } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { type Call, type Given, type Numbers, taken } from "./hostile.ts";

// biome-ignore lint/suspicious/noExplicitAny: what a call is given here is of no type
type Any = any;

const cpu = (shape: readonly number[], seed: number) => ({
  shape,
  data: normal(
    seed,
    shape.reduce((a, b) => a * b, 1),
  ),
});

/**
 * Whether a cache holds the rows of these tests as they are. A cache of other sizes is made, but
 * not looked at.
 */
function isPlain(options: Any): boolean {
  const { batch, kvHeads, headDim, vDim = headDim, qkNorm, dtype } = options;
  const sizes = [batch, kvHeads, headDim, vDim].map(Number); // a BigInt is a number to a cache
  return String(sizes) === "2,1,8,8" && !qkNorm && !dtype;
}

/** Options of the rows of both kinds of cache. */
const ROWS = ["vDim", "dtype", "groupSize", "rotary", "qkNorm", "label"];

export function cacheCalls(device: GPUDevice): Call[] {
  const make = (shape: readonly number[], seed: number) =>
    tensor(device, shape, { data: cpu(shape, seed).data });
  const k = make([2, 1, 2, 8], 1);
  const v = make([2, 1, 2, 8], 2);
  const q = make([2, 1, 1, 8], 3);
  /** Reads the tokens of a cache, as attention sees them. */
  const look = async (cache: Any): Promise<Numbers> =>
    taken((await attention(q, cache, { variant: "decode-4-quad" })).output);
  const contiguous = (options: Given = {}) =>
    createKvCache(device, {
      batch: 2,
      kvHeads: 1,
      headDim: 8,
      capacity: 8,
      ...options,
    } as KvCacheOptions);
  const paged = (options: Given = {}) =>
    createPagedKvCache(device, {
      entries: 2,
      kvHeads: 1,
      headDim: 8,
      pages: 4,
      pageSize: 4,
      ...options,
    } as PagedKvCacheOptions);
  const sizes = { batch: 2, kvHeads: 1, headDim: 8, capacity: 8 };
  /** Does something to a cache that has two tokens, and looks. */
  const doing = (
    name: string,
    args: Given,
    work: (cache: Any, ...given: Any[]) => unknown,
    kind = contiguous,
  ): Call => ({
    name,
    args,
    run: async (given) => {
      const cache = (await kind()) as Any;
      try {
        await cache.append(k, v);
        await work(cache, ...given);
        return await look(cache);
      } finally {
        cache.destroy();
      }
    },
    right: (changed) => tokensAfter(name, changed),
  });
  const append = (name: string, kind: typeof contiguous | typeof paged): Call => ({
    name,
    args: { k, v },
    options: {},
    names: ["counts", "q", "qOutput", "positionIds", "positionOffset", "layout", "label"],
    run: async ([k, v], options) => {
      const cache = (await kind()) as Any;
      try {
        await cache.append(k, v, options);
        return await look(cache);
      } finally {
        cache.destroy();
      }
    },
    right: (_, { counts = 2 }) => attended(counts),
  });
  const attended = (counts: unknown, rotated = false): Numbers => {
    const each =
      typeof counts === "number"
        ? [counts, counts]
        : Array.from(counts as ArrayLike<number>, Number);
    const keys = cpu([2, 1, 2, 8], 1);
    const turned = rotated
      ? { ...keys, data: rotary64(keys, { position: (_stream, _batch, row) => row }) }
      : keys;
    return reference(cpu([2, 1, 1, 8], 3), turned, cpu([2, 1, 2, 8], 2), { kvLengths: each })
      .output;
  };
  /** Returns what attention gives once entry `to` has got the first tokens of entry `from`. */
  const forked = ({ from, to, tokens = 2 }: Any): Numbers => {
    const entries = [0, 1].map((entry) => (entry === to ? from : entry));
    const of = (x: ReturnType<typeof cpu>) => ({
      shape: x.shape,
      data: entries.flatMap((entry) => Array.from(x.data.slice(16 * entry, 16 * entry + 16))),
    });
    const kvLengths = [0, 1].map((entry) => (entry === to ? tokens : 2));
    return reference(cpu([2, 1, 1, 8], 3), of(cpu([2, 1, 2, 8], 1)), of(cpu([2, 1, 2, 8], 2)), {
      kvLengths,
    }).output;
  };
  const tokensAfter = (name: string, given: Given): Numbers => {
    const { lengths, entry, length } = given as Any;
    if (name.startsWith("truncate of"))
      return attended([0, 1].map((e) => (e === Number(entry) ? Math.min(2, Number(length)) : 2)));
    return attended(
      typeof lengths === "number"
        ? Math.min(lengths, 2)
        : Array.from(lengths as ArrayLike<number>, (n) => Math.min(2, Number(n))),
    );
  };
  return [
    {
      name: "createKvCache",
      args: { device },
      options: sizes,
      names: [...ROWS, "maxCapacity", "window", "ring", "sinkTokens"],
      run: async ([device], options) => {
        const cache = await createKvCache(device as GPUDevice, options as KvCacheOptions);
        try {
          if (!isPlain(options)) return [0];
          await cache.append(k, v);
          return await look(cache);
        } finally {
          cache.destroy();
        }
      },
      right: (_, options) => (isPlain(options) ? attended(2, options.rotary !== undefined) : [0]),
    },
    {
      name: "createPagedKvCache",
      args: { device },
      options: { entries: 2, kvHeads: 1, headDim: 8, pages: 4, pageSize: 4 },
      names: [...ROWS, "maxTokens"],
      run: async ([device], options) => {
        const cache = await createPagedKvCache(device as GPUDevice, options as PagedKvCacheOptions);
        cache.destroy();
        return [1];
      },
    },
    append("append", contiguous),
    append("append of pages", paged),
    doing("truncate", { lengths: 1 }, (cache, lengths) => cache.truncate(lengths)),
    doing(
      "truncate of an entry",
      { entry: 1, length: 1 },
      (cache, entry, length) => cache.truncate(entry, length),
      paged as Any,
    ),
    {
      ...doing("grow", { capacity: 16 }, (cache, capacity) => cache.grow(capacity)),
      right: () => attended(2),
    },
    {
      ...doing("forkEntry", { from: 0, to: 1, tokens: 2 }, (cache, ...given) =>
        cache.forkEntry(...given),
      ),
      right: forked,
    },
    {
      ...doing(
        "fork of pages",
        { from: 0, to: 1, tokens: 2 },
        (cache, ...given) => {
          cache.free(1);
          cache.fork(...given);
        },
        paged as Any,
      ),
      right: forked,
    },
    {
      ...doing("free", { entry: 1 }, (cache, entry) => cache.free(entry), paged as Any),
      right: ({ entry }) => attended([0, 1].map((e) => (e === Number(entry) ? 0 : 2))),
    },
    {
      ...doing(
        "batch",
        { entries: [0, 1] },
        async (cache, entries) => (await cache.batch(entries)).destroy(),
        paged as Any,
      ),
      right: () => attended(2),
    },
    {
      name: "fork",
      options: { lengths: 1 },
      names: ["label"],
      run: async (_, options) => {
        const cache = await contiguous();
        try {
          await cache.append(k, v);
          const other = await cache.fork(options as object);
          try {
            return await look(other);
          } finally {
            other.destroy();
          }
        } finally {
          cache.destroy();
        }
      },
      right: (_, { lengths = 2 }) => tokensAfter("fork", { lengths }),
    },
  ];
}
