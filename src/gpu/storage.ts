// The memory behind a tensor and its views: who owns it, and what is known of it.

import type { FoveaError } from "../errors.ts";

/** The memory behind a tensor and its views. */
export interface Storage {
  readonly buffer: GPUBuffer;
  readonly owned: boolean;
  destroyed: boolean;
  /** Settles when the allocation is known to have worked; rejects with FoveaError("out-of-memory"). */
  readonly allocated: Promise<void>;
  /** Why there is no memory, once that is known. */
  refused?: FoveaError;
  /** What has to come true for the content to be right, and has not yet; what came out false stays. */
  readonly open: Set<Promise<void>>;
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
export function waitFor({ open }: Storage, promise: Promise<void>): void {
  if (open.has(promise)) return;
  open.add(promise);
  promise.then(
    () => open.delete(promise),
    () => {}, // whoever reads is told
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
