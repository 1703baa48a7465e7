// The memory behind a tensor and its views: who owns it, and whether it and its content can be
// relied on.

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
   * Promises that must resolve for the content to be right, and have not settled yet. The first one
   * that was rejected stays.
   */
  readonly open: Set<Promise<void>>;
  /** The first of these promises that was rejected. */
  failed?: Promise<void>;
  /** The last of the writes that have to read the memory first. */
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

/** Makes the content of a memory depend on a promise: if it is rejected, the content is wrong. */
export function waitFor(storage: Storage, promise: Promise<void>): void {
  const { open } = storage;
  if (open.has(promise)) return;
  open.add(promise);
  promise.then(
    () => open.delete(promise),
    () => {
      // Readers are told of one failure only: a memory that is written in parts may see any number
      // of them.
      const { failed, allocated } = storage;
      if (failed && open.has(failed) && promise !== allocated) open.delete(promise);
      else if (open.has(promise)) storage.failed = promise;
    },
  );
}

/** Forgets the failures of earlier writes, because nothing is left of what they wrote. */
export function forget({ open, allocated }: Storage): void {
  for (const wait of open) if (wait !== allocated) open.delete(wait);
}

/** Frees the memory, and the plans that live as long. */
export function free(storage: Storage): void {
  if (storage.destroyed) return;
  storage.destroyed = true;
  if (storage.owned) storage.buffer.destroy();
  for (const plan of storage.plans ?? []) plan.destroy();
}
