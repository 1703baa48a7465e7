// Caches whose rows lie one after the other: whole lives of many caches, and a long life of one.

import {
  attention,
  createKvCache,
  type KvCache,
  type KvCacheOptions,
  planAttention,
  tensor,
} from "../../src/index.ts";
import { drop, type Lab, type LeakCase, rejected, runPlan } from "./lab.ts";

const OPTIONS: KvCacheOptions = { batch: 2, kvHeads: 2, headDim: 8, capacity: 12 };
const NEW = [2, 2, 3, 8];

const kept = async (lab: Lab, options: KvCacheOptions = OPTIONS): Promise<KvCache> =>
  lab.keep(await createKvCache(lab.device, options));

export const CACHE_CASES: readonly LeakCase[] = [
  {
    name: "caches: make, append, attend, destroy",
    start: (lab) => {
      const k = lab.rows(NEW);
      const kinds: KvCacheOptions[] = [
        OPTIONS,
        { ...OPTIONS, dtype: "int8", rotary: {}, qkNorm: {} },
        { batch: 2, kvHeads: 2, headDim: 8, dtype: "f16", window: 4, ring: 7, sinkTokens: 2 },
      ];
      return async (n) => {
        const cache = await createKvCache(lab.device, kinds[n % kinds.length]);
        await cache.append(k, k);
        const { window } = kinds[n % kinds.length];
        drop(await attention(k, cache, { causal: true, ...(window && { window: [window, 0] }) }));
        cache.destroy();
      };
    },
  },
  {
    name: "caches: memory refused to a new one",
    start: (lab) => async (n) => {
      let made = 0;
      const nth = () => made++ === n % 5;
      await rejected("out-of-memory", () =>
        lab.without(() => createKvCache(lab.device, { ...OPTIONS, rotary: {} }), nth),
      );
    },
  },
  {
    name: "caches: one that is appended to, attended and truncated",
    start: async (lab) => {
      const cache = await kept(lab);
      const k = lab.rows(NEW);
      return async (n) => {
        await cache.append(k, k, { counts: [n % 4, 3] });
        drop(await attention(k, cache, { causal: true }));
        await cache.truncate([0, n % 3]);
      };
    },
  },
  {
    name: "caches: calls that nobody awaits",
    start: async (lab) => {
      const cache = await kept(lab);
      const k = lab.rows(NEW);
      return async () => {
        const calls = [
          cache.append(k, k),
          cache.truncate(1),
          cache.append(k, k),
          attention(k, cache),
          cache.reset(),
        ];
        const results = await Promise.all(calls);
        for (const one of results) if (one) drop(one);
      };
    },
  },
  {
    name: "caches: new tensors, labels and lengths each time",
    start: async (lab) => {
      const cache = await kept(lab);
      return async (n) => {
        const k = tensor(lab.device, [2, 2, 1 + (n % 11), 8]);
        await cache.append(k, k, { label: `append ${n}` });
        await cache.reset();
        k.destroy();
      };
    },
  },
  {
    name: "caches: rejected appends",
    start: async (lab) => {
      const cache = await kept(lab);
      const k = lab.rows(NEW);
      const long = lab.rows([2, 2, 13, 8]);
      const gone = lab.rows(NEW);
      gone.destroy();
      return async () => {
        await rejected("limit", () => cache.append(long, long));
        await rejected("destroyed", () => cache.append(k, gone));
        await rejected("argument", () => cache.append(k, k, { counts: [4, 4] }));
        const refused = lab.refused(NEW);
        await rejected("out-of-memory", () => cache.append(refused, k));
        refused.destroy();
        if (cache.lengths.some((length) => length > 0))
          throw new Error("a rejected append has counted tokens");
      };
    },
  },
  {
    name: "caches: appends whose copies or plans get no memory",
    start: async (lab) => {
      const cache = await kept(lab);
      return async (n) => {
        const k = tensor(lab.device, [2, 2, 1 + (n % 11), 8]);
        await rejected("out-of-memory", () => lab.without(() => cache.append(k, k)));
        k.destroy();
      };
    },
  },
  {
    name: "caches: attention that is rejected",
    start: async (lab) => {
      const cache = await kept(lab);
      const k = lab.rows(NEW);
      const gone = lab.rows(NEW);
      gone.destroy();
      return async () => {
        await rejected("argument", () => attention(k, cache, { is_causal: true } as never));
        await rejected("destroyed", () => attention(gone, cache));
        await rejected("out-of-memory", () =>
          lab.without(() => attention(k, cache, { causal: true })),
        );
      };
    },
  },
  {
    name: "caches: plans",
    start: async (lab) => {
      const cache = await kept(lab);
      const k = lab.rows(NEW);
      const output = lab.rows(NEW);
      return async () => {
        runPlan(lab.device, await cache.planAppend({ k, v: k }), {});
        runPlan(lab.device, await planAttention(lab.device, { q: k, cache, causal: true }), {
          output,
        });
        await rejected("argument", () => cache.planAppend({ k, v: k.slice(2, 0, 1) }));
        await rejected("out-of-memory", () => lab.without(() => cache.planAppend({ k, v: k })));
        await cache.reset();
      };
    },
  },
  {
    name: "caches: fork, forkEntry, reorder, grow",
    start: async (lab) => {
      const cache = await kept(lab);
      const k = lab.rows(NEW);
      await cache.append(k, k);
      return async () => {
        const fork = await cache.fork({ lengths: 2 });
        await fork.append(k, k);
        await fork.grow(20);
        await fork.reorder([1, 0]);
        await fork.forkEntry(0, 1);
        await rejected("out-of-memory", () => lab.without(() => fork.fork()));
        await rejected("out-of-memory", () => lab.without(() => fork.grow(40)));
        fork.destroy();
      };
    },
  },
];
