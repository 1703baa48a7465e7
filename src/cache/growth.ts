// Appends to a cache that may have to grow for them.

import type { AppendMoment } from "./append_moment.ts";
import type { Ledger, Turn } from "./ledger.ts";
import type { CacheLengths } from "./lengths.ts";

/** Memory in place of other memory, until it is known which of them stays. */
export interface Growth {
  keep(): void;
  undo(): void;
}

/** What a cache that grows does for appends. */
interface Grower {
  /** The capacity to grow to for so many tokens more; undefined if there is no need or no way. */
  roomFor(counts: readonly number[]): number | undefined;
  /** Takes memory for more tokens; undefined if the cache has that capacity. */
  grow(turn: Turn<CacheLengths>, capacity: number): Promise<Growth | undefined>;
}

/** Counts new tokens; nothing is left to record. */
function counted(tokens: CacheLengths, label: string, counts: readonly number[]): undefined {
  tokens.append(label, counts);
}

/** What an append means that is called now; memory that it took is given back if it is rejected. */
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
