// Programs: operations that were recorded once for given shapes, and are replayed in one submission
// a run.

import { check, FoveaError, show } from "../errors.ts";
import { isRecord } from "../given.ts";
import { checkDevice } from "../gpu/buffers.ts";
import type { TensorData } from "../gpu/elements.ts";
import { Readback } from "../gpu/readback.ts";
import { BYTES } from "../gpu/shapes.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { checkTarget, type EncodeTarget, type Recording, recordInto } from "../plan/target.ts";
import { findNotFinite, type NotFinite, type Traced } from "./finite.ts";
import type { OptimizerPlan } from "./optimizers/plan.ts";
import { type RunSettings, updateOf } from "./run_settings.ts";
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

/** The number of a run, and what its operations drew by. */
interface Ran {
  readonly step: number;
  readonly drawn: number;
}

/** From what one batch of an update draws by to the next one: far from the numbers of runs. */
const SPREAD = 0x9e3779b1;

interface Parts {
  readonly device: GPUDevice;
  readonly label: string;
  readonly steps: readonly Step[];
  readonly update: OptimizerPlan | undefined;
  readonly owned: readonly Tensor[];
  readonly inputs: ReadonlyMap<string, Tensor>;
  /** The number of the run, if an operation asks for it. */
  readonly step: Tensor | undefined;
  readonly loss: Tensor | undefined;
  readonly inFlight: number;
  readonly traced: readonly Traced[];
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
  /** The optimizer: its rates and its state. Undefined if the program has none. */
  readonly optimizer: OptimizerPlan | undefined;
  /**
   * Runs that changed the parameters, or were asked to: what `dropout` draws by, beside the number
   * of the batch if gradients of several are added up. `loadCheckpoint` sets it.
   */
  step = 0;
  /** Runs since the last update whose gradients were added up. */
  #accumulated = 0;
  readonly #parts: Parts;
  readonly #recordings: readonly Recording[];
  readonly #update: Recording | undefined;
  readonly #accumulate: Recording | undefined;
  readonly #readback: Readback | undefined;
  /** Whether inputs end within a word, so that what is beside them is read before they are written. */
  readonly #waitsForInputs: boolean;
  /** Settles when the run that was asked for last is submitted. */
  #turn: Promise<unknown> = Promise.resolve();
  #destroyed = false;

  /** @internal Makes `instanceof` ask the object itself, and never throw. */
  static [Symbol.hasInstance](value: unknown): value is Program {
    try {
      return typeof value === "object" && value !== null && #parts in value;
    } catch {
      return false; // a revoked proxy
    }
  }

  /** @internal */
  constructor(parts: Parts, told: Pick<Program, "parameters" | "gradients" | "outputs" | "bytes">) {
    const { device, label, steps, update, loss, inFlight } = parts;
    this.parameters = told.parameters;
    this.gradients = told.gradients;
    this.outputs = told.outputs;
    this.bytes = told.bytes;
    this.optimizer = update;
    const all = update ? [...steps, update] : steps;
    this.dispatchCount = all.reduce((count, one) => count + one.dispatchCount, 0);
    this.#parts = parts;
    this.#recordings = steps.map((step) => step.prepare({})).filter((one) => one !== undefined);
    this.#update = update?.prepare();
    this.#accumulate = update?.prepareAccumulation();
    this.#waitsForInputs = [...parts.inputs.values()].some(
      ({ size, dtype }) => (size * BYTES[dtype]) % 4 !== 0,
    );
    const numbers = loss && [loss, ...(update?.finite ? [update.finite] : [])];
    this.#readback = numbers && new Readback(device, label, inFlight, numbers);
  }

  /** The inputs, by their names, as the last run left them. */
  get inputs(): ReadonlyMap<string, Tensor> {
    return this.#parts.inputs;
  }

  /**
   * Runs the program once: writes the inputs, submits all of it at once, and resolves to the loss,
   * or to undefined if there is none. The next run need not wait for it: call it at once, and it
   * starts as soon as fewer than `inFlight` losses are on their way.
   *
   * Rejects with FoveaError, with nothing submitted, for inputs that are missing, unknown or of
   * another size; and with FoveaError("not-finite") if the loss is not finite, or with an optimizer
   * the norm of the gradients. That one names the run and the first operation that gave such a
   * number, for which the program is run again, step by step: so leave the batch as it is until a
   * run has settled. Gradients that are not finite change no parameter, unless the optimizer has
   * `skipNotFinite: false`, and later runs may go on.
   */
  async run(batch: Batch, settings: RunSettings = {}): Promise<number | undefined> {
    const turn = this.inTurn(() => this.#submit(batch, settings));
    const { done, ran, updates } = await turn;
    const [read] = await done;
    if (!read) return undefined;
    const [loss, finite] = new Float32Array(read);
    const isRight = Number.isFinite(loss) && (!updates || finite !== 0);
    if (isRight) return loss;
    throw await this.#notFinite(batch, ran, loss);
  }

  /**
   * Records a run into a caller's pass or encoder, with the inputs as they are: see {@link write}.
   */
  encode(target: EncodeTarget, settings: RunSettings = {}): void {
    this.#checkUsable();
    const { label } = this.#parts;
    const update = updateOf(label, settings);
    checkTarget(label, target);
    check(
      update !== "accumulate" || this.#accumulate !== undefined,
      "argument",
      () => `${label}: there is nothing to accumulate; the optimizer has no accumulationSteps.`,
    );
    recordInto(target, label, (pass) => {
      for (const record of this.#recordings) record(pass);
      if (update === "accumulate") this.#accumulate?.(pass);
      else if (update) this.#update?.(pass);
    });
    if (update === "accumulate") this.#accumulated++;
    if (update !== true || !this.#update) return;
    this.step++;
    this.#accumulated = 0;
  }

  /**
   * Gives the inputs their elements, and operations that draw the number of the next run. Rejects
   * with FoveaError as {@link run} does.
   */
  async write(batch: Batch): Promise<void> {
    this.#checkUsable();
    await this.#write(batch, this.#drawn);
  }

  /**
   * Runs the program step by step, changes no parameter, and tells where the first number comes
   * from that is not finite: an input, a parameter or an operation. Undefined if there is none. It
   * reads all results, so it takes long.
   */
  findNotFinite(batch: Batch): Promise<NotFinite | undefined> {
    return this.inTurn(() => this.#find(batch, this.#drawn));
  }

  /**
   * Starts work once all is submitted that was asked for before; runs that are asked for later wait
   * for it. So what it reads belongs to one step. Resolves to what the work does.
   */
  inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    const turn = this.#turn.then(work);
    this.#turn = turn.catch(() => undefined);
    return turn;
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
    const { device, label } = this.#parts;
    const updates = updateOf(label, settings) === true;
    const ran = { step: this.step, drawn: this.#drawn };
    const written = this.#write(batch, ran.drawn);
    if (this.#waitsForInputs) await written;
    const encoder = device.createCommandEncoder({ label });
    this.encode(encoder, settings);
    const read = this.#readback?.record(encoder);
    device.queue.submit([encoder.finish()]);
    return { done: Promise.all([read?.(), written]), ran, updates };
  }

  /** What operations of the next run draw by: another number for each batch of one update. */
  get #drawn(): number {
    return (this.step + SPREAD * this.#accumulated) % 2 ** 32;
  }

  #write(batch: Batch, drawn: number): Promise<unknown> {
    const { label, inputs } = this.#parts;
    const names = [...inputs.keys()];
    check(
      isRecord(batch),
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
    const written: Promise<void>[] = [...inputs].map(([name, one]) => one.write(batch[name]));
    const numbered = this.#parts.step?.write([drawn]);
    return Promise.all([...written, numbered]);
  }

  async #find(batch: Batch, drawn: number): Promise<NotFinite | undefined> {
    this.#checkUsable();
    await this.#write(batch, drawn);
    const { device, inputs, steps, traced } = this.#parts;
    return findNotFinite(device, { input: inputs, parameter: this.parameters }, steps, traced);
  }

  /** The error for a run whose loss or gradients are not finite. */
  async #notFinite(batch: Batch, { step, drawn }: Ran, loss: number): Promise<FoveaError> {
    const found = await this.inTurn(() => this.#find(batch, drawn));
    const what = Number.isFinite(loss)
      ? `the loss is ${loss}, but the norm of its gradients is not finite`
      : `the loss is ${loss}`;
    const where = found
      ? `The first number that is not finite is in ${PLACES[found.kind]} ${found.name}${found.index < 0 ? "" : ` (operation ${found.index} of ${this.#parts.traced.length})`}.`
      : "Each number is finite on its own, or the batch was changed meanwhile.";
    return new FoveaError("not-finite", `${this.#parts.label}: run ${step}: ${what}. ${where}`);
  }

  #checkUsable(): void {
    const { device, label } = this.#parts;
    check(!this.#destroyed, "destroyed", () => `${label}: the program was destroyed.`);
    checkDevice(device);
  }
}

const PLACES = {
  input: "the input",
  parameter: "the parameter",
  operation: "what came of",
} as const;
