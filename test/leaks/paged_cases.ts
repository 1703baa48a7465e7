// Caches in pages, and batches of them.

import {
  attention,
  createPagedKvCache,
  type PagedKvCache,
  type PagedKvCacheOptions,
} from "../../src/index.ts";
import { drop, type Lab, type LeakCase, rejected } from "./lab.ts";

const OPTIONS: PagedKvCacheOptions = {
  entries: 4,
  kvHeads: 2,
  headDim: 8,
  pages: 8,
  pageSize: 4,
  maxTokens: 12,
};
const NEW = [2, 2, 3, 8];

const kept = async (lab: Lab): Promise<PagedKvCache> =>
  lab.keep(await createPagedKvCache(lab.device, OPTIONS));

export const PAGED_CASES: readonly LeakCase[] = [
  {
    name: "pages: make, append, attend, destroy",
    start: (lab) => {
      const k = lab.rows(NEW);
      return async (n) => {
        const cache = await createPagedKvCache(lab.device, {
          ...OPTIONS,
          ...(n % 2 && { dtype: "int4", rotary: {} }),
        });
        const batch = await cache.batch([3, 1]);
        await batch.append(k, k, { counts: [n % 4, 3] });
        drop(await attention(k, batch, { causal: true }));
        if (n % 3) batch.destroy();
        cache.destroy();
      };
    },
  },
  {
    name: "pages: memory refused to a new cache or batch",
    start: async (lab) => {
      const cache = await kept(lab);
      return async (n) => {
        let made = 0;
        const nth = () => made++ === n % 5;
        await rejected("out-of-memory", () =>
          lab.without(() => createPagedKvCache(lab.device, { ...OPTIONS, rotary: {} }), nth),
        );
        await rejected("out-of-memory", () => lab.without(() => cache.batch([0, 1])));
      };
    },
  },
  {
    name: "pages: sequences come, fork and go",
    start: async (lab) => {
      const cache = await kept(lab);
      const k = lab.rows(NEW);
      const batch = lab.keep(await cache.batch([0, 1]));
      return async (n) => {
        await batch.append(k, k, { counts: [1 + (n % 3), 2] });
        cache.fork(0, 2);
        batch.select([2, 1]);
        await batch.append(k, k, { counts: [1, 1] });
        drop(await attention(k, batch, { causal: true }));
        batch.reorder([1, 1]);
        cache.truncate(2, 1);
        cache.resync();
        batch.select([0, 1]);
        for (const entry of [0, 1, 2]) cache.free(entry);
        if (cache.freePages !== 8) throw new Error("pages were lost");
      };
    },
  },
  {
    name: "pages: batches that come and go",
    start: async (lab) => {
      const cache = await kept(lab);
      const k = lab.rows(NEW);
      return async (n) => {
        const batch = await cache.batch([n % 4, (n + 1) % 4]);
        await batch.append(k, k);
        drop(await attention(k, batch));
        cache.free(n % 4);
        cache.free((n + 1) % 4);
        batch.destroy();
      };
    },
  },
  {
    name: "pages: calls that nobody awaits",
    start: async (lab) => {
      const cache = await kept(lab);
      const k = lab.rows(NEW);
      const batch = lab.keep(await cache.batch([0, 1]));
      return async () => {
        const first = batch.append(k, k);
        cache.fork(0, 2);
        batch.select([2, 1]);
        const second = batch.append(k, k);
        const third = attention(k, batch);
        cache.free(0);
        cache.free(1);
        cache.free(2);
        batch.select([0, 1]);
        await Promise.all([first, second]);
        drop(await third);
      };
    },
  },
  {
    name: "pages: rejected calls",
    start: async (lab) => {
      const cache = await kept(lab);
      const k = lab.rows(NEW);
      const long = lab.rows([2, 2, 13, 8]);
      const gone = lab.rows(NEW);
      gone.destroy();
      const batch = lab.keep(await cache.batch([0, 1]));
      const all = lab.rows([4, 2, 12, 8]);
      return async () => {
        await rejected("limit", () => batch.append(long, long));
        await rejected("limit", () => cache.append(all, all)); // more pages than there are
        await rejected("destroyed", () => batch.append(k, gone));
        await rejected("argument", () => cache.fork(0, 9));
        await rejected("argument", () => batch.select([0, 1, 2]));
        const refused = lab.refused(NEW);
        await rejected("out-of-memory", () => batch.append(refused, k));
        await rejected("out-of-memory", () =>
          lab.without(() => attention(k, batch, { kvSplits: 2 })),
        );
        refused.destroy();
        if (cache.freePages !== 8) throw new Error("a rejected call has taken pages");
      };
    },
  },
];
