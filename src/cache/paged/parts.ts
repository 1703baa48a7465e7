// What a paged cache and its batches share.

import type { CacheRotary, ResolvedNorm } from "../append_problem.ts";
import type { Ledger } from "../ledger.ts";
import type { PageMemory } from "./memory.ts";
import type { ResolvedPagedCache } from "./options.ts";
import type { PageTables } from "./pages.ts";

/** What goes away with its cache, and can be told that what the GPU knows of pages is stale. */
interface Follower {
  forget(): void;
  destroy(): void;
}

/** What a paged cache and its batches share. */
export interface PagedParts {
  readonly device: GPUDevice;
  readonly resolved: ResolvedPagedCache;
  readonly memory: PageMemory;
  readonly tables: PageTables;
  /** Through which alone the tables change. */
  readonly ledger: Ledger<PageTables>;
  readonly norm: ResolvedNorm | undefined;
  readonly rotary: CacheRotary | undefined;
  /** Those that the cache has to free. */
  readonly batches: Set<Follower>;
  /** Whether the cache was destroyed. */
  isDestroyed(): boolean;
}
