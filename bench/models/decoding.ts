// What takes part in suite `models`: texts that libraries go on with, token by token.

import type { Contestant, Expected } from "../peers/contest.ts";
import type { Llama } from "./llama.ts";
import { type KeptRows, largestAt, ReferenceText } from "./reference.ts";

/** Tokens of a run. */
export const TOKENS = 8;

/** A text, and where a decoder goes on with it. */
export interface Task {
  readonly llama: Llama;
  /** [at + 1]: the last one is read by the first step. */
  readonly ids: readonly number[];
  readonly golden: Golden;
}

/** What a text goes on with. */
export interface Golden {
  /** Keys and values of all tokens but the last, by layer. */
  readonly kept: readonly KeptRows[];
  /** Of the row of the last token of the text. */
  readonly logits: { readonly f64: Float64Array; readonly plain: Float64Array };
  readonly tokens: readonly number[];
}

/** How far the largest logit has to be above the next one, so that roundings change no token. */
const MARGIN = 1e-3;

/** Reads a text on the CPU, and goes on with it by so many tokens. */
export function goldenOf(llama: Llama, ids: readonly number[], count: number): Golden {
  const text = new ReferenceText(llama, "f64");
  const plain = new ReferenceText(llama, "f32");
  for (const id of ids.slice(0, -1)) for (const one of [text, plain]) one.read(id);
  const last = ids[ids.length - 1];
  const kept = text.kept.map(({ keys, values }) => ({ keys: [...keys], values: [...values] }));
  const f64 = text.read(last, true) as Float64Array;
  const logits = { f64, plain: plain.read(last, true) as Float64Array };
  const tokens: number[] = [];
  let row = f64;
  for (;;) {
    const token = largestAt(row);
    const next = row.reduce((most, x, at) => (at === token ? most : Math.max(most, x)), -Infinity);
    if (row[token] - next < MARGIN) throw new Error("two tokens are as good as each other");
    tokens.push(token);
    if (tokens.length === count) return { kept, logits, tokens };
    row = text.read(token, true) as Float64Array;
  }
}

/** What a contest expects: the logits of the first step, and all tokens. */
export function expectedOf({ logits, tokens }: Golden): Expected[] {
  const { f64, plain } = logits;
  const at = Array.from(f64, (_, index) => index);
  const after = tokens.map((_, index) => f64.length + index);
  return [
    { at, f64, plain },
    { at: after, f64: tokens, plain: tokens },
  ];
}

/** A library that goes on with the text of a task. */
export interface Decoder {
  readonly kernel: string;
  readonly workspaceBytes: number;
  readonly readShare?: Contestant["readShare"];
  /** Takes back all tokens that were not in the text. */
  restart(): Promise<unknown>;
  /** The next token, which the step after reads. */
  next(): Promise<number>;
  /** Resolves when the GPU has nothing left to do. */
  idle(): Promise<unknown>;
  /** The logits of the first step, after a restart. */
  logits(): Promise<ArrayLike<number>>;
  destroy(): void;
}

/**
 * Times TOKENS steps of a decoder, of which the first comes after an untimed one, so that whoever
 * submits a step before the last one has told its token has as many steps to do as the others.
 */
export function decodingContestant(decoder: Decoder, { golden }: Task): Contestant {
  const prepare = async () => {
    await decoder.restart();
    const first = await decoder.next();
    await decoder.idle();
    return first;
  };
  const run = async () => {
    const tokens: number[] = [];
    while (tokens.length < TOKENS) tokens.push(await decoder.next());
    await decoder.idle();
    return tokens;
  };
  return {
    kernel: decoder.kernel,
    workspaceBytes: decoder.workspaceBytes,
    amount: TOKENS,
    ...(decoder.readShare && { readShare: decoder.readShare }),
    prepare,
    run,
    async read() {
      const tokens = [await prepare(), ...(await run())];
      await decoder.restart();
      return [...Array.from(await decoder.logits()), ...tokens.slice(0, golden.tokens.length)];
    },
    destroy: () => decoder.destroy(),
  };
}
