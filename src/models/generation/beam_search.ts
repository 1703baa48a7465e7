// Beam search: the texts of the largest probability that are found when the best few beginnings go on
// at each step.

import { check, FoveaError, show } from "../../errors.ts";
import type { OptionNames } from "../../given.ts";
import { takeOptions } from "../../options.ts";
import type { Model } from "../model.ts";
import { planTopTokens } from "../sampling/top_tokens.ts";
import type { CacheOptions } from "./caches.ts";
import { type Prompt, textsIn } from "./prompt.ts";
import { mostTokens } from "./session_options.ts";
import { StepReader } from "./step_reader.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** Options of `beamSearch`. */
export interface BeamSearchOptions {
  /** Beginnings that go on at a time, 1 to 32. Default 4. */
  readonly beams?: number;
  /** The most tokens of a text. Default 64, or what there is room for. */
  readonly maxNewTokens?: number;
  /** The exponent of the length that the logarithm of a text's probability is divided by. Default 1. */
  readonly lengthPenalty?: number;
  /** Ids that end a text. Default: those that the model's config ends texts with. */
  readonly stop?: readonly number[];
  /** Turns the prompt into ids, and tokens into text. Default none: the prompt is ids. */
  readonly tokenizer?: Tokenizer;
  /** How keys and values are kept; in pages, beams share theirs. Default: f32, in one piece. */
  readonly cache?: CacheOptions;
  /** Stops the search, which then rejects with the reason of the signal. */
  readonly signal?: AbortSignal;
}

const OPTIONS: OptionNames<Omit<BeamSearchOptions, "tokenizer" | "signal">> = {
  beams: "number",
  maxNewTokens: "number",
  lengthPenalty: "number",
  stop: "any",
  cache: "any",
};

/** A text that beam search has found. */
export interface FoundText {
  /** The new tokens, the one that ends the text among them. */
  readonly tokens: readonly number[];
  /** Their text; empty without a tokenizer. */
  readonly text: string;
  /** The logarithm of their probability by the model. */
  readonly logprob: number;
  /** logprob / length^lengthPenalty, by which texts are compared. */
  readonly score: number;
}

const MOST_BEAMS = 32;
const DEFAULT_TOKENS = 64;

/** A beginning that goes on, or a text that has ended. */
interface Hypothesis {
  readonly tokens: readonly number[];
  readonly logprob: number;
}

/**
 * Finds likely texts that go on from a prompt, the best first. The steps are those of `generate` of
 * Hugging Face's transformers with `num_beams` and early_stopping false: of all continuations the
 * best 2 * beams are looked at; those that end are kept, the best `beams` others go on; it ends once
 * no beginning can become better than the worst text that is kept.
 *
 * Rejects with FoveaError for a prompt or options that make no sense, and "limit" for more tokens
 * than the model has room for.
 *
 * @example
 * const [{ text }] = await beamSearch(model, "The sea", { tokenizer, beams: 4 });
 */
export async function beamSearch(
  model: Model,
  prompt: Prompt,
  given: BeamSearchOptions = {},
): Promise<readonly FoundText[]> {
  const { definition } = model.parts();
  const label = `${definition.family} beamSearch`;
  const { tokenizer, signal, ...rest } = given;
  const options = takeOptions(label, rest, OPTIONS);
  const { beams = 4, lengthPenalty = 1, cache, stop = definition.ends ?? [] } = options;
  const expect = (holds: boolean, what: string, value: unknown) =>
    check(holds, "argument", () => `${label}: ${what}, got ${show(value)}.`);
  expect(
    Number.isInteger(beams) && beams >= 1 && beams <= MOST_BEAMS,
    `beams must be a whole number, 1 to ${MOST_BEAMS}`,
    beams,
  );
  expect(Number.isFinite(lengthPenalty), "lengthPenalty must be a number", lengthPenalty);
  expect(
    Array.isArray(stop) && stop.every(Number.isSafeInteger),
    "stop must be a list of ids",
    stop,
  );
  check(
    definition.source === undefined,
    "argument",
    () => `${label}: beams of a model with an encoder are not there yet; use generate().`,
  );
  const [ids] = textsIn(label, [prompt], tokenizer);
  expect(ids.length > 0, "a prompt has one token or more", prompt);
  const most = mostTokens(definition);
  const room = Math.max(1, Math.min(DEFAULT_TOKENS, most - ids.length));
  const { maxNewTokens = room } = options;
  expect(
    Number.isSafeInteger(maxNewTokens) && maxNewTokens >= 1,
    "maxNewTokens must be a whole number from 1 up",
    maxNewTokens,
  );
  if (ids.length + maxNewTokens > most) {
    const count = ids.length + maxNewTokens;
    throw new FoveaError("limit", `${label}: the model takes ${most} tokens, and not ${count}.`);
  }
  const session = await model.session({
    entries: beams,
    capacity: ids.length + maxNewTokens,
    ...(cache && { cache: cache as CacheOptions }),
  });
  const search = new Search(beams, lengthPenalty, new Set(stop));
  let reader: StepReader | undefined;
  try {
    await session.append([[...ids], ...Array.from({ length: beams - 1 }, () => [])], signal);
    if (beams > 1) await session.reorder(new Array<number>(beams).fill(0));
    const k = Math.min(2 * beams, definition.vocab ?? 2 * beams);
    reader = await StepReader.make(session, 1, [k], (device, memory) =>
      planTopTokens(device, { ...memory, k }),
    );
    for (let at = 1; at <= maxNewTokens && !search.isDone; at++) {
      signal?.throwIfAborted();
      const { lengths } = session;
      const last = lengths.map((_, entry) => session.last(entry));
      const places = lengths.map((length) => length - 1);
      const sources = search.take(await reader.read(last, places));
      if (at === maxNewTokens || search.isDone) break;
      if (sources.some((from, to) => from !== to)) await session.reorder(sources);
      session.push(search.last);
    }
  } finally {
    reader?.destroy();
    session.destroy();
  }
  return search.found().map(({ tokens, logprob }) => ({
    tokens,
    text: tokenizer?.decode([...tokens], { skip_special_tokens: true }) ?? "",
    logprob,
    score: search.scoreOf({ tokens, logprob }),
  }));
}

/** The likeliest next tokens of each beginning. */
interface Next {
  readonly ids: Int32Array;
  readonly logprobs: Float32Array;
}

/** The beginnings that go on, and the texts that have ended. */
class Search {
  readonly #beams: number;
  readonly #exponent: number;
  readonly #ends: ReadonlySet<number>;
  #going: Hypothesis[] = [{ tokens: [], logprob: 0 }];
  #ended: Hypothesis[] = [];

  constructor(beams: number, exponent: number, ends: ReadonlySet<number>) {
    this.#beams = beams;
    this.#exponent = exponent;
    this.#ends = ends;
  }

  scoreOf({ tokens, logprob }: Hypothesis): number {
    return logprob / tokens.length ** this.#exponent;
  }

  /** The last token of each beginning. */
  get last(): readonly number[] {
    return this.#going.map(({ tokens }) => tokens[tokens.length - 1]);
  }

  /** Whether no beginning can become better than what has ended, if it ended now. */
  get isDone(): boolean {
    if (this.#ended.length < this.#beams) return false;
    const worst = Math.min(...this.#ended.map((one) => this.scoreOf(one)));
    return worst >= Math.max(...this.#going.map((one) => this.scoreOf(one)));
  }

  /** Goes on with the best; gives for each beginning the one that it comes from. */
  take({ ids, logprobs }: Next): readonly number[] {
    const count = ids.length / this.#beams;
    const all = this.#going.flatMap(({ tokens, logprob }, from) =>
      Array.from({ length: count }, (_, at) => ({
        from,
        tokens: [...tokens, ids[from * count + at]],
        logprob: logprob + logprobs[from * count + at],
      })),
    );
    const best = all.sort((a, b) => b.logprob - a.logprob).slice(0, 2 * this.#beams);
    const goesOn = ({ tokens }: Hypothesis) => !this.#ends.has(tokens[tokens.length - 1]);
    const ended = best.filter((one, rank) => rank < this.#beams && !goesOn(one));
    this.#ended = [...this.#ended, ...ended]
      .sort((a, b) => this.scoreOf(b) - this.scoreOf(a))
      .slice(0, this.#beams);
    const going = best.filter(goesOn).slice(0, this.#beams);
    // If nearly all end, the last beginning goes on more than once, behind all others.
    while (going.length < this.#beams) going.push({ ...best[0], logprob: -1e30 });
    this.#going = going;
    return going.map(({ from }) => from);
  }

  /** The best texts, with beginnings if these may be better than what has ended. */
  found(): readonly Hypothesis[] {
    const going = this.#going.filter(({ logprob, tokens }) => logprob > -1e29 && tokens.length);
    return [...this.#ended, ...(this.isDone ? [] : going)]
      .sort((a, b) => this.scoreOf(b) - this.scoreOf(a))
      .slice(0, this.#beams);
  }
}
