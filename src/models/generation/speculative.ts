// Speculative decoding: a small model guesses some tokens, and the large one reads all of them at
// once. Those that it would have chosen itself stay, and the first other one is replaced.

import { check } from "../../errors.ts";
import { settle } from "../../gpu/buffers.ts";
import { tensor } from "../../gpu/make_tensor.ts";
import { Readback } from "../../gpu/readback.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import type { Program } from "../../training/program.ts";
import type { Model } from "../model.ts";
import { planSampling, type SamplingPlan } from "../sampling/sampling.ts";
import { Decoding, type Told } from "./decoding.ts";
import type { GeneratedToken, Line } from "./line.ts";
import type { Generating } from "./options.ts";
import type { Session } from "./session.ts";

const GREEDY = { temperature: 0 };

/** Goes on with the one text of a session, which has all tokens of its prompt. */
export async function* speculate(
  session: Session,
  draft: Model,
  line: Line,
  { draftTokens: guesses, signal }: Generating,
): AsyncGenerator<GeneratedToken, void, undefined> {
  const { definition } = session.model;
  const small = draft.parts().definition;
  const label = `${definition.family} generate`;
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
  const start = session.lengths[0];
  await session.read(signal);
  // The last guesses may be beyond the last token.
  const guessing = await draft.session({ capacity: Math.min(session.capacity, small.mostRows) });
  let guesser: Decoding | undefined;
  let reader: Reader | undefined;
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
      const { tokens, logprobs } = await reader.read([session.last(0), ...guessed], length - 1);
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

async function readerFor(session: Session, known: Reader | undefined, rows: number) {
  if (known?.rows === rows) return known;
  known?.destroy();
  return Reader.make(session, rows);
}

/** Reads several tokens of a text at once, and tells what comes after each. */
class Reader {
  readonly rows: number;
  readonly #session: Session;
  readonly #program: Program;
  readonly #sampling: SamplingPlan;
  readonly #owned: readonly Tensor[];
  readonly #readback: Readback;

  private constructor(
    session: Session,
    program: Program,
    sampling: SamplingPlan,
    owned: readonly Tensor[],
  ) {
    const { device, definition } = session.model;
    this.rows = owned[0].size;
    this.#session = session;
    this.#program = program;
    this.#sampling = sampling;
    this.#owned = owned;
    this.#readback = new Readback(device, definition.family, 1, owned);
  }

  static async make(session: Session, rows: number): Promise<Reader> {
    const { device } = session.model;
    const program = await session.step({}, rows);
    const given = program.outputs.logits;
    const logits = given.view({ shape: given.shape.slice(1) });
    const token = tensor(device, [rows], { dtype: "i32" });
    const logprob = tensor(device, [rows]);
    try {
      const sampling = await planSampling(device, { ...GREEDY, logits, token, logprob });
      await settle([token.allocated, logprob.allocated]);
      return new Reader(session, program, sampling, [token, logprob]);
    } catch (error) {
      for (const one of [token, logprob]) one.destroy();
      throw error;
    }
  }

  async read(ids: readonly number[], first: number) {
    const { device } = this.#session.model;
    const positions = ids.map((_, at) => first + at);
    await this.#session.programs.write(this.#program, { ids, positions });
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    this.#session.programs.encode(this.#program, pass);
    this.#sampling.encode(pass);
    pass.end();
    const read = this.#readback.record(encoder);
    device.queue.submit([encoder.finish()]);
    const bytes = await read();
    const tokens = [...new Int32Array(bytes, 0, this.rows)];
    return { tokens, logprobs: [...new Float32Array(bytes, 4 * this.rows, this.rows)] };
  }

  destroy(): void {
    this.#sampling.destroy();
    for (const one of this.#owned) one.destroy();
    this.#readback.destroy();
  }
}
