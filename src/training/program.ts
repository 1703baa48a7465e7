// Programs: operations that were recorded once for given shapes, and are replayed in one submission
// a run.

import { check, show } from "../errors.ts";
import { checkDevice } from "../gpu/buffers.ts";
import type { TensorData } from "../gpu/elements.ts";
import { BYTES } from "../gpu/shapes.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { checkTarget, type EncodeTarget, type Recording, recordInto } from "../plan/target.ts";
import { Readback } from "./readback.ts";
import type { Step } from "./value.ts";

/** Bytes of GPU memory that a program owns. */
export interface ProgramBytes {
  readonly parameters: number;
  readonly inputs: number;
  /** Of what is computed in a run: memories whose times do not meet share theirs. */
  readonly computed: number;
  /** Of what is computed if nothing were shared. */
  readonly unshared: number;
  /** Scratch memory of the operations. */
  readonly workspace: number;
}

/** Elements of the inputs of a run, by their names. */
export type Batch = Readonly<Record<string, TensorData>>;

/** How a run goes. */
export interface RunSettings {
  /** Whether the optimizer changes the parameters at the end. Default true. */
  readonly update?: boolean;
}

interface Parts {
  readonly device: GPUDevice;
  readonly label: string;
  readonly steps: readonly Step[];
  /** The optimizer. */
  readonly update: Step | undefined;
  readonly owned: readonly Tensor[];
  readonly inputs: ReadonlyMap<string, Tensor>;
  readonly loss: Tensor | undefined;
  readonly inFlight: number;
}

/** A recorded program. `recordProgram` makes it. */
export class Program {
  /** The parameters, by their names. They keep their elements from run to run. */
  readonly parameters: ReadonlyMap<string, Tensor>;
  /** Their gradients by the loss of the last run, if the program computes them. */
  readonly gradients: ReadonlyMap<string, Tensor>;
  /** What the definition gives beside the loss, as the last run left it. */
  readonly outputs: Readonly<Record<string, Tensor>>;
  readonly bytes: ProgramBytes;
  /** Dispatches of a run. */
  readonly dispatchCount: number;
  readonly #parts: Parts;
  readonly #recordings: readonly Recording[];
  readonly #update: Recording | undefined;
  readonly #readback: Readback | undefined;
  /** Whether inputs end within a word, so that what is beside them is read before they are written. */
  readonly #waitsForInputs: boolean;
  /** Settles when the run that was asked for last is submitted. */
  #turn: Promise<unknown> = Promise.resolve();
  #destroyed = false;

  /** @internal */
  constructor(parts: Parts, told: Pick<Program, "parameters" | "gradients" | "outputs" | "bytes">) {
    const { device, label, steps, update, loss, inFlight } = parts;
    this.parameters = told.parameters;
    this.gradients = told.gradients;
    this.outputs = told.outputs;
    this.bytes = told.bytes;
    const all = update ? [...steps, update] : steps;
    this.dispatchCount = all.reduce((count, one) => count + one.dispatchCount, 0);
    this.#parts = parts;
    this.#recordings = steps.map((step) => step.prepare({})).filter((one) => one !== undefined);
    this.#update = update?.prepare({});
    this.#waitsForInputs = [...parts.inputs.values()].some(
      ({ size, dtype }) => (size * BYTES[dtype]) % 4 !== 0,
    );
    this.#readback = loss && new Readback(device, label, inFlight);
  }

  /**
   * Runs the program once: writes the inputs, submits all of it at once, and resolves to the loss,
   * or to undefined if there is none. The next run need not wait for it: call it at once, and it
   * starts as soon as fewer than `inFlight` losses are on their way.
   *
   * Rejects with FoveaError, with nothing submitted, for inputs that are missing, unknown or of
   * another size.
   */
  async run(batch: Batch, settings: RunSettings = {}): Promise<number | undefined> {
    const turn = this.#turn.then(() => this.#submit(batch, settings));
    this.#turn = turn.catch(() => undefined);
    const [loss] = await (await turn).done;
    return loss;
  }

  /**
   * Records a run into a caller's pass or encoder, with the inputs as they are: see {@link write}.
   */
  encode(target: EncodeTarget, { update = true }: RunSettings = {}): void {
    this.#checkUsable();
    checkTarget(this.#parts.label, target);
    recordInto(target, this.#parts.label, (pass) => {
      for (const record of this.#recordings) record(pass);
      if (update) this.#update?.(pass);
    });
  }

  /** Gives the inputs their elements. Rejects with FoveaError as {@link run} does. */
  async write(batch: Batch): Promise<void> {
    this.#checkUsable();
    await this.#write(batch);
  }

  /** Frees all memory of the program, its parameters included. Parameters of others stay. */
  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    for (const step of this.#parts.steps) step.destroy();
    this.#parts.update?.destroy();
    for (const one of this.#parts.owned) one.destroy();
    this.#readback?.destroy();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  /** Submits a run, and gives a promise of its loss that nobody has to wait for. */
  async #submit(batch: Batch, settings: RunSettings) {
    this.#checkUsable();
    await this.#readback?.ready;
    const written = this.#write(batch);
    if (this.#waitsForInputs) await written;
    const { device, label, loss } = this.#parts;
    const encoder = device.createCommandEncoder({ label });
    this.encode(encoder, settings);
    const read = loss && this.#readback?.record(encoder, loss);
    device.queue.submit([encoder.finish()]);
    return { done: Promise.all([read?.(), written]) };
  }

  #write(batch: Batch): Promise<unknown> {
    const { label, inputs } = this.#parts;
    const names = [...inputs.keys()];
    check(
      typeof batch === "object" && batch !== null,
      "argument",
      () => `${label}: a batch is { name: elements }, got ${show(batch)}.`,
    );
    const unknown = Object.keys(batch).find((name) => !inputs.has(name));
    check(
      unknown === undefined,
      "argument",
      () => `${label}: there is no input ${show(unknown)}; inputs are ${names.join(", ")}.`,
    );
    const missing = names.find((name) => batch[name] === undefined);
    check(missing === undefined, "argument", () => `${label}: the input ${missing} is missing.`);
    return Promise.all([...inputs].map(([name, one]) => one.write(batch[name])));
  }

  #checkUsable(): void {
    const { device, label } = this.#parts;
    check(!this.#destroyed, "destroyed", () => `${label}: the program was destroyed.`);
    checkDevice(device);
  }
}
