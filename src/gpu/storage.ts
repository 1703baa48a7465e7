// The memory behind a tensor and its views: who owns it, and what is known of it.

import type { FoveaError } from "../errors.ts";

/** The memory behind a tensor and its views. */
export interface Storage {
  readonly buffer: GPUBuffer;
  readonly owned: boolean;
  destroyed: boolean;
  /**
   * Settles when the allocation is known to have worked; rejects with FoveaError("out-of-memory").
   */
  readonly allocated: Promise<void>;
  /** Why there is no memory, once that is known. */
  refused?: FoveaError;
  /**
   * What has to come true for the content to be right, and has not yet; of what came out false the
   * first one stays.
   */
  readonly open: Set<Promise<void>>;
  /** That one. */
  failed?: Promise<void>;
  /** The last write that has to read first. */
  writing?: Promise<void>;
  /** Plans of calls into a caller's encoder, which are freed with the memory that they write. */
  plans?: { destroy(): void }[];
}

export function storageOf(buffer: GPUBuffer, owned: boolean, allocated: Promise<void>): Storage {
  const storage: Storage = { buffer, owned, destroyed: false, allocated, open: new Set() };
  allocated.catch((error) => {
    storage.refused = error;
  });
  waitFor(storage, allocated);
  return storage;
}

/** Has the content of a memory wait for a promise. */
export function waitFor(storage: Storage, promise: Promise<void>): void {
  const { open } = storage;
  if (open.has(promise)) return;
  open.add(promise);
  promise.then(
    () => open.delete(promise),
    () => {
      // Whoever reads is told, of one failure: a memory that is written in parts may see any number
      // of them.
      const { failed, allocated } = storage;
      if (failed && open.has(failed) && promise !== allocated) open.delete(promise);
      else if (open.has(promise)) storage.failed = promise;
    },
  );
}

/** Nothing is left of what was written into the memory before. */
export function forget({ open, allocated }: Storage): void {
  for (const wait of open) if (wait !== allocated) open.delete(wait);
}

/** Frees the memory, and what lives as long. */
export function free(storage: Storage): void {
  if (storage.destroyed) return;
  storage.destroyed = true;
  if (storage.owned) storage.buffer.destroy();
  for (const plan of storage.plans ?? []) plan.destroy();
}
