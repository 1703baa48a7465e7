// The steps of generation: each reads a token of every text, and chooses the next ones on the GPU,
// where the step after finds them.

import { check } from "../../errors.ts";
import { settle } from "../../gpu/buffers.ts";
import { tensor } from "../../gpu/make_tensor.ts";
import { Readback } from "../../gpu/readback.ts";
import { BYTES } from "../../gpu/shapes.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import type { Program } from "../../training/program.ts";
import type { Asked } from "../definition.ts";
import type { SamplingSettings } from "../sampling/options.ts";
import { planSampling, type SamplingPlan } from "../sampling/sampling.ts";
import type { Session } from "./session.ts";

/** Steps whose results may be on their way at a time. */
export const IN_FLIGHT = 2;

/** A result of the model that was asked for, of all texts. */
export interface StepResult {
  readonly name: string;
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** What a step tells of all texts. */
export interface Told {
  readonly tokens: readonly number[];
  readonly logprobs: readonly number[];
  readonly results: readonly StepResult[];
}

/** What steps are asked for beside the tokens. */
export interface AskedOfSteps extends Asked {
  /** Whether the logits come back. */
  readonly logits?: boolean;
}

interface Parts {
  readonly session: Session;
  readonly program: Program;
  readonly sampling: SamplingPlan;
  readonly token: Tensor;
  readonly number: Tensor;
  readonly owned: readonly Tensor[];
  readonly told: readonly (readonly [name: string, tensor: Tensor])[];
}

/** A session's steps with the same settings. Nothing is allocated from one to the next. */
export class Decoding {
  readonly #parts: Parts;
  readonly #readback: Readback;
  readonly #positions: Int32Array<ArrayBuffer>;

  private constructor(parts: Parts) {
    const { session, told } = parts;
    const { device, definition } = session.model;
    this.#parts = parts;
    const tensors = told.map(([, one]) => one);
    this.#readback = new Readback(device, definition.family, IN_FLIGHT, tensors);
    this.#positions = new Int32Array(session.entries);
  }

  static async make(
    session: Session,
    settings: SamplingSettings,
    { logits: wantsLogits, ...asked }: AskedOfSteps,
  ): Promise<Decoding> {
    const { device, definition } = session.model;
    const { entries: B } = session;
    const program = await session.step(asked);
    const { logits: rows, ...others } = program.outputs;
    check(rows !== undefined, "argument", () => `${definition.family}: gives no logits.`);
    const V = rows.shape[2];
    const logits = rows.view({ shape: [B, V] });
    const make = (shape: readonly number[], dtype: "i32" | "u32" | "f32", data?: Uint32Array) =>
      tensor(device, shape, { dtype, label: definition.family, ...(data && { data }) });
    const token = make([B], "i32");
    const logprob = make([B], "f32");
    const number = make([1], "u32");
    const penalised = (settings.repetitionPenalty ?? 1) !== 1;
    const seen = penalised ? make([B, Math.ceil(V / 32)], "u32", bitsOf(session, V)) : undefined;
    const owned = [token, logprob, number, ...(seen ? [seen] : [])];
    try {
      const memory = { logits, token, logprob, step: number, ...(seen && { seen }) };
      const sampling = await planSampling(device, { ...settings, ...memory });
      await settle(owned.map(({ allocated }) => allocated));
      const told = [
        ["token", token],
        ["logprob", logprob],
        ...(wantsLogits ? [["logits", logits] as const] : []),
        ...Object.entries(others).filter(([name]) => /^(hidden|attention)\./.test(name)),
      ] as const;
      return new Decoding({ session, program, sampling, token, number, owned, told });
    } catch (error) {
      for (const one of owned) one.destroy();
      throw error;
    }
  }

  /**
   * Submits a step and gives what resolves to its tokens.
   *
   * @param step Its number, which the choice draws by
   * @param positions Where in its text each token stands
   * @param tokens The tokens; undefined for those that the step before chose
   */
  async submit(
    step: number,
    positions: readonly number[],
    tokens?: readonly number[],
  ): Promise<() => Promise<Told>> {
    const { session, program, sampling, token, number } = this.#parts;
    const { device, definition } = session.model;
    await this.#readback.ready;
    const ids = session.programs.input(program, "ids") as Tensor;
    const places = session.programs.input(program, "positions");
    this.#positions.set(positions);
    if (places) device.queue.writeBuffer(places.buffer, 0, this.#positions);
    if (tokens) device.queue.writeBuffer(ids.buffer, 0, Int32Array.from(tokens));
    device.queue.writeBuffer(number.buffer, 0, Uint32Array.of(step));
    const encoder = device.createCommandEncoder({ label: definition.family });
    if (!tokens) {
      const bytes = BYTES.i32 * token.size;
      encoder.copyBufferToBuffer(token.buffer, 0, ids.buffer, 0, bytes);
    }
    const pass = encoder.beginComputePass({ label: definition.family });
    session.programs.encode(program, pass);
    sampling.encode(pass);
    pass.end();
    const read = this.#readback.record(encoder);
    device.queue.submit([encoder.finish()]);
    const told = read().then((bytes) => this.#told(bytes));
    told.catch(() => undefined); // whoever waits for it sees the rejection
    return () => told;
  }

  destroy(): void {
    const { sampling, owned } = this.#parts;
    sampling.destroy();
    for (const one of owned) one.destroy();
    this.#readback.destroy();
  }

  #told(bytes: ArrayBuffer): Told {
    const { told, session } = this.#parts;
    let at = 0;
    const [, logprob, ...results] = told.map(([name, { shape, size, dtype }]) => {
      const data = new Float32Array(bytes, at, size);
      at += size * BYTES[dtype];
      return { name, shape, data };
    });
    const tokens = [...new Int32Array(bytes, 0, session.entries)];
    return { tokens, logprobs: [...logprob.data], results };
  }
}

/** The tokens of each text as bits, [entries, ceil(V / 32)]. */
function bitsOf(session: Session, vocab: number): Uint32Array {
  const words = Math.ceil(vocab / 32);
  const bits = new Uint32Array(session.entries * words);
  for (let entry = 0; entry < session.entries; entry++) {
    for (const id of session.tokens(entry)) bits[entry * words + (id >> 5)] |= 1 << (id & 31);
  }
  return bits;
}
