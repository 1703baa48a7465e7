// What an append means at the moment of its call: whose tokens it adds, and when it runs among the
// other calls of a cache.

/**
 * Takes the room for so many tokens more of each entry and counts the lengths up. Throws
 * FoveaError, whose message `label` begins, if there is none. Gives what must be recorded before
 * rows are written there.
 */
export type TakeRoom = (
  label: string,
  counts: readonly number[],
) => ((pass: GPUComputePassEncoder) => void) | undefined;

/** The entries of a cache that an append is about, and its place among the calls. */
export interface AppendMoment {
  /** Whether no call waits or runs, and there is room without growing. */
  isReady(counts: readonly number[]): boolean;
  /**
   * Encodes at once. If `work` throws, the room is given back. Throws FoveaError while calls wait.
   */
  now(label: string, work: (take: TakeRoom) => void): void;
  /**
   * Runs `work` once the calls before it are done, at once if there are none. If it rejects, the
   * room is given back, and memory that `makeRoom` made, if the cache grows by itself.
   */
  call(
    label: string,
    counts: readonly number[],
    work: (take: TakeRoom, makeRoom: () => Promise<void>) => Promise<void>,
  ): Promise<void>;
}
