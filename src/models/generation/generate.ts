// Generation: texts go on token by token.

import { check } from "../../errors.ts";
import type { Model } from "../model.ts";
import { Decoding, IN_FLIGHT, type Told } from "./decoding.ts";
import { type GeneratedToken, Line } from "./line.ts";
import { type GenerateOptions, type Generating, takeGenerating, usualTokens } from "./options.ts";
import { type Prompt, promptsOf, textsIn } from "./prompt.ts";
import type { Session } from "./session.ts";
import { mostTokens } from "./session_options.ts";
import { checkDraft, speculate } from "./speculative.ts";
import { textsOf } from "./texts.ts";

/**
 * Goes on with a text, or with several at a time, token by token. Keys and values of earlier tokens
 * are kept on the GPU, tokens are chosen there, and each step is submitted before the token of the
 * step before it has come back; nothing is allocated from one to the next. Leaving the loop ends
 * it.
 *
 * Throws FoveaError for prompts and options that make no sense, before anything is read; "limit" for
 * more tokens than the model or the session has room for.
 *
 * @param prompt A text or ids; a list of them for several texts at a time. With a session, what its
 *   texts go on with, which may be empty
 *
 * @example
 * for await (const { token, text } of generate(model, [464, 3290], { maxNewTokens: 20 })) {
 *   console.log(token, text);
 * }
 */
export async function* generate(
  model: Model,
  prompt: Prompt | readonly Prompt[],
  options: GenerateOptions = {},
): AsyncGenerator<GeneratedToken, void, undefined> {
  const { definition } = model.parts();
  const label = `${definition.family} generate`;
  const generating = takeGenerating(label, definition, options);
  const given = textsIn(label, promptsOf(prompt), generating.tokenizer);
  // An empty prompt of a new text begins as the config says.
  const begin = generating.session ? undefined : definition.begins;
  const texts = given.map((ids) => (ids.length || begin === undefined ? ids : [begin]));
  const session = generating.session ?? (await sessionFor(label, model, texts, generating));
  check(
    session.model.definition === definition,
    "argument",
    () => `${label}: the session belongs to another model.`,
  );
  const end = await session.begin();
  try {
    yield* goOn(label, session, textsOf(label, texts, session.entries), generating);
  } finally {
    end();
    if (session !== generating.session) session.destroy();
  }
}

function sessionFor(
  label: string,
  model: Model,
  texts: readonly (readonly number[])[],
  { maxNewTokens, cache, chunk, source }: Generating,
): Promise<Session> {
  const longest = Math.max(...texts.map(({ length }) => length));
  const most = mostTokens(model.parts().definition);
  const capacity = longest + (maxNewTokens ?? usualTokens(most - longest));
  check(
    capacity <= most,
    "limit",
    () => `${label}: ${capacity} tokens are more than the ${most} that the model takes.`,
  );
  return model.session({
    entries: texts.length,
    capacity,
    ...(cache && { cache }),
    ...(source && { source }),
    ...(chunk !== undefined && { chunk }),
  });
}

async function* goOn(
  label: string,
  session: Session,
  texts: readonly (readonly number[])[],
  generating: Generating,
): AsyncGenerator<GeneratedToken, void, undefined> {
  const { signal, settings } = generating;
  signal?.throwIfAborted();
  const starts = session.lengths.map((length, at) => length + texts[at].length);
  check(
    Math.min(...starts) > 0,
    "argument",
    () => `${label}: a text needs one token or more to go on from.`,
  );
  if (generating.draft) checkDraft(label, session, generating.draft);
  const before = Math.max(...starts);
  const most = generating.maxNewTokens ?? usualTokens(session.capacity - before);
  session.take(texts, most); // nothing of a call that is refused stays
  if (generating.draft) {
    yield* speculate(session, generating.draft, new Line(0, session, generating, most), generating);
    return;
  }
  const { logits, attention, hidden } = generating;
  const asked = { logits, attention, hidden };
  const lines = starts.map((_, entry) => new Line(entry, session, generating, most));
  let decoding: Decoding | undefined;
  const steps: (() => Promise<Told>)[] = [];
  let submitted = 0;
  try {
    while (lines.some((one) => !one.ended)) {
      while (submitted < most && steps.length < IN_FLIGHT) {
        signal?.throwIfAborted();
        const changes = session.changesAt(before + submitted);
        if (changes && steps.length > 0) break;
        const isFirst = !decoding || changes;
        if (isFirst) {
          await session.read(signal);
          decoding?.destroy();
          decoding = await Decoding.make(session, settings, asked);
        }
        const positions = starts.map((length) => length - 1 + submitted);
        const last = isFirst ? starts.map((_, at) => session.last(at)) : undefined;
        // Draws go by the length of the text, so that a session that goes on draws the same.
        steps.push(await (decoding as Decoding).submit(before + submitted, positions, last));
        submitted++;
      }
      const told = await (steps.shift() as () => Promise<Told>)();
      signal?.throwIfAborted();
      session.push(told.tokens);
      for (const [at, one] of lines.entries())
        if (!one.ended) yield one.next(told.tokens[at], told.logprobs[at], told.results);
    }
  } finally {
    await Promise.allSettled(steps.map((told) => told()));
    decoding?.destroy();
    await session.keep(lines.map((one, at) => starts[at] + one.count)).catch(() => undefined);
  }
}
