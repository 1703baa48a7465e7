// The order of a cache's calls, and the bookkeeping that they take and give back.

import { describe, expect, it } from "vitest";
import { Ledger } from "../../src/cache/ledger.ts";
import { CacheLengths } from "../../src/cache/lengths.ts";
import { PageTables } from "../../src/cache/paged/pages.ts";
import { expectError } from "../support/errors.ts";

const tables = () =>
  new PageTables({ label: "cache", entries: 3, pages: 4, pageSize: 4, maxTokens: 12 });
const lengthsOf = (state: PageTables) => [0, 1, 2].map((entry) => state.length(entry));

/** Makes a promise, and what settles it. */
function gate() {
  let open = () => {};
  let fail = (_: unknown) => {};
  const promise = new Promise<void>((resolve, reject) => {
    open = resolve;
    fail = reject;
  });
  return { promise, open, fail };
}

/** Starts an append that waits before it takes its room, and after that for the GPU. */
function append(ledger: Ledger<PageTables>, entry: number, count: number) {
  const ready = gate();
  const done = gate();
  const change = (state: PageTables) => state.append([entry], [count]);
  const call = ledger.call(async (turn) => {
    await ready.promise;
    turn.apply(change);
    await done.promise;
  }, change);
  return { call, ready, done };
}

describe("calls", () => {
  it("run one after the other, the first one at once", async () => {
    const ledger = new Ledger("cache", tables());
    const order: string[] = [];
    const first = ledger.call(async () => {
      order.push("first");
      await Promise.resolve();
      order.push("first is done");
    });
    order.push("asked");
    const second = ledger.call(async () => {
      order.push("second");
    });
    expect(ledger.isIdle).toBe(false);
    await Promise.all([first, second]);
    expect(order).toEqual(["first", "asked", "first is done", "second"]);
    expect(ledger.isIdle).toBe(true);
  });

  it("are told of before their turn, and given back if they are rejected in any state", async () => {
    for (const step of ["ready", "done"] as const) {
      const state = tables();
      const ledger = new Ledger("cache", state);
      const one = append(ledger, 0, 5);
      const two = append(ledger, 1, 3);
      expect(lengthsOf(ledger.projected)).toEqual([5, 3, 0]);
      if (step === "done") one.ready.open();
      await Promise.resolve();
      await Promise.resolve();
      expect(lengthsOf(ledger.projected)).toEqual([5, 3, 0]);
      one[step].fail(new Error("no"));
      await expect(one.call).rejects.toThrow("no");
      expect(lengthsOf(ledger.projected)).toEqual([0, 3, 0]);
      expect(ledger.projected.freePages).toBe(3);
      two.ready.open();
      two.done.open();
      await two.call;
      expect([lengthsOf(state), state.freePages, [...state.pages(1)]]).toEqual([[0, 3, 0], 3, [0]]);
    }
  });

  it("keep synchronous changes waiting, which are checked at once", async () => {
    const state = tables();
    const ledger = new Ledger("cache", state);
    const one = append(ledger, 0, 6);
    // biome-ignore format: one line
    ledger.change((t) => t.truncate(0, 5), (t) => t.truncate(0, Math.min(5, t.length(0))));
    expect(() => ledger.change((t) => t.truncate(0, 6))).toThrow(
      "entry 0 can be cut to 0 up to 5 tokens, got 6",
    );
    // biome-ignore format: one line
    ledger.change((t) => t.fork(0, 1, 5), (t) => t.fork(0, 1, t.length(0)), "refusals");
    // biome-ignore format: one line
    expect([lengthsOf(state), lengthsOf(ledger.projected)]).toEqual([[0, 0, 0], [5, 5, 0]]);
    one.ready.open();
    one.done.open();
    await one.call;
    await ledger.call(async () => {});
    expect(lengthsOf(state)).toEqual([5, 5, 0]);
    expect(ledger.projected).toBe(state);
  });

  it("behind a fork that relies on their refusal stay refused", async () => {
    const state = tables();
    const ledger = new Ledger("cache", state);
    const one = append(ledger, 0, 12);
    const two = append(ledger, 1, 8); // no pages for both
    // biome-ignore format: one line
    ledger.change((t) => t.fork(0, 1, 4), (t) => t.fork(0, 1, Math.min(4, t.length(0))), "refusals");
    one.ready.fail(new Error("no"));
    await expect(one.call).rejects.toThrow("no");
    await expectError(
      () => two.call,
      "limit",
      /^cache: these tokens take 2 more pages, and 1 of 4 are free/,
    );
    await ledger.call(async () => {});
    expect(lengthsOf(state)).toEqual([0, 0, 0]);
  });

  it("refuse what would run before them", async () => {
    const state = tables();
    const ledger = new Ledger("cache", state);
    const one = append(ledger, 0, 1);
    await expectError(
      () => ledger.now("plan", (t) => t.append([1], [1])),
      "argument",
      "plan: 1 calls of cache are not done yet, and what is encoded now would run before them. Await append(), truncate(), attention() and the like before you encode.",
    );
    one.ready.open();
    one.done.open();
    await one.call;
    const failing = (t: PageTables) => {
      t.append([1], [9]);
      throw new Error("no pass");
    };
    expect(() => ledger.now("plan", failing)).toThrow("no pass");
    expect([lengthsOf(state), state.freePages]).toEqual([[1, 0, 0], 3]);
  });
});

describe("the lengths of a ring", () => {
  const rules = { label: "cache", batch: 2, ring: 7, sinkTokens: 2, window: 4 };
  const full = () => {
    const made = CacheLengths.empty(rules, { capacity: 100, maxCapacity: 100 });
    made.append("cache", [15, 3]);
    return made;
  };
  const lost =
    /^cache: entry 0 had 15 tokens and its ring keeps the last 7; a query after 11 of them would miss keys/;

  it("remember what they had through a cut, and the next one", async () => {
    const made = full();
    made.truncate([13, 3]);
    await expectError(() => made.truncate([11, 3]), "limit", lost);
    expect(made.truncate([12, 9])).toEqual([12, 3]);
    await expectError(() => made.truncate([11, 3]), "limit", lost);
    expect(made.lengths).toEqual([12, 3]);
    expect(made.truncate([2, 3])).toEqual([2, 3]); // sink tokens only: the ring starts anew
    made.append("cache", [4, 0]);
    expect(made.truncate([3, 3])).toEqual([3, 3]);
  });

  it("go with an entry to another one, and into a copy", async () => {
    const made = full();
    made.truncate([13, 3]);
    const copy = made.clone("copy");
    made.reorder([0, 0]);
    await expectError(() => made.truncate([13, 11]), "limit", /entry 1 had 15 tokens/);
    await expectError(() => copy.truncate([11, 3]), "limit", /^copy: entry 0 had 15 tokens/);
    made.begin();
    made.reorder([1, 1]);
    made.truncate([0, 0]);
    made.rollBack();
    expect([made.lengths, made.mostOf([1])]).toEqual([[13, 13], 15]);
  });
});
