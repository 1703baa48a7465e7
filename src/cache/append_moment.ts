// The meaning of an append at the moment of its call: which entries get tokens, and when it runs
// among the other calls of a cache.

/**
 * Takes room for so many more tokens of each entry and adds them to the lengths. Throws FoveaError,
 * whose message `label` begins, if there is no room. Gives commands that must be recorded before
 * the rows are written.
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
   * Runs `work`, which encodes, at once. If it throws, the room is given back. Throws FoveaError
   * while calls wait.
   */
  now(label: string, work: (take: TakeRoom) => void): void;
  /**
   * Runs `work` after the calls before it, at once if there are none. If it rejects, the room is
   * given back, and so is memory that the cache grew by.
   */
  call(
    label: string,
    counts: readonly number[],
    work: (take: TakeRoom, makeRoom: () => Promise<void>) => Promise<void>,
  ): Promise<void>;
}
