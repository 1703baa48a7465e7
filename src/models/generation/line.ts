// A text that goes on: what its tokens spell, and when it ends.

import type { StepResult } from "./decoding.ts";
import type { Generating } from "./options.ts";
import type { Session } from "./session.ts";
import { TextStream } from "./tokenizer.ts";

/** A result of the model that came with a token. */
export interface TokenResult {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** A token of a text. */
export interface GeneratedToken {
  /** The text, counted from 0. */
  readonly entry: number;
  /** The number of the token among the new ones of its text, from 0 on. */
  readonly index: number;
  readonly token: number;
  /** The text that is complete with this token; empty without a tokenizer. */
  readonly text: string;
  /** The logarithm of the token's probability by the model's own softmax. */
  readonly logprob: number;
  /** Why the text ends here: at what stops it, or at `maxNewTokens`. Undefined if it goes on. */
  readonly finish: "stop" | "length" | undefined;
  /** [V], if they were asked for. */
  readonly logits?: Float32Array;
  /**
   * What else was asked for, of the row that the token was chosen from: `attention.N` [H, keys] and
   * `hidden.N` [width].
   */
  readonly results?: Readonly<Record<string, TokenResult>>;
}

/** A text that goes on. */
export class Line {
  /** New tokens so far. */
  count = 0;
  ended = false;
  readonly #entry: number;
  readonly #generating: Generating;
  readonly #most: number;
  readonly #start: number;
  readonly #text: TextStream;

  constructor(entry: number, session: Session, generating: Generating, most: number) {
    this.#entry = entry;
    this.#generating = generating;
    this.#most = most;
    this.#start = session.lengths[entry];
    const { tokenizer, stopTexts } = generating;
    this.#text = new TextStream(tokenizer, stopTexts, session.last(entry));
  }

  /** Takes a token. `results` is what came back beside the tokens of all texts. */
  next(token: number, logprob: number, results: readonly StepResult[] = []): GeneratedToken {
    const { stopIds } = this.#generating;
    const index = this.count;
    const ends = stopIds.has(token);
    const pushed = ends ? { text: "", stopped: false } : this.#text.push(token);
    this.count++;
    const isLast = this.count === this.#most;
    const finish = ends || pushed.stopped ? "stop" : isLast ? "length" : undefined;
    this.ended = finish !== undefined;
    const rest = this.ended && !pushed.stopped ? this.#text.end() : "";
    const { logits, ...others } = this.#own(results, index);
    return {
      entry: this.#entry,
      index,
      token,
      text: pushed.text + rest,
      logprob,
      finish,
      ...(logits && { logits: logits.data }),
      ...(Object.keys(others).length > 0 && { results: others }),
    };
  }

  /** What came back for this text. */
  #own(results: readonly StepResult[], index: number): Record<string, TokenResult> {
    const keys = this.#start + index;
    return Object.fromEntries(
      results.map(({ name, shape: [entries, ...each], data: all }) => {
        const size = all.length / entries;
        const own = all.subarray(this.#entry * size, (this.#entry + 1) * size);
        if (!name.startsWith("attention.")) {
          const shape = each.slice(-1);
          return [name, { shape, data: own.slice() }];
        }
        const [heads, , capacity] = each;
        const data = new Float32Array(heads * keys);
        for (let head = 0; head < heads; head++)
          data.set(own.subarray(head * capacity, head * capacity + keys), head * keys);
        return [name, { shape: [heads, keys], data }];
      }),
    );
  }
}
