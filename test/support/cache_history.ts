// Histories of key-value caches as plain data: run on the GPU, many steps to a submission, and told by a model that keeps
// every token in a list. What lies in the cache at each attention is compared with the model's tokens, and the attention
// with the float64 reference over what lies there.

import { normal } from "../../bench/data.ts";
import type { KvSourceOwner } from "../../src/attention/kv_source.ts";
import { type CacheAppendPlan, FoveaError, planAttention, type Tensor, tensor } from "../../src/index.ts";
import type { ReferenceOptions } from "../../src/reference/index.ts";
import { compareLook, type Look, type Token } from "./cache_looks.ts";
import { isNear, plainRow, type Row, type RowTransform, transformed } from "./cache_rows.ts";
import { type CacheMake, makeCache, type Subject } from "./cache_subjects.ts";
import { product } from "./cases.ts";
import { defined } from "./features.ts";

export type Step =
  /** So many new tokens for each entry of the batch, all of them by default. */
  | {
      readonly append: readonly number[];
      readonly batch?: readonly number[];
      readonly spread?: number;
      /** They are NaN and taken back at once: memory past the end of entries is not what it was. Not of a ring. */
      readonly poison?: boolean;
    }
  /** So many queries of each entry, the last one at its last token. */
  | {
      readonly attend: number;
      readonly batch?: readonly number[];
      readonly causal?: boolean;
      readonly window?: number;
      readonly sinkTokens?: number;
    }
  /** Takes back the last tokens of an entry. */
  | { readonly truncate: readonly [entry: number, tokens: number] }
  /** The second entry, if it is empty, gets all tokens of the first one but the last few. */
  | { readonly fork: readonly [from: number, to: number, fewer: number] }
  | { readonly free: number }
  /** What is encoded so far is submitted. */
  | { readonly submit: true };

/** A cache, what attention does to its scores, and what happens to it. */
export interface CacheCase extends CacheMake {
  /** Query heads of a key head. */
  readonly G: number;
  /** Default what attention chooses for few queries, and the tile that compiles fastest for many. */
  readonly variant?: string;
  /** Appends normalise and rotate queries as well. */
  readonly queries?: boolean;
  readonly softcap?: number;
  readonly alibi?: boolean;
  readonly sinks?: boolean;
  readonly seed?: number;
  readonly steps: readonly Step[];
}

/** What attention has a kernel of its own for. */
const FEW_QUERIES = 16;

/** Queries that an append normalised or rotated. */
interface Turned {
  readonly step: number;
  readonly rows: readonly { readonly at: number; readonly row: Row }[];
  readonly tensor: Tensor;
}

/** Runs a history and throws at the first difference. */
export async function runHistory(device: GPUDevice, problem: CacheCase): Promise<void> {
  const history = new History(device, problem);
  try {
    await history.run();
  } finally {
    history.destroy();
  }
}

class History {
  readonly #device: GPUDevice;
  readonly #problem: CacheCase;
  readonly #entries: Token[][];
  /** What lies in each row of a ring. */
  readonly #rings: Map<number, Token>[];
  /** Tokens that each entry ever had at once: a ring has lost those far behind. */
  readonly #peaks: number[];
  readonly #looks: Look[] = [];
  readonly #turned: Turned[] = [];
  readonly #made: { destroy(): void }[] = [];
  #encoder: GPUCommandEncoder;
  #subject: Subject | undefined;
  #seed: number;

  constructor(device: GPUDevice, problem: CacheCase) {
    this.#device = device;
    this.#problem = problem;
    this.#entries = Array.from({ length: problem.entries }, () => []);
    this.#rings = this.#entries.map(() => new Map());
    this.#peaks = new Array(problem.entries).fill(0);
    this.#encoder = device.createCommandEncoder();
    this.#seed = (problem.seed ?? 1) * 1000;
  }

  async run(): Promise<void> {
    const { steps } = this.#problem;
    this.#subject = await makeCache(this.#device, this.#problem);
    this.#made.push(this.#subject);
    for (const [index, step] of steps.entries()) {
      try {
        await this.#take(step, index);
        this.#expectLengths();
      } catch (error) {
        throw located(error, index, step);
      }
    }
    this.#submit();
    for (const look of this.#looks)
      await compareLook(this.#device, look, this.#problem.dtype ?? "f32").catch((error) =>
        throwLocated(error, look, steps),
      );
    for (const turned of this.#turned) await this.#compareTurned(turned).catch((e) => throwLocated(e, turned, steps));
  }

  destroy(): void {
    for (const made of this.#made) made.destroy();
  }

  get #cache(): Subject {
    if (!this.#subject) throw new Error("there is no cache");
    return this.#subject;
  }

  #take(step: Step, index: number): Promise<void> | void {
    if ("append" in step) return this.#append(step, index);
    if ("attend" in step) return this.#attend(step, index);
    if ("truncate" in step) return this.#truncate(step.truncate);
    if ("fork" in step) return this.#fork(step.fork);
    if ("free" in step) {
      if (step.free >= this.#entries.length) return;
      this.#cache.truncate(this.#encoder, step.free, 0);
      this.#entries[step.free] = [];
      this.#peaks[step.free] = 0;
      return;
    }
    return this.#submit();
  }

  #submit(): void {
    this.#device.queue.submit([this.#encoder.finish()]);
    this.#encoder = this.#device.createCommandEncoder();
  }

  /** The entries that a step is about: those of its batch that there are, each once. */
  #batchOf(batch: readonly number[] | undefined): number[] {
    const all = this.#entries.map((_, entry) => entry);
    return batch && this.#problem.place === "paged" ? [...new Set(batch.filter((entry) => entry in all))] : all;
  }

  #tensor(shape: readonly number[], data: Float32Array): Tensor {
    const made = tensor(this.#device, shape, { data });
    this.#made.push(made);
    return made;
  }

  async #append(
    { append, batch, spread, poison = false }: Extract<Step, { append: unknown }>,
    index: number,
  ): Promise<void> {
    const { place, D, Dv = D, Hkv, G, qkNorm, rotary, queries } = this.#problem;
    const entries = this.#batchOf(batch);
    if (!entries.length) return;
    const counts = entries.map((_, i) => append[i] ?? 0);
    const M = Math.max(1, ...counts);
    const isPoison = poison && place !== "ring";
    const rows = (heads: number, dim: number, deviation = spread ?? 1) => {
      const shape = [entries.length, heads, M, dim];
      const data = normal(++this.#seed, product(shape), deviation);
      const at = (b: number, h: number, i: number) => ((b * heads + h) * M + i) * dim;
      // What is not appended must not be read.
      for (let b = 0; b < entries.length; b++) {
        for (let h = 0; h < heads; h++) data.fill(Number.NaN, at(b, h, counts[b]), at(b, h, M));
      }
      const row = (b: number, h: number, i: number) => data.slice(at(b, h, i), at(b, h, i) + dim);
      return { at, row, gpu: this.#tensor(shape, data) };
    };
    const [k, v] = [D, Dv].map((dim) => rows(Hkv, dim, isPoison ? Number.NaN : undefined));
    const how: RowTransform = defined({ qkNorm, rotary });
    const turned = queries && (qkNorm || rotary) ? rows(Hkv * G, D) : undefined;
    const target = await this.#cache.batch(entries);
    const plan: CacheAppendPlan = await target.planAppend({
      ...{ k: k.gpu, v: v.gpu },
      ...(turned && { q: turned.gpu }),
    });
    this.#made.push(plan);
    const tokens = entries.map((entry, b) =>
      Array.from({ length: counts[b] }, (_, i): Token => {
        const position = this.#entries[entry].length + i;
        const heads = Array.from({ length: Hkv }, (_, h) => h);
        return {
          k: heads.map((h) =>
            qkNorm || rotary ? transformed(k.row(b, h, i), position, "k", how) : plainRow(k.row(b, h, i)),
          ),
          v: heads.map((h) => plainRow(v.row(b, h, i))),
        };
      }),
    );
    const room = this.#cache.hasRoom(entries, counts);
    const before = this.#cache.lengths;
    try {
      plan.encode(this.#encoder, { counts });
    } catch (error) {
      if (!(error instanceof FoveaError) || error.code !== "limit" || room) throw error;
      if (`${this.#cache.lengths}` !== `${before}`) throw new Error(`lengths changed from ${before} though ${error}`);
      return;
    }
    if (!room) throw new Error("the append ought to be refused, for there is no room");
    if (turned) {
      const list = entries.flatMap((entry, b) =>
        Array.from({ length: Hkv * G * counts[b] }, (_, n) => {
          const [h, i] = [Math.floor(n / counts[b]), n % counts[b]];
          const position = this.#entries[entry].length + i;
          return { at: turned.at(b, h, i), row: transformed(turned.row(b, h, i), position, "q", how) };
        }),
      );
      this.#turned.push({ step: index, rows: list, tensor: turned.gpu });
    }
    for (const [b, entry] of entries.entries()) {
      for (const token of tokens[b]) {
        const { sinkTokens = 0, ring = 0 } = this.#problem;
        const j = this.#entries[entry].push(token) - 1;
        this.#rings[entry].set(ring && j >= sinkTokens ? sinkTokens + ((j - sinkTokens) % ring) : j, token);
      }
      this.#peaks[entry] = Math.max(this.#peaks[entry], this.#entries[entry].length);
      if (isPoison) this.#truncate([entry, counts[b]]);
    }
  }

  async #attend(step: Extract<Step, { attend: unknown }>, index: number): Promise<void> {
    const { D, Dv = D, Hkv, G, place, softcap } = this.#problem;
    const entries = this.#batchOf(step.batch);
    if (!entries.length) return;
    const { M, window, sinkTokens, causal } = this.#seen(step, entries);
    const variant = this.#problem.variant ?? (M > FEW_QUERIES ? "8x32" : undefined);
    const H = Hkv * G;
    const shape = [entries.length, H, M, D];
    const data = normal(++this.#seed, product(shape));
    const numbers = (factor: number) => Float32Array.from({ length: H }, (_, h) => factor * (h + 1));
    const features = defined<ReferenceOptions>({
      ...{ causal, window, sinkTokens, softcap },
      alibiSlopes: this.#problem.alibi ? numbers(0.03) : undefined,
      sinks: this.#problem.sinks ? numbers(0.5) : undefined,
    });
    const poison = (size: readonly number[]) => this.#tensor(size, new Float32Array(product(size)).fill(Number.NaN));
    const output = poison([...shape.slice(0, 3), Dv]);
    const lse = poison(shape.slice(0, 3));
    const cache: KvSourceOwner = await this.#cache.batch(entries);
    const { alibiSlopes, sinks, ...rest } = features;
    const gpu = {
      ...rest,
      ...(alibiSlopes && { alibiSlopes: Array.from(alibiSlopes as Float32Array) }),
      ...(sinks && { sinks: Array.from(sinks) }),
    };
    const q = this.#tensor(shape, data);
    const asked = { q, cache, output, lse, ...gpu, ...(variant !== undefined && { variant }) };
    const plan = await planAttention(this.#device, asked as unknown as Parameters<typeof planAttention>[1]);
    this.#made.push(plan);
    plan.encode(this.#encoder);
    if (M === 0) return; // nothing is recorded
    const { source } = cache;
    const copies = [source.k, source.v, source.state].map(({ buffer }) => {
      const copy = this.#device.createBuffer({ size: buffer.size, usage: 4 | 8 }); // COPY_SRC, COPY_DST
      this.#encoder.copyBufferToBuffer(buffer, 0, copy, 0, buffer.size);
      this.#made.push(copy);
      return copy;
    });
    const tokens = entries.map((entry) => [...this.#entries[entry]]);
    const held = entries.map((entry) => new Set(place === "ring" ? this.#rings[entry].values() : this.#entries[entry]));
    const options = { ...features, kvLengths: tokens.map((list) => list.length) };
    this.#looks.push({ step: index, source, tokens, held, q: { data, shape }, options, output, lse, copies });
  }

  /** Queries and window of an attention; of a ring only what it still has. */
  #seen({ attend, window, sinkTokens, causal = true }: Extract<Step, { attend: unknown }>, entries: readonly number[]) {
    const { place, ring = 0, window: kept = 0, sinkTokens: first = 0 } = this.#problem;
    if (place !== "ring") {
      const left = window === undefined ? undefined : ([window, causal ? 0 : -1] as const);
      return { M: attend, window: left, sinkTokens: left && sinkTokens, causal };
    }
    const lost = Math.max(0, ...entries.map((entry) => this.#peaks[entry] - this.#entries[entry].length));
    const left = Math.min(window ?? kept, kept, Math.max(0, ring - lost - 1));
    const M = Math.max(0, Math.min(attend, ring - lost - left));
    return { M, window: [left, 0] as const, sinkTokens: Math.min(sinkTokens ?? 0, first), causal: true };
  }

  #truncate([entry, tokens]: readonly [number, number]): void {
    const { place, ring = 0, window = 0 } = this.#problem;
    if (entry >= this.#entries.length) return;
    const { length } = this.#entries[entry];
    // Of a ring, no more than it has beside its window.
    const most = place === "ring" ? Math.max(0, ring - window - 1 - (this.#peaks[entry] - length)) : length;
    const left = length - Math.min(tokens, length, most);
    this.#cache.truncate(this.#encoder, entry, left);
    this.#entries[entry].length = left;
  }

  async #fork([from, to, fewer]: readonly [number, number, number]): Promise<void> {
    const source = this.#entries[from];
    if (!source || from === to || this.#entries[to]?.length !== 0) return;
    if (this.#problem.place !== "paged") fewer = 0;
    const tokens = Math.max(0, source.length - fewer);
    if (this.#problem.place !== "paged") this.#submit(); // it copies by commands of its own
    await this.#cache.fork(from, to, tokens);
    this.#entries[to] = source.slice(0, tokens);
    this.#rings[to] = new Map(this.#rings[from]);
    this.#peaks[to] = this.#problem.place === "ring" ? this.#peaks[from] : tokens;
  }

  #expectLengths(): void {
    const expected = this.#entries.map((tokens) => tokens.length);
    const { lengths } = this.#cache;
    if (`${lengths}` !== `${expected}`) throw new Error(`lengths are ${lengths}, expected ${expected}`);
  }

  async #compareTurned({ rows, tensor: written }: Turned): Promise<void> {
    const values = await written.read();
    const { D } = this.#problem;
    for (const { at, row } of rows) {
      for (let d = 0; d < D; d++) {
        if (isNear(values[at + d], row, d, "f32")) continue;
        throw new Error(`q: element ${at + d} is ${values[at + d]}, expected ${row.exact[d]}`);
      }
    }
  }
}

const located = (error: unknown, index: number, step: Step) =>
  error instanceof Error
    ? new Error(`${error.message} [step ${index}: ${JSON.stringify(step)}]`, { cause: error })
    : error;

const throwLocated = (error: unknown, { step }: { readonly step: number }, steps: readonly Step[]): never => {
  throw located(error, step, steps[step]);
};
