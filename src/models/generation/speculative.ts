// Speculative decoding: a small model guesses some tokens, and the large one reads all of them at
// once. Those that it would have chosen itself stay, and the first other one is replaced.

import { check } from "../../errors.ts";
import type { Model } from "../model.ts";
import { planSampling } from "../sampling/sampling.ts";
import { Decoding, type Told } from "./decoding.ts";
import type { GeneratedToken, Line } from "./line.ts";
import type { Generating } from "./options.ts";
import type { Session } from "./session.ts";
import { mostTokens } from "./session_options.ts";
import { StepReader } from "./step_reader.ts";

const GREEDY = { temperature: 0 };

/**
 * Throws FoveaError("argument") for a draft that cannot guess for a session.
 */
export function checkDraft(label: string, session: Session, draft: Model): void {
  const { definition } = session.model;
  const small = draft.parts().definition;
  check(
    session.entries === 1 && small.vocab === definition.vocab,
    "argument",
    () => `${label}: a draft of the same vocabulary goes on with one text at a time.`,
  );
  check(
    [definition, small].every(({ cached }) => cached?.changesPast === undefined),
    "argument",
    () => `${label}: a draft does not go with a rotary embedding that changes with the length.`,
  );
}

/** Goes on with the one text of a session, which has all tokens of its prompt. */
export async function* speculate(
  session: Session,
  draft: Model,
  line: Line,
  { draftTokens: guesses, signal }: Generating,
): AsyncGenerator<GeneratedToken, void, undefined> {
  const small = draft.parts().definition;
  const start = session.lengths[0];
  await session.read(signal);
  // The last guesses may be beyond the last token.
  const guessing = await draft.session({ capacity: Math.min(session.capacity, mostTokens(small)) });
  let guesser: Decoding | undefined;
  let reader: StepReader | undefined;
  try {
    guessing.take(session.tokens(), 0);
    while (!line.ended) {
      signal?.throwIfAborted();
      const length = session.lengths[0];
      const room = Math.min(session.capacity, guessing.capacity) - length;
      const count = Math.min(guesses, Math.max(room, 0));
      if (count > 0) await guessing.read(signal);
      guesser ??= await Decoding.make(guessing, GREEDY, {});
      const guessed = await guess(guesser, guessing.last(0), length, count);
      reader = await readerFor(session, reader, count + 1);
      const asked = [session.last(0), ...guessed];
      const places = asked.map((_, at) => length - 1 + at);
      const { ids: tokens, logprobs } = await reader.read(asked, places);
      const wrong = guessed.findIndex((id, at) => id !== tokens[at]);
      const right = wrong < 0 ? count : wrong;
      for (let at = 0; at <= right && !line.ended; at++) {
        session.push([tokens[at]]);
        guessing.push([tokens[at]]);
        yield line.next(tokens[at], logprobs[at]);
      }
      await session.keep(session.lengths);
      // The last guess was never read.
      await guessing.keep(guessing.lengths, [length - 1 + count]);
    }
  } finally {
    guesser?.destroy();
    reader?.destroy();
    guessing.destroy();
    await session.keep([start + line.count]).catch(() => undefined);
  }
}

/** The next tokens by the small model. */
async function guess(decoding: Decoding, last: number, length: number, count: number) {
  const steps: (() => Promise<Told>)[] = [];
  const tokens: number[] = [];
  for (let at = 0; at < count; at++) {
    steps.push(await decoding.submit(at, [length - 1 + at], at === 0 ? [last] : undefined));
  }
  for (const told of steps) tokens.push(...(await told()).tokens);
  return tokens;
}

/** Reads so many tokens at once, and tells what comes after each. */
async function readerFor(session: Session, known: StepReader | undefined, rows: number) {
  if (known?.rows === rows) return known;
  known?.destroy();
  return StepReader.make(session, rows, [], (device, { logits, ids, logprobs }) =>
    planSampling(device, { ...GREEDY, logits, token: ids, logprob: logprobs }),
  );
}
