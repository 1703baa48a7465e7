// Histories of key-value caches as plain data: run on the GPU, many steps to a submission, and
// followed by a model that keeps every token in a list. What lies in the cache at each attention is
// compared with the model's tokens, and the attention with the float64 reference over what lies
// there.

import type { KvSourceOwner } from "../../src/attention/kv_source.ts";
import {
  type CacheAppendPlan,
  FoveaError,
  planAttention,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import type { ReferenceOptions } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { type Burst, runBurst, runRejected } from "./cache_bursts.ts";
import { compareLook, type Look } from "./cache_looks.ts";
import { CacheModel, type Drawing, newRows, newTokens } from "./cache_model.ts";
import { isNear, type Row, type RowTransform, transformed } from "./cache_rows.ts";
import type { CacheCase, Step } from "./cache_steps.ts";
import { makeCache, type Subject } from "./cache_subjects.ts";
import { product } from "./cases.ts";
import { defined } from "./features.ts";

/** Attention has separate kernels for up to so many queries. */
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
  readonly #model: CacheModel;
  readonly #drawing: Drawing;
  readonly #looks: Look[] = [];
  readonly #turned: Turned[] = [];
  readonly #made: { destroy(): void }[] = [];
  #encoder: GPUCommandEncoder;
  #subject: Subject | undefined;
  #seed: number;

  constructor(device: GPUDevice, problem: CacheCase) {
    this.#device = device;
    this.#problem = problem;
    this.#model = new CacheModel(problem);
    this.#drawing = { device, make: problem, nextSeed: () => ++this.#seed, made: this.#made };
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
    for (const turned of this.#turned)
      await this.#compareTurned(turned).catch((e) => throwLocated(e, turned, steps));
  }

  destroy(): void {
    for (const made of this.#made) made.destroy();
  }

  get #cache(): Subject {
    if (!this.#subject) throw new Error("there is no cache");
    return this.#subject;
  }

  async #take(step: Step, index: number): Promise<void> {
    if ("append" in step) return this.#append(step, index);
    if ("attend" in step) return this.#attend(step, index);
    if ("truncate" in step) return this.#truncate(step.truncate);
    if ("fork" in step) return this.#fork(step.fork);
    if ("free" in step) {
      if (step.free >= this.#model.entries.length) return;
      this.#cache.truncate(this.#encoder, step.free, 0);
      return this.#model.truncate(step.free, 0);
    }
    this.#submit(); // what follows submits its own commands
    if ("reorder" in step) {
      const { length } = this.#model.entries;
      const sources = this.#model.entries.map(
        (_, entry) => (step.reorder[entry] ?? entry) % length,
      );
      await this.#cache.reorder(sources);
      this.#model.reorder(sources);
    }
    if ("lost" in step) await this.#lose(step);
    if ("reject" in step) await runRejected(this.#burst, step.reject, step.batch);
    if ("calls" in step) await runBurst(this.#burst, step.calls);
  }

  get #burst(): Burst {
    return {
      drawing: this.#drawing,
      model: this.#model,
      subject: this.#cache,
      batchOf: (batch) => this.#batchOf(batch),
    };
  }

  /** Encodes an append that is never submitted. */
  async #lose({ lost, batch }: Extract<Step, { lost: unknown }>): Promise<void> {
    const entries = this.#batchOf(batch);
    if (!entries.length) return;
    const counts = entries.map((_, i) => lost[i] ?? 0);
    if (!this.#cache.hasRoom(entries, counts)) return;
    const lengths = entries.map((entry) => this.#model.entries[entry].length);
    const { k, v } = newTokens(this.#drawing, lengths, counts);
    await this.#cache.resync(async (_, encoder) => {
      const target = await this.#cache.batch(entries);
      const plan = await target.planAppend({ k, v });
      this.#made.push(plan);
      plan.encode(encoder, { counts });
    });
  }

  #submit(): void {
    this.#device.queue.submit([this.#encoder.finish()]);
    this.#encoder = this.#device.createCommandEncoder();
  }

  /** Returns the entries that a step is about: those of its batch that exist, each once. */
  #batchOf(batch: readonly number[] | undefined): number[] {
    const all = this.#model.entries.map((_, entry) => entry);
    return batch && this.#problem.place === "paged"
      ? [...new Set(batch.filter((entry) => entry in all))]
      : all;
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
    const { place, D, Hkv, G, qkNorm, rotary, queries } = this.#problem;
    const entries = this.#batchOf(batch);
    if (!entries.length) return;
    const counts = entries.map((_, i) => append[i] ?? 0);
    const isPoison = poison && place !== "ring";
    const lengths = entries.map((entry) => this.#model.entries[entry].length);
    const { k, v, tokens } = newTokens(
      this.#drawing,
      lengths,
      counts,
      isPoison ? Number.NaN : spread,
    );
    const how: RowTransform = defined({ qkNorm, rotary });
    const asked = { heads: Hkv * G, dim: D, deviation: spread };
    const turned =
      queries && (qkNorm || rotary) ? newRows(this.#drawing, counts, asked) : undefined;
    const target = await this.#cache.batch(entries);
    const plan: CacheAppendPlan = await target.planAppend({
      k,
      v,
      ...(turned && { q: turned.gpu }),
    });
    this.#made.push(plan);
    const room = this.#cache.hasRoom(entries, counts);
    const before = this.#cache.lengths;
    try {
      plan.encode(this.#encoder, { counts });
    } catch (error) {
      if (!(error instanceof FoveaError) || error.code !== "limit" || room) throw error;
      if (`${this.#cache.lengths}` !== `${before}`)
        throw new Error(`lengths changed from ${before} though ${error}`);
      return;
    }
    if (!room) throw new Error("the append ought to be refused, for there is no room");
    if (turned) {
      const list = entries.flatMap((_entry, b) =>
        Array.from({ length: Hkv * G * counts[b] }, (_, n) => {
          const h = Math.floor(n / counts[b]);
          const i = n % counts[b];
          const position = lengths[b] + i;
          return {
            at: turned.at(b, h, i),
            row: transformed(turned.row(b, h, i), position, "q", how),
          };
        }),
      );
      this.#turned.push({ step: index, rows: list, tensor: turned.gpu });
    }
    for (const [b, entry] of entries.entries()) {
      this.#model.append(entry, tokens[b]);
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
    const numbers = (factor: number) =>
      Float32Array.from({ length: H }, (_, h) => factor * (h + 1));
    const features = defined<ReferenceOptions>({
      causal,
      window,
      sinkTokens,
      softcap,
      alibiSlopes: this.#problem.alibi ? numbers(0.03) : undefined,
      sinks: this.#problem.sinks ? numbers(0.5) : undefined,
    });
    const poison = (size: readonly number[]) =>
      this.#tensor(size, new Float32Array(product(size)).fill(Number.NaN));
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
    const plan = await planAttention(
      this.#device,
      asked as unknown as Parameters<typeof planAttention>[1],
    );
    this.#made.push(plan);
    plan.encode(this.#encoder);
    if (M === 0) return; // nothing is recorded
    const { source } = cache;
    const copies = [source.k, source.v, source.state].map(({ buffer }) => {
      // COPY_SRC, COPY_DST
      const copy = this.#device.createBuffer({ size: buffer.size, usage: 4 | 8 });
      this.#encoder.copyBufferToBuffer(buffer, 0, copy, 0, buffer.size);
      this.#made.push(copy);
      return copy;
    });
    const tokens = entries.map((entry) => [...this.#model.entries[entry]]);
    const { entries: lists, rings } = this.#model;
    const held = entries.map(
      (entry) => new Set(place === "ring" ? rings[entry].values() : lists[entry]),
    );
    const options = { ...features, kvLengths: tokens.map((list) => list.length) };
    this.#looks.push({
      step: index,
      source,
      tokens,
      held,
      q: { data, shape },
      options,
      output,
      lse,
      copies,
    });
  }

  /** Returns queries and window of an attention; in a ring it sees only what the ring still has. */
  #seen(
    { attend, window, sinkTokens, causal = true }: Extract<Step, { attend: unknown }>,
    entries: readonly number[],
  ) {
    const { place, ring = 0, window: kept = 0, sinkTokens: first = 0 } = this.#problem;
    if (place !== "ring") {
      const left = window === undefined ? undefined : ([window, causal ? 0 : -1] as const);
      return { M: attend, window: left, sinkTokens: left && sinkTokens, causal };
    }
    const lost = Math.max(
      0,
      ...entries.map((entry) => this.#model.peaks[entry] - this.#model.entries[entry].length),
    );
    const left = Math.min(window ?? kept, kept, Math.max(0, ring - lost - 1));
    const M = Math.max(0, Math.min(attend, ring - lost - left));
    return {
      M,
      window: [left, 0] as const,
      sinkTokens: Math.min(sinkTokens ?? 0, first),
      causal: true,
    };
  }

  #truncate([entry, tokens]: readonly [number, number]): void {
    if (entry >= this.#model.entries.length) return;
    const left = this.#model.cut(entry, tokens);
    this.#cache.truncate(this.#encoder, entry, left);
    this.#model.truncate(entry, left);
  }

  async #fork([from, to, fewer]: readonly [number, number, number]): Promise<void> {
    const { entries } = this.#model;
    const source = entries[from];
    if (!source || from === to || entries[to]?.length !== 0) return;
    if (this.#problem.place !== "paged") fewer = 0;
    const tokens = Math.max(0, source.length - fewer);
    if (this.#problem.place !== "paged") this.#submit(); // forking submits its own copies
    await this.#cache.fork(from, to, tokens);
    this.#model.fork(from, to, tokens);
  }

  #expectLengths(): void {
    const expected = this.#model.lengths;
    const { lengths } = this.#cache;
    if (`${lengths}` !== `${expected}`)
      throw new Error(`lengths are ${lengths}, expected ${expected}`);
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

const throwLocated = (
  error: unknown,
  { step }: { readonly step: number },
  steps: readonly Step[],
): never => {
  throw located(error, step, steps[step]);
};
