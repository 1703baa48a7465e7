// The options of generation, and their checks.

import { check, show } from "../../errors.ts";
import { elementsOfList, type OptionNames } from "../../given.ts";
import { takeOptions } from "../../options.ts";
import type { Definition, ModelInputs } from "../definition.ts";
import type { Model } from "../model.ts";
import { resolveSettings, SAMPLING_SETTINGS, type SamplingSettings } from "../sampling/options.ts";
import type { CacheOptions } from "./caches.ts";
import type { Session } from "./session.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** Options of `generate`. */
export interface GenerateOptions extends Omit<SamplingSettings, "temperature"> {
  /** What logits are divided by. 0 is greedy. Default 0. */
  readonly temperature?: number;
  /** The most tokens that each text gets. Default 256, or what there is room for. */
  readonly maxNewTokens?: number;
  /**
   * What ends a text: ids, which come as its last token, and texts, which do not come out and need
   * a tokenizer. Default: the ids that the model's config ends texts with.
   */
  readonly stop?: readonly (number | string)[];
  /** Turns prompts into ids, and tokens into text. Default none: prompts are ids. */
  readonly tokenizer?: Tokenizer;
  /**
   * What the encoder reads, for models that have one beside a decoder, in a new session: as `run`
   * takes it. The prompts are the decoder's; an empty one begins as the config says.
   */
  readonly source?: ModelInputs;
  /** Goes on from the texts of a session, which has the new ones after that. Default: a new one. */
  readonly session?: Session;
  /**
   * A smaller model of the same vocabulary, which guesses tokens that the model then reads at once:
   * speculative decoding (arXiv 2211.17192, greedily). The tokens are those without it. One text at
   * a time, at temperature 0, without results beside the tokens. Default none.
   */
  readonly draft?: Model;
  /** How many tokens are guessed at a time, 1 to 16. Default 4. */
  readonly draftTokens?: number;
  /** How keys and values are kept, in a new session. Default: f32, in one piece. */
  readonly cache?: CacheOptions;
  /** The most tokens of a prompt that one submission reads, in a new session. Default 64. */
  readonly chunk?: number;
  /** Whether each token comes with the logits that it was chosen from. Default false. */
  readonly logits?: boolean;
  /** Layers whose probabilities of attention come with each token. Default none. */
  readonly attention?: readonly number[];
  /** Whether each token comes with the rows after each layer. Default false. */
  readonly hidden?: boolean;
  /** Stops everything: generation throws the reason of the signal. */
  readonly signal?: AbortSignal;
}

const OPTIONS: OptionNames<
  Omit<GenerateOptions, "tokenizer" | "session" | "signal" | "draft" | "source">
> = {
  ...SAMPLING_SETTINGS,
  maxNewTokens: "number",
  stop: "any",
  cache: "any",
  chunk: "number",
  logits: "boolean",
  attention: "any",
  hidden: "boolean",
  draftTokens: "number",
};

const MOST_GUESSES = 16;
const DEFAULT_TOKENS = 256;

/** Checked options. */
export interface Generating {
  readonly settings: SamplingSettings;
  /** Undefined: as many as there is room for, up to 256. */
  readonly maxNewTokens: number | undefined;
  readonly stopIds: ReadonlySet<number>;
  readonly stopTexts: readonly string[];
  readonly tokenizer: Tokenizer | undefined;
  readonly session: Session | undefined;
  readonly signal: AbortSignal | undefined;
  readonly source: ModelInputs | undefined;
  readonly draft: Model | undefined;
  readonly draftTokens: number;
  readonly cache: CacheOptions | undefined;
  readonly chunk: number | undefined;
  readonly logits: boolean;
  readonly attention: readonly number[];
  readonly hidden: boolean;
}

/** The most new tokens, by default, of texts that have room for so many. */
export const usualTokens = (room: number): number => Math.max(1, Math.min(DEFAULT_TOKENS, room));

/** Checks the options of generation. Throws FoveaError that names what is wrong. */
export function takeGenerating(
  label: string,
  { ends = [], layers }: Definition,
  given: GenerateOptions,
): Generating {
  const { tokenizer, session, signal, draft, source, ...rest } = given;
  const options = takeOptions(label, rest, OPTIONS);
  const { maxNewTokens, cache, chunk, logits = false, hidden = false, draftTokens = 4 } = options;
  const { stop: stops = ends, attention: watched = [] } = options;
  const settings = { temperature: 0, ...samplingOf(options) };
  resolveSettings(label, settings);
  check(
    maxNewTokens === undefined || (Number.isSafeInteger(maxNewTokens) && maxNewTokens >= 1),
    "argument",
    () => `${label}: maxNewTokens must be a whole number from 1 up, got ${show(maxNewTokens)}.`,
  );
  const stop = elementsOfList<number | string>(stops) ?? [Number.NaN];
  check(
    stop.every((one) => (typeof one === "string" ? one !== "" : Number.isSafeInteger(one))),
    "argument",
    () => `${label}: stop must be a list of ids and texts, got ${show(stops)}.`,
  );
  const attention = elementsOfList<number>(watched) ?? [-1];
  check(
    attention.every((at) => Number.isInteger(at) && at >= 0 && at < layers),
    "argument",
    () => `${label}: attention must be a list of layers, 0 to ${layers - 1}, got ${show(watched)}.`,
  );
  const stopTexts = stop.filter((one) => typeof one === "string");
  check(
    stopTexts.length === 0 || tokenizer !== undefined,
    "argument",
    () => `${label}: a text to stop at needs a tokenizer.`,
  );
  check(
    Number.isInteger(draftTokens) && draftTokens >= 1 && draftTokens <= MOST_GUESSES,
    "argument",
    () => `${label}: draftTokens must be a whole number, 1 to ${MOST_GUESSES}, got ${draftTokens}.`,
  );
  const isPlain = settings.temperature === 0 && (settings.repetitionPenalty ?? 1) === 1;
  check(
    !draft || (isPlain && !logits && !hidden && attention.length === 0),
    "argument",
    () => `${label}: a draft goes with temperature 0, and no penalty, logits, attention or hidden.`,
  );
  return {
    settings,
    source,
    draft,
    draftTokens,
    maxNewTokens,
    stopIds: new Set(stop.filter((one) => typeof one === "number")),
    stopTexts,
    tokenizer,
    session,
    signal,
    cache: cache as CacheOptions | undefined,
    chunk,
    logits,
    attention: [...attention],
    hidden,
  };
}

/** The members of options that say how tokens are chosen. */
const samplingOf = (options: SamplingSettings): SamplingSettings =>
  Object.fromEntries(
    Object.keys(SAMPLING_SETTINGS)
      .map((name) => [name, options[name as keyof SamplingSettings]] as const)
      .filter(([, value]) => value !== undefined),
  );
