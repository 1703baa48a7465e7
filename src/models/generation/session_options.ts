// The options of sessions, and their checks.

import { check, FoveaError, show } from "../../errors.ts";
import type { OptionNames } from "../../given.ts";
import { takeOptions } from "../../options.ts";
import type { CachedRows, Definition, ModelInputs } from "../definition.ts";
import type { CacheOptions } from "./caches.ts";

/** Options of `Model.session`. */
export interface SessionOptions {
  /** Texts at a time. Default 1. */
  readonly entries?: number;
  /**
   * The most tokens of a text, for which memory is allocated. Default: what the model takes, at
   * most 2,048.
   */
  readonly capacity?: number;
  /** How keys and values are kept. Default: f32, in one piece. */
  readonly cache?: CacheOptions;
  /** The most tokens of each text that one submission reads. Default 64. */
  readonly chunk?: number;
  /**
   * What the encoder reads, for models that have one beside a decoder: as `run` takes it, without
   * `decoderIds`. The texts are those of the decoder, one for each entry of it.
   */
  readonly source?: ModelInputs;
  /**
   * A session of the same model, perhaps on a device that was lost, whose options are the defaults
   * and whose tokens are read again. Default none.
   */
  readonly resume?: SessionState;
}

/** What is known of a session without its device. */
export interface SessionState {
  readonly entries: number;
  readonly capacity: number;
  readonly chunk: number;
  readonly cache: CacheOptions;
  readonly source: ModelInputs | undefined;
  tokens(entry: number): readonly number[];
}

const SESSION_OPTIONS: OptionNames<Omit<SessionOptions, "resume" | "source">> = {
  entries: "number",
  capacity: "number",
  cache: "any",
  chunk: "number",
};
const CACHE_OPTIONS: OptionNames<CacheOptions> = {
  kind: "string",
  dtype: "string",
  groupSize: "number",
  pageSize: "number",
  forks: "number",
};

/** Checked options. */
export interface SessionSizes {
  readonly cached: CachedRows;
  readonly entries: number;
  readonly capacity: number;
  readonly chunk: number;
  readonly cache: CacheOptions;
  readonly source: ModelInputs | undefined;
}

/** The tokens that rotary embeddings reckon with in texts of so many. */
export function turnedFor({ cached, capacity }: SessionSizes, length: number): number {
  const { changesPast } = cached;
  if (changesPast === undefined) return capacity;
  return length <= changesPast ? changesPast : Math.max(capacity, changesPast + 1);
}

const DEFAULT_CAPACITY = 2048;
const DEFAULT_CHUNK = 64;

/** The most tokens of a text that a session of a model can have. */
export const mostTokens = ({ mostRows, cached }: Definition): number =>
  Math.min(mostRows, cached?.most ?? mostRows);

/** Checks the options of a session. Throws FoveaError that names what is wrong. */
export function sessionSizes(
  label: string,
  definition: Definition,
  { resume, source = resume?.source, ...given }: SessionOptions,
): SessionSizes {
  const { family, cached } = definition;
  if (!cached)
    throw new FoveaError("argument", `${label}: a ${family} reads whole texts; use run().`);
  const options = takeOptions(label, given, SESSION_OPTIONS);
  const cache: CacheOptions = takeOptions(
    `${label}: cache`,
    (options.cache as CacheOptions | undefined) ?? resume?.cache ?? {},
    CACHE_OPTIONS,
  );
  const most = mostTokens(definition);
  const {
    entries = resume?.entries ?? (source ? entriesOf(source) : 1),
    chunk = resume?.chunk ?? DEFAULT_CHUNK,
  } = options;
  const { capacity = resume?.capacity ?? Math.min(most, DEFAULT_CAPACITY) } = options;
  for (const [name, value] of Object.entries({ entries, capacity, chunk })) {
    const limit = name === "capacity" ? most : 2 ** 20;
    check(
      Number.isSafeInteger(value) && value >= 1 && value <= limit,
      "argument",
      () => `${label}: ${name} must be a whole number from 1 to ${limit}, got ${show(value)}.`,
    );
  }
  const { kind } = cache;
  check(
    kind === undefined || kind === "contiguous" || kind === "paged",
    "argument",
    () => `${label}: a cache is of kind "contiguous" or "paged", got ${show(kind)}.`,
  );
  return { cached, entries, capacity, chunk, cache, source };
}

/** Entries of an encoder's inputs, which are checked when it runs. */
const entriesOf = ({ ids, audio, features, pixels }: ModelInputs): number =>
  (ids ?? audio)?.length ?? (features ?? pixels)?.shape?.[0] ?? 1;
