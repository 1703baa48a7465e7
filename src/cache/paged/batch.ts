// Some entries of a paged cache, as attention and appends see them.

import type { KvSource, KvSourceOwner } from "../../attention/kv_source.ts";
import { check, FoveaError, show } from "../../errors.ts";
import { elementsOfList, type Numbers } from "../../given.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import { kvAccess } from "../../kernels/kv_access.ts";
import { type CacheAppendPlan, makeAppendPlan } from "../append.ts";
import type { AppendMoment, TakeRoom } from "../append_moment.ts";
import type { AppendProblem, AppendTarget, CacheRotary, ResolvedNorm } from "../append_problem.ts";
import { type AppendOptions, AppendQueue } from "../append_queue.ts";
import type { Turn } from "../ledger.ts";
import { CacheState } from "../state.ts";
import { appendTo, checkedEntries, checkOnce } from "./entries.ts";
import type { PageTables } from "./pages.ts";
import type { PagedParts } from "./parts.ts";
import { PageView } from "./view.ts";

/**
 * Entries of a {@link PagedKvCache} in an order: entry b of the batch axis of q, k and v is entry
 * `entries[b]` of the cache. Make one with `cache.batch()`; attention takes it as `cache` of its
 * problem. It owns lengths and a page table on the GPU and no keys or values, and follows all
 * changes of its entries. For the order of calls, and what a rejected one leaves behind, see
 * {@link PagedKvCache}.
 */
export class PagedBatch implements KvSourceOwner {
  readonly device: GPUDevice;
  readonly label: string;
  /** Where keys and values lie, for attention. */
  readonly source: KvSource;
  /** @internal */
  readonly state: CacheState;
  /** @internal */
  readonly norm: ResolvedNorm | undefined;
  /** @internal */
  readonly rotary: CacheRotary | undefined;
  readonly #parts: PagedParts;
  readonly #view: PageView;
  readonly #queue = new AppendQueue(this);
  /** Never changed, only replaced: calls hold the list of their moment. */
  #entries: readonly number[];
  #destroyed = false;

  private constructor(
    parts: PagedParts,
    label: string,
    state: CacheState,
    entries: readonly number[],
  ) {
    const { device, resolved, memory, norm, rotary } = parts;
    const { kvHeads, headDim, vDim, maxTokens, pageSize, pagesPerEntry, rows } = resolved;
    this.device = device;
    this.label = label;
    this.state = state;
    this.norm = norm;
    this.rotary = rotary;
    this.#parts = parts;
    this.#view = new PageView(state);
    this.#entries = entries;
    const { quantised } = rows;
    const layout = { place: "paged" as const, pageSize, ...(quantised && { quantised }) };
    this.source = {
      ...layout,
      batch: entries.length,
      kvHeads,
      headDim,
      vDim,
      capacity: maxTokens,
      pagesPerEntry,
      k: memory.k,
      v: memory.v,
      state: state.tensor,
      sinkTokens: 0,
      ring: 0,
      access: kvAccess(layout),
      update: (pass) => this.#view.update(pass, parts.tables, this.#entries),
      checkIdle: (what) => parts.ledger.checkIdle(what),
    };
  }

  /** @internal Use `cache.batch()`. */
  static async make(parts: PagedParts, entries: Numbers, what: string): Promise<PagedBatch> {
    const { device, resolved } = parts;
    const { label } = resolved;
    const checked = checkedEntries(`${label}.${what}`, entries, resolved.entries);
    const state = await CacheState.make(device, label, checked.length, resolved.pagesPerEntry);
    const batch = new PagedBatch(parts, label, state, checked);
    parts.batches.add(batch);
    if (!parts.isDestroyed()) return batch;
    batch.destroy();
    throw new FoveaError("destroyed", `${label}.${what}: the cache was destroyed.`);
  }

  /** Entries of the cache, in the order of the batch. */
  get entries(): readonly number[] {
    return this.#entries;
  }

  /** Tokens of each entry after all commands that are encoded and all calls that were made. */
  get lengths(): readonly number[] {
    const { projected } = this.#parts.ledger;
    return this.#entries.map((entry) => projected.length(entry));
  }

  get destroyed(): boolean {
    return this.#destroyed || this.#parts.isDestroyed();
  }

  /**
   * Takes other entries, as many as before: plans stay as they are, nothing is allocated, and
   * commands that were encoded and calls that were made before, awaited or not, still use the
   * entries of then. An entry may stand in the list twice as long as it gets no tokens.
   *
   * Throws FoveaError for entries that the cache does not have, and has changed nothing then.
   */
  select(entries: Numbers): void {
    const what = `${this.label}.select`;
    check(!this.destroyed, "destroyed", () => `${what}: the batch was destroyed.`);
    const checked = checkedEntries(what, entries, this.#parts.resolved.entries);
    const { length } = this.#entries;
    check(
      checked.length === length,
      "argument",
      () =>
        `${what}: the batch is of ${length} entries, got ${checked.length}. Make another one with batch().`,
    );
    this.#entries = checked;
  }

  /**
   * Compiles an append to these entries: `plan.encode(pass, { k, v })` then gives entry b of the
   * batch axis its new tokens, and takes pages for them.
   *
   * ```
   * k, v of entry b, row i < counts[b]  ->  token lengths[b] + i;   lengths[b] += counts[b]
   * ```
   *
   * It is like {@link KvCache.planAppend}, but counts must be numbers, because pages are handed out
   * on the host. `encode` throws FoveaError("limit"), and then has changed nothing, if an entry
   * would be longer than `maxTokens` or if there are not enough pages for all entries together.
   *
   * @example
   * const append = await batch.planAppend({
   *   k: { shape: [3, 8, 1, 64] },
   *   v: { shape: [3, 8, 1, 64] },
   * });
   * append.encode(encoder, { k, v });
   */
  async planAppend(problem: AppendProblem): Promise<CacheAppendPlan> {
    check(
      problem?.counts === undefined,
      "argument",
      () =>
        `${problem?.label ?? `${this.label} append`}: pages are handed out on the host, which has to know the counts; give them as numbers when the plan is encoded, and leave counts out here.`,
    );
    return makeAppendPlan(this, problem);
  }

  /**
   * Appends tokens to these entries, submits the work and resolves once the GPU has accepted it.
   * Calls run in their order, awaited or not; k and v may be overwritten or destroyed once this has
   * returned. See `planAppend`.
   *
   * @param k [B, Hkv, M, D]
   * @param v [B, Hkv, M, Dv]
   *
   * @example
   * await batch.append(k, v, { counts: [12, 3, 7] });
   * const { output } = await attention(q, batch, { causal: true });
   */
  append(k: Tensor, v: Tensor, options: AppendOptions = {}): Promise<void> {
    return this.#queue.append(k, v, options);
  }

  /** @internal See `resync` of the cache. */
  forget(): void {
    this.#view.forget();
  }

  /**
   * Gives every entry of the batch the tokens of another one of them, or of itself, all at once:
   * row b of the batch gets those that row `rows[b]` had. Nothing is copied; only the owners of
   * pages change. See {@link PagedKvCache.reorder}.
   *
   * Throws FoveaError, and then has changed nothing, for rows that the batch does not have, and if
   * it has an entry twice.
   *
   * @example
   * beams.reorder([0, 0, 2]); // the second beam goes on from the first one
   */
  reorder(rows: Numbers): void {
    const what = `${this.label}.reorder`;
    check(!this.destroyed, "destroyed", () => `${what}: the batch was destroyed.`);
    const entries = this.#entries;
    const list = elementsOfList<number>(rows);
    const { length } = entries;
    check(
      list?.length === length &&
        list.every((row) => Number.isInteger(row) && row >= 0 && row < length),
      "argument",
      () => `${what}: expected ${length} rows of the batch, 0 to ${length - 1}, got ${show(rows)}.`,
    );
    checkOnce(what, entries, entries);
    const sources = list.map((row) => entries[row]);
    this.#parts.ledger.change((tables) => tables.reorder(entries, sources));
  }

  /** @internal See {@link AppendTarget}. */
  moment(): AppendMoment {
    const entries = this.#entries;
    const { ledger } = this.#parts;
    return {
      isReady: () => ledger.isIdle,
      now: (label, work) =>
        ledger.now(label, (tables) => {
          const told = { isTold: false };
          try {
            work(this.#taker(entries, told, (change) => change(tables)));
          } catch (error) {
            if (told.isTold) this.#view.forget();
            throw error;
          }
        }),
      call: (label, counts, work) =>
        ledger.call(
          async (turn) => {
            const told = { isTold: false };
            try {
              await work(this.#taker(entries, told, turn.apply), async () => {});
            } catch (error) {
              if (told.isTold) this.#view.forget();
              throw error;
            }
          },
          (tables) => appendTo(tables, label, entries, counts),
        ),
    };
  }

  /** @internal See {@link KvSourceOwner}. */
  inTurn<T>(work: (cache: KvSourceOwner) => Promise<T>): Promise<T> {
    const entries = this.#entries;
    const { ledger, tables } = this.#parts;
    return ledger.call(async () => {
      let isTold = false;
      const update = (pass: GPUComputePassEncoder) => {
        isTold = true;
        this.#view.update(pass, tables, entries);
      };
      try {
        return await work({ source: { ...this.source, update, checkIdle: undefined } });
      } catch (error) {
        if (isTold) this.#view.forget();
        throw error;
      }
    });
  }

  /** Takes pages for tokens; then records commands that tell the GPU, and copy shared pages. */
  #taker(
    entries: readonly number[],
    told: { isTold: boolean },
    apply: Turn<PageTables>["apply"],
  ): TakeRoom {
    const { tables, memory } = this.#parts;
    return (label, counts) => {
      const copies = apply((changed) => appendTo(changed, label, entries, counts));
      return (pass) => {
        told.isTold = true;
        this.#view.update(pass, tables, entries, counts);
        memory.copy(pass, copies);
      };
    };
  }

  /**
   * Frees the lengths and the page table of the batch. The entries stay in the cache; calls that
   * wait are rejected.
   */
  destroy(): void {
    this.#destroyed = true;
    this.#parts.batches.delete(this);
    this.#queue.destroy();
    this.state.destroy();
  }

  /** Calls `destroy` at the end of a block that declares the batch with `using`. */
  [Symbol.dispose](): void {
    this.destroy();
  }
}

/** Throws FoveaError("destroyed") if the batch, or its cache, was destroyed. */
export function checkAlive(what: string, { destroyed }: PagedBatch): void {
  check(!destroyed, "destroyed", () => `${what}: the cache was destroyed.`);
}
