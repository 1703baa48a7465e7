// Sessions: texts that a model has read, with their keys and values, which it goes on from.

import { check, show } from "../../errors.ts";
import { checkDevice } from "../../gpu/buffers.ts";
import type { Program } from "../../training/program.ts";
import type { Asked, ModelInputs } from "../definition.ts";
import { type CacheOptions, type LayerCaches, makeCaches } from "./caches.ts";
import { chunkOf, SessionPrograms } from "./programs.ts";
import type { SessionModel } from "./session_model.ts";
import {
  type SessionOptions,
  type SessionSizes,
  type SessionState,
  sessionSizes,
  turnedFor,
} from "./session_options.ts";
import { SourceRows } from "./source_rows.ts";
import { checkIds, type Texts, textsOf } from "./texts.ts";

/** Rows that a submission reads at a time if fewer than these are left. */
const SMALL_CHUNK = 16;

interface Parts extends SessionSizes {
  readonly model: SessionModel;
  readonly sourceRows: SourceRows | undefined;
  /** The sessions of the model that are not destroyed. */
  readonly living: Set<Session>;
}

/**
 * Texts and what the model knows of their tokens. `Model.session` makes it; `generate` goes on from
 * it. Its calls run in the order in which they were made, and none while `generate` goes on.
 *
 * @example
 * const session = await model.session({ capacity: 512 });
 * await session.append([464, 3290]);
 * const other = await session.fork(); // need not read these tokens again
 */
export class Session implements SessionState {
  /** Texts at a time. */
  readonly entries: number;
  /** The most tokens of a text. */
  readonly capacity: number;
  /** The most tokens of each text that one submission reads. */
  readonly chunk: number;
  /** How keys and values are kept. */
  readonly cache: CacheOptions;
  /** What the encoder read, if there is one. */
  readonly source: ModelInputs | undefined;
  /** @internal */
  readonly model: SessionModel;
  readonly #parts: Parts;
  readonly #label: string;
  readonly #caches: LayerCaches;
  /** @internal */
  readonly programs: SessionPrograms;
  #tokens: number[][];
  /** How many tokens of each text the caches have. */
  #known: number[];
  /** The tokens that the cached rows were turned for; NaN if they are of no use. */
  #turnedFor: number;
  #turn: Promise<unknown> = Promise.resolve();
  #isGenerating = false;
  #destroyed = false;

  private constructor(parts: Parts, caches: LayerCaches) {
    const { model, entries, living } = parts;
    this.model = model;
    this.entries = entries;
    this.capacity = parts.capacity;
    this.chunk = parts.chunk;
    this.cache = parts.cache;
    this.#parts = parts;
    this.#label = `${model.definition.family} session`;
    this.#caches = caches;
    const isSmooth = parts.cache.dtype?.startsWith("int") ?? false;
    this.source = parts.source;
    this.programs = new SessionPrograms(model, caches, entries, isSmooth, parts.sourceRows);
    this.#tokens = Array.from({ length: entries }, () => []);
    this.#known = new Array<number>(entries).fill(0);
    this.#turnedFor = turnedFor(this.#parts, 0);
    living.add(this);
  }

  /** @internal `Model.session` makes it. */
  static async make(
    model: SessionModel,
    options: SessionOptions,
    living: Set<Session>,
  ): Promise<Session> {
    const { device, definition } = model;
    const label = `${definition.family} session`;
    const sizes = sessionSizes(label, definition, options);
    const { cached, entries, capacity, cache } = sizes;
    const { kvHeads, headDim } = cached;
    const rows = { kvHeads, headDim, layers: definition.layers, entries, capacity };
    const sourceRows = await SourceRows.of(model, sizes.source, entries);
    const caches = await makeCaches(device, rows, cache, label).catch((error: unknown) => {
      sourceRows?.release();
      throw error;
    });
    const session = new Session({ ...sizes, model, sourceRows, living }, caches);
    const { resume } = options;
    try {
      if (resume) await session.append(session.#tokens.map((_, entry) => resume.tokens(entry)));
      return session;
    } catch (error) {
      session.destroy();
      throw error;
    }
  }

  /** Tokens of each text. */
  get lengths(): readonly number[] {
    return this.#tokens.map(({ length }) => length);
  }

  /** Bytes of GPU memory of keys and values. Forks of a paged cache have it in common. */
  get bytes(): number {
    return this.#caches.bytes;
  }

  /** The tokens of a text. */
  tokens(entry = 0): readonly number[] {
    const found = this.#tokens[entry];
    const last = this.entries - 1;
    check(
      found !== undefined,
      "argument",
      () => `${this.#label}: texts are 0 to ${last}, got ${show(entry)}.`,
    );
    return [...found];
  }

  /**
   * Gives texts more tokens and reads all but the last of each, which the next step reads.
   *
   * Rejects with FoveaError("argument") for ids that the model does not have, and
   * FoveaError("limit") beyond the capacity; then nothing has changed.
   *
   * @param texts Ids of the one text, or for each text a list, which may be empty
   * @param signal Stops the reading: tokens that were not read are read by the next call
   */
  append(texts: Texts, signal?: AbortSignal): Promise<void> {
    return this.#call(async () => {
      this.take(texts, 0);
      await this.read(signal);
    });
  }

  /** Takes tokens back: texts that are longer get these lengths. One number is for all of them. */
  truncate(lengths: number | readonly number[]): Promise<void> {
    return this.#call(async () => {
      const list = typeof lengths === "number" ? this.#tokens.map(() => lengths) : lengths;
      check(
        Array.isArray(list) &&
          list.length === this.entries &&
          list.every((n) => Number.isSafeInteger(n) && n >= 0),
        "argument",
        () => `${this.#label}: lengths are ${this.entries} whole numbers, got ${show(lengths)}.`,
      );
      await this.keep(list);
    });
  }

  /** Makes another session with the same tokens; from there each goes its own way. */
  fork(): Promise<Session> {
    return this.#call(async () => {
      const caches = await this.#caches.fork();
      this.#parts.sourceRows?.share();
      const other = new Session(this.#parts, caches);
      other.#tokens = this.#tokens.map((ids) => [...ids]);
      other.#known = [...this.#known];
      other.#turnedFor = this.#turnedFor;
      other.programs.follow(this.programs);
      return other;
    });
  }

  /** Frees keys, values and programs. Forks stay. */
  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    this.programs.destroy();
    this.#caches.destroy();
    this.#parts.sourceRows?.release();
    this.#parts.living.delete(this);
  }

  [Symbol.dispose] = (): void => this.destroy();

  /** @internal Runs work that no other call of the session may interrupt. */
  async begin(): Promise<() => void> {
    await this.#call(async () => {
      this.#isGenerating = true;
    });
    return () => {
      this.#isGenerating = false;
    };
  }

  /** @internal Takes tokens of texts, and reads none. `more` is how many will follow. */
  take(texts: Texts, more: number): void {
    const given = textsOf(this.#label, texts, this.entries);
    checkIds(this.#label, given, this.model.definition.vocab);
    const longest = Math.max(...given.map((ids, at) => ids.length + this.#tokens[at].length));
    check(
      longest + more <= this.capacity,
      "limit",
      () =>
        `${this.#label}: ${longest} tokens${more ? ` and ${more} more` : ""} are beyond the capacity of ${this.capacity}.`,
    );
    for (const [at, ids] of given.entries()) this.#tokens[at].push(...ids);
    if (this.programs.adopt()) this.#turnedFor = Number.NaN; // with others all rows change
  }

  /** @internal The last token of a text; -1 if there is none. */
  last = (entry: number): number => this.#tokens[entry].at(-1) ?? -1;

  /** @internal Takes a token of each text. The caches have all tokens before it. */
  push(ids: readonly number[]): void {
    for (const [at, id] of ids.entries()) this.#known[at] = this.#tokens[at].push(id) - 1;
  }

  /** @internal Forgets tokens past these lengths, of which the caches have up to `known`. */
  async keep(lengths: readonly number[], known = lengths): Promise<void> {
    for (const [at, length] of lengths.entries()) {
      this.#tokens[at].splice(length);
      this.#known[at] = Math.min(this.#known[at], Math.max(0, length - 1), known[at]);
    }
    await this.#caches.truncate(this.#known); // a step on its way may have read more
  }

  /** @internal Gives text i the tokens of text `entries[i]`. */
  async reorder(entries: readonly number[]): Promise<void> {
    await this.#caches.reorder(entries);
    this.#tokens = entries.map((from) => [...this.#tokens[from]]);
    this.#known = entries.map((from) => this.#known[from]);
  }

  /** @internal Whether a text of so many tokens needs all of its rows anew. */
  changesAt = (length: number): boolean => turnedFor(this.#parts, length) !== this.#turnedFor;

  /** @internal Reads all tokens but the last of each text. */
  async read(signal?: AbortSignal): Promise<void> {
    const longest = Math.max(...this.lengths);
    if (this.changesAt(longest)) {
      this.#turnedFor = turnedFor(this.#parts, longest);
      this.#known.fill(0);
      await this.#caches.truncate(this.#known);
    }
    for (;;) {
      signal?.throwIfAborted();
      const left = this.#tokens.map(({ length }, at) => length - 1 - this.#known[at]);
      const most = Math.max(...left);
      if (most <= 0) return;
      const rows = most > SMALL_CHUNK ? this.chunk : Math.min(SMALL_CHUNK, this.chunk);
      await this.#fill(
        rows,
        left.map((count) => Math.min(Math.max(count, 0), rows)),
      );
    }
  }

  /** @internal The program of a step, which reads some rows of each text, by default one. */
  step = (asked: Asked, rows = 1): Promise<Program> =>
    this.programs.of({ rows, fills: false, tokens: this.#turnedFor, asked });

  /** Reads so many tokens of each text into the caches. */
  async #fill(rows: number, counts: readonly number[]): Promise<void> {
    const { device } = this.model;
    const run = { rows, fills: true, tokens: this.#turnedFor, asked: {} };
    const program = await this.programs.of(run);
    await this.programs.write(program, chunkOf(this.#tokens, this.#known, counts, rows));
    const encoder = device.createCommandEncoder({ label: this.#label });
    this.programs.encode(program, encoder, counts);
    device.queue.submit([encoder.finish()]);
    for (const [at, count] of counts.entries()) this.#known[at] += count;
    await device.queue.onSubmittedWorkDone(); // a page has its frames between chunks
  }

  #call<Result>(work: () => Promise<Result>): Promise<Result> {
    const turn = this.#turn.then(() => {
      check(!this.#destroyed, "destroyed", () => `${this.#label}: the session was destroyed.`);
      check(
        !this.#isGenerating,
        "argument",
        () => `${this.#label}: generate() goes on with it; wait until that has ended.`,
      );
      checkDevice(this.model.device);
      return work();
    });
    this.#turn = turn.catch(() => undefined);
    return turn;
  }
}
