// Runs the calls of a cache in the order in which they were made, and takes back what a rejected
// call did to the bookkeeping.

import { check } from "../errors.ts";

/** Bookkeeping on the host that can be given back. */
export interface Journaled<Self> {
  /** Begins changes that can be taken back. */
  begin(): void;
  /** Keeps all changes since `begin`. */
  commit(): void;
  /** Takes back all changes since `begin`. */
  rollBack(): void;
  /** A copy of the present state, in which no change can be taken back. */
  clone(): Self;
}

/** The turn of a call. */
export interface Turn<State> {
  /** Changes the bookkeeping. The change is taken back if the call is rejected later. */
  apply<T>(change: (state: State) => T): T;
}

interface Call<State> {
  /** What the call will do to the bookkeeping, for calls that ask before its turn. */
  readonly effect: (state: State) => void;
  /** Whether the bookkeeping has the effect already. */
  applied: boolean;
  /**
   * Why the call will be refused. This was found out before its turn, and other calls rely on it.
   */
  refused: { readonly error: unknown } | undefined;
}

/**
 * Runs the calls of a cache one after the other. The bookkeeping changes here and nowhere else: all
 * changes of a call that throws or is rejected are taken back before the next one begins.
 *
 * While calls wait, `projected` is the bookkeeping as it will be after them. Synchronous changes
 * are checked against it and wait behind them.
 */
export class Ledger<State extends Journaled<State>> {
  readonly #label: string;
  readonly #state: State;
  readonly #calls: Call<State>[] = [];
  #tail: Promise<unknown> = Promise.resolve();
  #projected: State | undefined;

  constructor(label: string, state: State) {
    this.#label = label;
    this.#state = state;
  }

  /** Whether no call waits or runs. */
  get isIdle(): boolean {
    return this.#calls.length === 0;
  }

  /** The bookkeeping after all calls that were made. */
  get projected(): State {
    if (this.isIdle) return this.#state;
    if (!this.#projected) {
      const projected = this.#state.clone();
      for (const call of this.#calls) {
        if (call.applied || call.refused) continue;
        project(projected, call);
      }
      this.#projected = projected;
    }
    return this.#projected;
  }

  /**
   * Throws FoveaError("argument") while calls wait, because commands that are encoded now would run
   * before them.
   */
  checkIdle(label: string): void {
    const { length } = this.#calls;
    check(
      length === 0,
      "argument",
      () =>
        `${label}: ${length} calls of ${this.#label} are not done yet, and what is encoded now would run before them. Await append(), truncate(), attention() and the like before you encode.`,
    );
  }

  /**
   * Changes the bookkeeping while commands are encoded. If `change` throws, nothing has changed.
   */
  now<T>(label: string, change: (state: State) => T): T {
    this.checkIdle(label);
    return this.#transaction(change);
  }

  /**
   * Changes the bookkeeping in the order of the calls. Throws, and then changes nothing, if that is
   * not possible after all calls that were made before.
   *
   * @param later The change if calls before it were rejected meanwhile, which must not throw
   * @param needs What the change relies on. With `"refusals"`, a call before it that finds no room
   *   is refused for good, even if another one is rejected and leaves it room. Default: nothing.
   */
  change(
    exact: (state: State) => void,
    later = exact,
    needs: "refusals" | undefined = undefined,
  ): void {
    if (this.isIdle) {
      this.#transaction(exact);
      return;
    }
    const { projected } = this;
    exact(projected);
    if (needs === "refusals") {
      const alone = this.#state.clone();
      for (const call of this.#calls) {
        if (!call.applied && !call.refused) call.refused = project(alone, call);
      }
    }
    void this.call(async (turn) => turn.apply(later), later);
    this.#projected = projected;
  }

  /**
   * Runs a call after those before it, at once if there are none.
   *
   * @param effect What it does to the bookkeeping, which may throw if it is going to be rejected
   */
  call<T>(
    work: (turn: Turn<State>) => Promise<T>,
    effect: (state: State) => void = () => {},
  ): Promise<T> {
    const call: Call<State> = { effect, applied: false, refused: undefined };
    const waits = !this.isIdle;
    this.#calls.push(call);
    this.#projected = undefined;
    const run = () => this.#run(call, work);
    const done = waits ? this.#tail.then(run) : run();
    this.#tail = done.catch(() => {});
    return done;
  }

  async #run<T>(call: Call<State>, work: (turn: Turn<State>) => Promise<T>): Promise<T> {
    const state = this.#state;
    const apply: Turn<State>["apply"] = (change) => {
      this.#projected = undefined;
      try {
        const result = change(state);
        call.applied = true;
        return result;
      } catch (error) {
        call.refused = { error };
        state.rollBack();
        state.begin();
        throw error;
      }
    };
    state.begin();
    try {
      if (call.refused) throw call.refused.error;
      const result = await work({ apply });
      state.commit();
      return result;
    } catch (error) {
      state.rollBack();
      throw error;
    } finally {
      this.#calls.shift();
      this.#projected = undefined;
    }
  }

  #transaction<T>(change: (state: State) => T): T {
    const state = this.#state;
    state.begin();
    try {
      const result = change(state);
      state.commit();
      return result;
    } catch (error) {
      state.rollBack();
      throw error;
    }
  }
}

/** Does to the bookkeeping what a call will do. If the call will be refused, gives the reason. */
function project<State extends Journaled<State>>(
  state: State,
  { effect }: Call<State>,
): Call<State>["refused"] {
  state.begin();
  try {
    effect(state);
    state.commit();
    return undefined;
  } catch (error) {
    state.rollBack();
    return { error };
  }
}
