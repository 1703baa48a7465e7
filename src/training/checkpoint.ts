// Parameters and checkpoints as safetensors files.

import { check, FoveaError, show } from "../errors.ts";
import { readSafetensors, safetensorsMetadata, writeSafetensors } from "../files/safetensors.ts";
import { type FileTensor, named } from "../files/tensors.ts";
import type { TensorData } from "../gpu/elements.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { takeSettings, withoutFunction } from "./arguments.ts";
import { Program } from "./program.ts";

/** PyTorch's names of what an optimiser keeps for a parameter. */
const TORCH_STATE: Readonly<Record<string, string>> = {
  first_moment: "exp_avg",
  second_moment: "exp_avg_sq",
  max_second_moment: "max_exp_avg_sq",
  momentum: "momentum_buffer",
  accumulated_gradient: "grad",
};

/** Tensors of the optimiser in a file begin with this; no parameter's name may. */
const OPTIMIZER = "optimizer.";

/** Options of {@link saveParameters} and {@link loadParameters}. */
export interface ParametersOptions {
  /** Which parameters, by their names: `isAdapter` for adapters alone. Default all. */
  readonly select?: (name: string) => boolean;
}

type Named = ReadonlyMap<string, Tensor>;

/**
 * The parameters of a program as a safetensors file, f32, by their names: what PyTorch and others
 * read. Waits for the runs that were asked for before.
 */
export async function saveParameters(
  program: Program,
  options: ParametersOptions = {},
): Promise<Uint8Array<ArrayBuffer>> {
  checkProgram("saveParameters", program);
  const select = selection("saveParameters", options);
  const chosen = new Map([...program.parameters].filter(([name]) => select(name)));
  return program.inTurn(async () => writeSafetensors(await readAll(chosen), { format: "pt" }));
}

/**
 * Gives the parameters of a program the elements of a safetensors file, whose floats may be f64,
 * f32, f16 or bf16. What else is in the file is left alone. With `select`, adapters are swapped and
 * the base stays.
 *
 * Rejects with FoveaError("file"), and has changed nothing, if the file is malformed, or lacks a
 * parameter, or has one of another shape.
 */
export async function loadParameters(
  program: Program,
  bytes: Uint8Array,
  options: ParametersOptions = {},
): Promise<void> {
  checkProgram("loadParameters", program);
  const select = selection("loadParameters", options);
  const chosen = new Map([...program.parameters].filter(([name]) => select(name)));
  const found = elementsFor(readSafetensors("parameters", bytes), chosen);
  await program.inTurn(() => writeAll(chosen, found));
}

/**
 * A function for `parametersOf` that takes the first elements from a safetensors file. It throws
 * FoveaError("file") for a parameter that the file lacks or has in another shape.
 */
export function fromSafetensors(
  bytes: Uint8Array,
): (name: string, shape: readonly number[]) => TensorData {
  const tensors = readSafetensors("parameters", bytes);
  return (name, shape) => elementsOf(tensors, name, shape);
}

/**
 * All that a run needs to go on: parameters, the optimiser's state by PyTorch's names
 * (`optimizer.state.NAME.exp_avg`), its rates, and the numbers of runs and updates; a safetensors
 * file. Waits for the runs that were asked for before.
 */
export async function saveCheckpoint(program: Program): Promise<Uint8Array<ArrayBuffer>> {
  checkProgram("saveCheckpoint", program);
  return program.inTurn(async () => {
    const { optimizer, step } = program;
    const tensors = readAll(keptOf(program));
    const updates = optimizer && (await optimizer.step.read())[0];
    return writeSafetensors(await tensors, {
      format: "pt",
      step: `${step}`,
      ...(updates !== undefined && { "optimizer.step": `${updates}` }),
    });
  });
}

/**
 * Goes on from a checkpoint: with the same batches, a program of the same definition and optimiser
 * gives the bits of a run that never stopped, on the same device.
 *
 * Rejects with FoveaError("file"), and has changed nothing, if the file is malformed, no checkpoint,
 * or one of another model or optimiser.
 */
export async function loadCheckpoint(program: Program, bytes: Uint8Array): Promise<void> {
  checkProgram("loadCheckpoint", program);
  const step = stepOf(bytes);
  const { optimizer } = program;
  const updates = optimizer && stepOf(bytes, "optimizer.step");
  const kept = keptOf(program);
  const found = elementsFor(readSafetensors("checkpoint", bytes), kept);
  await program.inTurn(async () => {
    await writeAll(kept, found);
    if (updates !== undefined) await optimizer?.step.write([updates]);
    program.step = step;
  });
}

/** The number of runs that a checkpoint was saved after, or another number that it tells. */
export function stepOf(bytes: Uint8Array, name = "step"): number {
  const value = safetensorsMetadata("checkpoint", bytes)[name] ?? "";
  check(
    /^\d{1,15}$/.test(value),
    "file",
    () => `checkpoint: the file tells no ${name}; is it a checkpoint?`,
  );
  return Number(value);
}

/** Throws FoveaError("argument") for what is no program. */
function checkProgram(label: string, program: unknown): void {
  check(
    program instanceof Program,
    "argument",
    () => `${label}: expected a program of recordProgram, got ${show(program)}.`,
  );
}

/** Which parameters are meant, by their names. */
function selection(label: string, options: ParametersOptions): (name: string) => boolean {
  const [select = () => true, others] = withoutFunction(label, options, "select");
  takeSettings(label, others, {});
  return select;
}

/** All tensors of a checkpoint, by their names in the file. */
function keptOf({ parameters, gradients, optimizer }: Program): Named {
  const kept = new Map(parameters);
  if (!optimizer) return kept;
  const clash = [...parameters.keys()].find((name) => name.startsWith(OPTIMIZER));
  check(
    clash === undefined,
    "argument",
    () => `the parameter ${clash} has a name that checkpoints use for the optimizer.`,
  );
  kept.set(`${OPTIMIZER}lr`, optimizer.lr);
  for (const [index, name] of [...gradients.keys()].entries())
    for (const [own, one] of Object.entries(optimizer.state[index]))
      kept.set(`${OPTIMIZER}state.${name}.${TORCH_STATE[own] ?? own}`, one);
  return kept;
}

/** Copies the elements of tensors, all of them as they are now. */
async function readAll(tensors: Named) {
  const read = await Promise.all(
    [...tensors].map(async ([name, one]) => {
      const data = (await one.read()) as Float32Array;
      return [name, { shape: one.shape, data }] as const;
    }),
  );
  return Object.fromEntries(read);
}

/** The elements that a file has for tensors. */
const elementsFor = (file: ReadonlyMap<string, FileTensor>, tensors: Named) =>
  new Map([...tensors].map(([name, { shape }]) => [name, elementsOf(file, name, shape)] as const));

function elementsOf(
  file: ReadonlyMap<string, FileTensor>,
  name: string,
  shape: readonly number[],
): Float32Array {
  const found = file.get(name);
  if (!found)
    throw new FoveaError("file", `the file lacks ${named(name)} [${shape}]; ${listed(file)}.`);
  check(
    String(found.shape) === String(shape),
    "file",
    () => `the file has ${named(name)} [${found.shape}]; the program's is [${shape}].`,
  );
  return found.data;
}

/** What a file has, in a few words. */
function listed(file: ReadonlyMap<string, FileTensor>): string {
  const names = [...file.keys()].slice(0, 5).map(named).join(", ");
  return file.size > 5 ? `it has ${names} and ${file.size - 5} more` : `it has ${names || "none"}`;
}

const writeAll = (tensors: Named, elements: ReadonlyMap<string, Float32Array>) =>
  Promise.all([...tensors].map(([name, one]) => one.write(elements.get(name) as Float32Array)));
