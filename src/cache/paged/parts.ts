// The parts that a paged cache and its batches share.

import type { CacheRotary, ResolvedNorm } from "../append_problem.ts";
import type { Ledger } from "../ledger.ts";
import type { PageMemory } from "./memory.ts";
import type { ResolvedPagedCache } from "./options.ts";
import type { PageTables } from "./pages.ts";

/**
 * An object that is destroyed with its cache, and that can be told that the GPU's page tables are
 * stale.
 */
interface Follower {
  forget(): void;
  destroy(): void;
}

/** The parts that a paged cache and its batches share. */
export interface PagedParts {
  readonly device: GPUDevice;
  readonly resolved: ResolvedPagedCache;
  readonly memory: PageMemory;
  readonly tables: PageTables;
  /** The ledger; tables change only through it. */
  readonly ledger: Ledger<PageTables>;
  readonly norm: ResolvedNorm | undefined;
  readonly rotary: CacheRotary | undefined;
  /** The batches that the cache has to free. */
  readonly batches: Set<Follower>;
  /** Whether the cache was destroyed. */
  isDestroyed(): boolean;
}
