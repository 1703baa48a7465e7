// The programs of a session: each reads some rows of every text, takes their keys and values into
// the caches, and sees all that is there.

import type { Tensor } from "../../gpu/tensor.ts";
import type { Graph } from "../../training/graph.ts";
import { cachedAttention, cachedRows } from "../../training/operations/cached_attention.ts";
import type { Batch, Program } from "../../training/program.ts";
import { recordProgram } from "../../training/record.ts";
import type { Value } from "../../training/value.ts";
import type { AdapterMix } from "../adapters/adapters.ts";
import type { Asked, Attend } from "../definition.ts";
import type { LayerCaches } from "./caches.ts";
import type { SessionModel } from "./session_model.ts";
import { smoothed } from "./smoothing.ts";
import type { SourceRows } from "./source_rows.ts";

/** What a program of a session is recorded for. */
export interface SessionRun {
  /** Rows of each text. */
  readonly rows: number;
  /**
   * Whether only the caches matter: then there are no results, and a text may have fewer rows than
   * the others.
   */
  readonly fills: boolean;
  /** Tokens that rotary embeddings reckon with. */
  readonly tokens: number;
  readonly asked: Asked;
}

/** The programs of a session, each recorded when it is first needed. */
export class SessionPrograms {
  readonly #model: SessionModel;
  readonly #caches: LayerCaches;
  readonly #entries: number;
  readonly #programs = new Map<string, Promise<Program>>();
  readonly #isSmooth: boolean;
  readonly #source: SourceRows | undefined;
  /** Rows of each text that the run which is encoded takes; undefined for all. */
  #counts: readonly number[] | undefined;
  /** The adapters that rows are computed with. */
  #mix: AdapterMix;

  /** @param isSmooth Whether keys are made easy to quantise */
  constructor(
    model: SessionModel,
    caches: LayerCaches,
    entries: number,
    isSmooth: boolean,
    source?: SourceRows,
  ) {
    this.#source = source;
    this.#model = model;
    this.#caches = caches;
    this.#entries = entries;
    this.#isSmooth = isSmooth;
    this.#mix = model.adapters.mix;
  }

  /** Takes the adapters that the model uses now; tells whether they are others than before. */
  adopt(): boolean {
    const { mix } = this.#model.adapters;
    const isOther = mix !== this.#mix;
    this.#mix = mix;
    return isOther;
  }

  /** Takes the adapters of other programs. */
  follow(others: SessionPrograms): void {
    this.#mix = others.#mix;
  }

  of(run: SessionRun): Promise<Program> {
    const key = JSON.stringify([run, this.#mix.names]);
    const known = this.#programs.get(key);
    if (known) return known;
    const recorded = this.#record(run);
    this.#programs.set(key, recorded);
    recorded.catch(() => this.#programs.delete(key));
    return recorded;
  }

  /** Records a run that takes so many rows of each text. It has to be submitted at once. */
  encode(
    program: Program,
    target: GPUCommandEncoder | GPUComputePassEncoder,
    counts?: readonly number[],
  ): void {
    this.#counts = counts;
    this.#mix.weigh();
    program.encode(target);
  }

  destroy(): void {
    for (const one of this.#programs.values())
      one.then((program) => program.destroy()).catch(() => undefined);
  }

  async #record(run: SessionRun): Promise<Program> {
    const { device, definition, weights } = this.#model;
    const scales = this.#isSmooth ? await this.#model.keyScales() : [];
    const seen = this.#source?.tensors ?? [];
    const program = await recordProgram(
      device,
      (graph) => ({ outputs: this.#define(graph, run) }),
      {
        parameters: new Map([...this.#mix.with(weights.tensors), ...scales, ...seen]),
        label: definition.family,
      },
    );
    for (const [name, data] of Object.entries(this.#source?.inputs ?? {}))
      await program.inputs.get(name)?.write(data);
    return program;
  }

  /** An input of a step. */
  input(program: Program, name: "ids" | "positions"): Tensor | undefined {
    return program.inputs.get(this.#source ? `decoder_${name}` : name);
  }

  /** Writes all inputs of a step. */
  async write(program: Program, { counts, ...rows }: Batch): Promise<void> {
    const prefix = this.#source ? "decoder_" : "";
    const named = Object.entries(rows).map(([name, data]) => [`${prefix}${name}`, data] as const);
    await program.write({
      ...Object.fromEntries(named),
      ...this.#source?.inputs,
      ...(counts !== undefined && { counts }),
    });
  }

  #define(graph: Graph, { rows, fills, tokens, asked }: SessionRun) {
    const { definition, weights } = this.#model;
    const batch = this.#entries;
    const counts = fills ? graph.input("counts", [batch], "i32") : undefined;
    let last: Value | undefined;
    const attend: Attend = (layer, q, k, v, settings) => {
      const { query, key } = this.#isSmooth
        ? smoothed(graph, layer, q, k, settings)
        : { query: q, key: k };
      const cache = this.#caches.layers[layer];
      // What comes after the rows of the last layer changes no cache.
      if (fills && layer === this.#caches.layers.length - 1) {
        last = cachedRows(query, key, v, cache, () => this.#counts);
        return last;
      }
      last = cachedAttention(query, key, v, cache, {
        ...settings,
        ...(counts && { qLengths: counts, counts: () => this.#counts }),
      });
      return last;
    };
    const source = this.#source;
    const own = { batch, rows, masked: false, tokens };
    const sizes = source ? { ...source.sizes, decoderRows: rows, tokens } : own;
    const seen = source?.seenIn(graph);
    const weight = this.#mix.over(graph, weights.of(graph));
    const results = definition.define(graph, weight, sizes, asked, attend, seen);
    return fills && last ? { last } : results;
  }
}

/** What a program that fills caches is given: `counts` tokens of each text from `known` on. */
export function chunkOf(
  texts: readonly (readonly number[])[],
  known: readonly number[],
  counts: readonly number[],
  rows: number,
) {
  const each = (of: (entry: number, row: number) => number) =>
    counts.flatMap((count, entry) =>
      Array.from({ length: rows }, (_, row) => (row < count ? of(entry, row) : 0)),
    );
  return {
    ids: each((entry, row) => texts[entry][known[entry] + row]),
    positions: each((entry, row) => known[entry] + row),
    counts,
  };
}
