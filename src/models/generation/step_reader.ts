// A step of a session whose tokens come back before the next one is submitted: for searches that the
// CPU decides.

import { settle } from "../../gpu/buffers.ts";
import { tensor } from "../../gpu/make_tensor.ts";
import { Readback } from "../../gpu/readback.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import type { Program } from "../../training/program.ts";
import type { Session } from "./session.ts";

/** What a plan chooses from: logits of all rows, and where ids and log-probabilities go. */
export interface ChoiceMemory {
  /** [rows of all texts, V] */
  readonly logits: Tensor;
  readonly ids: Tensor;
  readonly logprobs: Tensor;
}

/** A plan that chooses tokens. */
interface Choice {
  encode(pass: GPUComputePassEncoder): void;
  destroy(): void;
}

/** Reads rows of every text, and tells which tokens come after each. */
export class StepReader {
  /** Rows of each text. */
  readonly rows: number;
  readonly #session: Session;
  readonly #program: Program;
  readonly #choice: Choice;
  readonly #owned: readonly Tensor[];
  readonly #readback: Readback;

  private constructor(
    session: Session,
    rows: number,
    program: Program,
    choice: Choice,
    owned: readonly Tensor[],
  ) {
    const { device, definition } = session.model;
    this.rows = rows;
    this.#session = session;
    this.#program = program;
    this.#choice = choice;
    this.#owned = owned;
    this.#readback = new Readback(device, definition.family, 1, owned);
  }

  /**
   * @param rows Rows of each text
   * @param each The axes of what is told of a row: none for a token, [k] for k of them
   */
  static async make(
    session: Session,
    rows: number,
    each: readonly number[],
    choose: (device: GPUDevice, memory: ChoiceMemory) => Promise<Choice>,
  ): Promise<StepReader> {
    const { device } = session.model;
    const program = await session.step({}, rows);
    const given = program.outputs.logits;
    const count = session.entries * rows;
    const logits = given.view({ shape: [count, given.shape[2]] });
    const ids = tensor(device, [count, ...each], { dtype: "i32" });
    const logprobs = tensor(device, [count, ...each]);
    try {
      const choice = await choose(device, { logits, ids, logprobs });
      await settle([ids.allocated, logprobs.allocated]);
      return new StepReader(session, rows, program, choice, [ids, logprobs]);
    } catch (error) {
      for (const one of [ids, logprobs]) one.destroy();
      throw error;
    }
  }

  /** Runs a step over tokens at these positions, one text after the other. */
  async read(ids: readonly number[], positions: readonly number[]) {
    const { model, programs } = this.#session;
    await programs.write(this.#program, { ids, positions });
    const encoder = model.device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    programs.encode(this.#program, pass);
    this.#choice.encode(pass);
    pass.end();
    const read = this.#readback.record(encoder);
    model.device.queue.submit([encoder.finish()]);
    const bytes = await read();
    const { size } = this.#owned[0];
    return {
      ids: new Int32Array(bytes, 0, size),
      logprobs: new Float32Array(bytes, 4 * size, size),
    };
  }

  destroy(): void {
    this.#choice.destroy();
    for (const one of this.#owned) one.destroy();
    this.#readback.destroy();
  }
}
