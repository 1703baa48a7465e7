// ONNX operators here have named inputs, outputs and attributes, which are checked in one place,
// and a function that translates them to the engine.

import { show } from "../../errors.ts";
import { type Dtype, Tensor, type TensorOptions, tensor } from "../../index.ts";
import {
  check,
  type Named,
  namedInputs,
  plain,
  type Resolved,
  resolveAttributes,
  resolveRun,
  UnknownName,
} from "./operator_checks.ts";
import type { Kinds, OnnxAttributes, OnnxInput, OnnxRun } from "./operator_types.ts";

/**
 * An operator of ONNX: inputs in its order, attributes by its names, outputs in its order
 * (undefined if one was not asked for). The outputs are new tensors, and the caller's to destroy.
 * Rejects with FoveaError, and then has allocated nothing.
 */
export type OnnxOperator<K extends Kinds = Kinds> = ((
  inputs: readonly OnnxInput[],
  attributes?: OnnxAttributes<K>,
  run?: OnnxRun,
) => Promise<(Tensor | undefined)[]>) & {
  /** Domain and name: `com.microsoft.GroupQueryAttention`. */
  readonly operator: string;
};

type Required_<Name extends string> = Name extends `${string}?` ? never : Name;
type Optional_<Name extends string> = Name extends `${infer Plain}?` ? Plain : never;

/** How an operator is declared. An input or output whose name ends in `?` is optional. */
export interface OnnxDefinition<In extends string, Out extends string, K extends Kinds> {
  /** Domain and name: `ai.onnx.Attention`. */
  readonly operator: string;
  /** The versions that it is known in, oldest first. */
  readonly opsets: readonly [number, ...number[]];
  readonly inputs: readonly In[];
  readonly outputs: readonly Out[];
  readonly attributes: K;
}

/** One call: its checked inputs and attributes, and the memory that it makes. */
export class OnnxCall<
  In extends string = string,
  Out extends string = string,
  K extends Kinds = Kinds,
> {
  /** The operator's name, with which errors begin. */
  readonly label: string;
  readonly device: GPUDevice;
  readonly opset: number;
  readonly attributes: Resolved<K>;
  readonly #inputs: ReadonlyMap<string, Tensor | readonly number[]>;
  readonly #wanted: ReadonlySet<string>;
  readonly #owned = new Set<Tensor>();

  /** @internal */
  constructor(
    { operator, opsets, inputs, outputs, attributes }: OnnxDefinition<In, Out, K>,
    given: readonly OnnxInput[],
    attributesGiven: OnnxAttributes<K> | undefined,
    run: OnnxRun | undefined,
  ) {
    this.label = operator;
    const { opset = opsets.at(-1), wanted, device: asked } = resolveRun(operator, run, outputs);
    check(
      Number.isSafeInteger(opset) && (opset as number) >= opsets[0],
      () => `${operator}: known from opset ${opsets[0]} on, got opset ${show(opset)}.`,
    );
    this.opset = opset as number;
    this.#inputs = namedInputs(operator, inputs, given);
    this.attributes = resolveAttributes(operator, attributes, attributesGiven, inputs);
    this.#wanted = wanted;
    const tensors = [...this.#inputs.values()].filter((input) => input instanceof Tensor);
    const device = tensors[0]?.device ?? asked;
    check(
      device !== undefined,
      () => `${operator}: no input is a tensor; say which device to run on.`,
    );
    check(
      tensors.every((input) => input.device === device) && (asked ?? device) === device,
      () =>
        `${operator}: its inputs, and the device that it is to run on, are of different devices.`,
      "device",
    );
    this.device = device;
  }

  /** Whether the caller wants an output. */
  wants(output: Named<Out>): boolean {
    return this.#wanted.has(output);
  }

  /** Whether an optional input was given. */
  has(input: Named<In>): boolean {
    return this.#inputs.has(input);
  }

  /** An input that has to be a tensor on the GPU. */
  tensor(input: Required_<In>): Tensor;
  tensor(input: Optional_<In>): Tensor | undefined;
  tensor(input: string): Tensor | undefined {
    const given = this.#inputs.get(input);
    this.expect(
      given === undefined || given instanceof Tensor,
      () => `${input} must be a Tensor, not numbers`,
    );
    return given as Tensor | undefined;
  }

  /** An input of integers as it was given: a tensor stays on the GPU; numbers fit into 32 bits. */
  integers(input: Required_<In>): Tensor | readonly number[];
  integers(input: Optional_<In>): Tensor | readonly number[] | undefined;
  integers(input: string): Tensor | readonly number[] | undefined {
    const given = this.#inputs.get(input);
    const wrong =
      given instanceof Tensor ? undefined : given?.find((value) => (value | 0) !== value);
    this.expect(
      wrong === undefined,
      () => `${input} must be whole numbers of 32 bits, got ${wrong}`,
    );
    return given;
  }

  /** An input as numbers on the host. If it is a tensor, this waits for the GPU. */
  async numbers(input: Required_<In>): Promise<readonly number[]>;
  async numbers(input: Optional_<In>): Promise<readonly number[] | undefined>;
  async numbers(input: string): Promise<readonly number[] | undefined> {
    const given = this.#inputs.get(input);
    return given instanceof Tensor ? Array.from(await given.read()) : given;
  }

  /** Throws FoveaError("argument") with the operator's name in front. */
  expect(condition: boolean, what: () => string): void {
    check(condition, () => `${this.label}: ${what()}.`);
  }

  /** A new tensor, freed when the call ends unless it is a result. */
  make(
    shape: readonly number[],
    dtype: Dtype = "f32",
    options: Omit<TensorOptions, "dtype"> = {},
  ): Tensor {
    return this.own(tensor(this.device, shape, { label: this.label, ...options, dtype }));
  }

  /**
   * A tensor that an operation of the engine returned: freed when the call ends unless it is a
   * result.
   */
  own(made: Tensor): Tensor {
    this.#owned.add(made);
    return made;
  }

  /** @internal Frees what the call made, all but the memory of its results. */
  release(results: readonly (Tensor | undefined)[]): void {
    const kept = new Set(results.map((result) => result?.buffer));
    for (const made of this.#owned) if (!made.destroyed && !kept.has(made.buffer)) made.destroy();
  }
}

/**
 * Declares an operator: its inputs, outputs and attributes, and its translation. `translate`
 * returns its outputs by name.
 */
export function onnxOperator<
  const In extends string,
  const Out extends string,
  const K extends Kinds,
>(
  definition: OnnxDefinition<In, Out, K>,
  translate: (
    call: OnnxCall<In, Out, K>,
  ) => Promise<
    { readonly [Name in Required_<Out>]: Tensor } & { readonly [Name in Optional_<Out>]?: Tensor }
  >,
): OnnxOperator<K> {
  const { operator } = definition;
  const run = async (
    inputs: readonly OnnxInput[],
    attributes?: OnnxAttributes<K>,
    options?: OnnxRun,
  ): Promise<(Tensor | undefined)[]> => {
    const call = await made(() => new OnnxCall(definition, inputs, attributes, options));
    let results: (Tensor | undefined)[] = [];
    try {
      const named = (await translate(call)) as Readonly<Record<string, Tensor | undefined>>;
      results = definition.outputs
        .map(plain)
        .map((name) => (call.wants(name) ? named[name] : undefined));
      return results;
    } finally {
      call.release(results);
    }
  };
  return Object.assign(run, { operator });
}

/**
 * Gives the result of `make`. If `make` finds an unknown name, rejects with an error that says
 * which name is meant.
 */
async function made<T>(make: () => T): Promise<T> {
  try {
    return make();
  } catch (error) {
    throw error instanceof UnknownName ? await error.explained() : error;
  }
}
