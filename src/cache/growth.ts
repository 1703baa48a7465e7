// Appends to a cache that may have to grow for them.

import type { AppendMoment } from "./append_moment.ts";
import type { Ledger, Turn } from "./ledger.ts";
import type { CacheLengths } from "./lengths.ts";

/** New memory that replaces the old one, until it is known which of the two stays. */
export interface Growth {
  keep(): void;
  undo(): void;
}

/** The methods of a cache that grows, for appends. */
interface Grower {
  /**
   * The capacity to grow to for so many more tokens; undefined if the cache need not or may not
   * grow.
   */
  roomFor(counts: readonly number[]): number | undefined;
  /** Makes memory for more tokens; undefined if the cache has that capacity already. */
  grow(turn: Turn<CacheLengths>, capacity: number): Promise<Growth | undefined>;
}

/** Counts new tokens. There is nothing to record. */
function counted(tokens: CacheLengths, label: string, counts: readonly number[]): undefined {
  tokens.append(label, counts);
}

/**
 * The meaning of an append that is called now. If it is rejected, memory that it took is given
 * back.
 */
export function growingMoment(
  ledger: Ledger<CacheLengths>,
  { roomFor, grow }: Grower,
): AppendMoment {
  return {
    isReady: (counts) => ledger.isIdle && roomFor(counts) === undefined,
    now: (label, work) =>
      ledger.now(label, (tokens) => {
        work((what, counts) => counted(tokens, what, counts));
      }),
    call: (label, counts, work) =>
      ledger.call(
        async (turn) => {
          let growth: Growth | undefined;
          const makeRoom = async () => {
            const capacity = roomFor(counts);
            if (capacity !== undefined) growth = await grow(turn, capacity);
          };
          try {
            await work(
              (what, most) => turn.apply((tokens) => counted(tokens, what, most)),
              makeRoom,
            );
          } catch (error) {
            growth?.undo();
            throw error;
          }
          growth?.keep();
        },
        (tokens) => tokens.append(label, counts, tokens.maxCapacity),
      ),
  };
}
