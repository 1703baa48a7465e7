// What an ONNX operator is here: named inputs, outputs and attributes, checked at one place, and a function that
// translates them to the engine.

import { type Dtype, FoveaError, Tensor, type TensorOptions, tensor } from "../../index.ts";

/**
 * One input of an operator: a tensor on the GPU; or, for integers and booleans that the host knows (lengths, positions,
 * flags), numbers. An optional input that is left out is null or undefined. int64 is i32 on the GPU, bool is u8.
 */
export type OnnxInput = Tensor | readonly number[] | null | undefined;

/** A model's graph as an attribute: that of FlexAttention's `score_mod` and `prob_mod`. */
export interface OnnxGraph {
  readonly [member: string]: unknown;
}

/** What an attribute may be. A flag is 0 or 1, or a boolean. */
interface AttributeKinds {
  readonly float: number;
  readonly int: number;
  readonly flag: boolean;
  readonly ints: readonly number[];
  readonly string: string;
  readonly graph: OnnxGraph;
}

type Kinds = Readonly<Record<string, keyof AttributeKinds>>;

/** Attributes as a caller gives them. */
export type OnnxAttributes<K extends Kinds = Kinds> = {
  readonly [Name in keyof K]?: K[Name] extends "flag" ? boolean | 0 | 1 : AttributeKinds[K[Name]];
};

/** Attributes as an operator gets them: checked, and undefined where they were left out. */
type Resolved<K extends Kinds> = { readonly [Name in keyof K]: AttributeKinds[K[Name]] | undefined };

/** What a call may say beside inputs and attributes. */
export interface OnnxRun {
  /** The operator's version. Default: the newest known. */
  readonly opset?: number;
  /**
   * The outputs that are wanted: the first so many, or a flag for each. Optional ones cost nothing unless they are
   * asked for. Default: those that the operator always has.
   */
  readonly outputs?: number | readonly boolean[];
  /** Where the inputs are all numbers, or none are given, the device that the outputs go to. */
  readonly device?: GPUDevice;
}

/**
 * An operator of ONNX: inputs in its order, attributes by its names, outputs in its order (undefined where one was not
 * asked for). The outputs are new tensors, and the caller's to destroy. Rejects with FoveaError, and then has allocated
 * nothing.
 */
export type OnnxOperator<K extends Kinds = Kinds> = ((
  inputs: readonly OnnxInput[],
  attributes?: OnnxAttributes<K>,
  run?: OnnxRun,
) => Promise<(Tensor | undefined)[]>) & {
  /** Domain and name: `com.microsoft.GroupQueryAttention`. */
  readonly operator: string;
};

type Named<Name extends string> = Name extends `${infer Plain}?` ? Plain : Name;
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
export class OnnxCall<In extends string = string, Out extends string = string, K extends Kinds = Kinds> {
  /** The operator's name, which errors begin with. */
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
    attributesGiven: OnnxAttributes<K>,
    run: OnnxRun,
  ) {
    this.label = operator;
    this.opset = run.opset ?? (opsets.at(-1) as number);
    check(
      Number.isInteger(this.opset) && this.opset >= opsets[0],
      () => `${operator}: known from opset ${opsets[0]} on, got opset ${run.opset}.`,
    );
    this.#inputs = namedInputs(operator, inputs, given);
    this.attributes = resolveAttributes(operator, attributes, attributesGiven);
    this.#wanted = wantedOutputs(operator, outputs, run.outputs);
    const device = [...this.#inputs.values()].find((input) => input instanceof Tensor)?.device ?? run.device;
    check(device !== undefined, () => `${operator}: no input is a tensor; say which device to run on.`);
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
    this.expect(given === undefined || given instanceof Tensor, () => `${input} must be a Tensor, not numbers`);
    return given as Tensor | undefined;
  }

  /** An input of integers as what was given: a tensor stays on the GPU. */
  integers(input: Required_<In>): Tensor | readonly number[];
  integers(input: Optional_<In>): Tensor | readonly number[] | undefined;
  integers(input: string): Tensor | readonly number[] | undefined {
    return this.#inputs.get(input);
  }

  /** An input as numbers on the host, which waits for the GPU where it is a tensor. */
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
  make(shape: readonly number[], dtype: Dtype = "f32", options: Omit<TensorOptions, "dtype"> = {}): Tensor {
    return this.own(tensor(this.device, shape, { label: this.label, ...options, dtype }));
  }

  /** A tensor that an operation of the engine returned: freed when the call ends unless it is a result. */
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

/** Declares an operator: what it takes, and how it is translated. `translate` returns its outputs by name. */
export function onnxOperator<const In extends string, const Out extends string, const K extends Kinds>(
  definition: OnnxDefinition<In, Out, K>,
  translate: (
    call: OnnxCall<In, Out, K>,
  ) => Promise<{ readonly [Name in Required_<Out>]: Tensor } & { readonly [Name in Optional_<Out>]?: Tensor }>,
): OnnxOperator<K> {
  const { operator } = definition;
  const run = async (
    inputs: readonly OnnxInput[],
    attributes: OnnxAttributes<K> = {},
    options: OnnxRun = {},
  ): Promise<(Tensor | undefined)[]> => {
    const call = new OnnxCall(definition, inputs, attributes, options);
    let results: (Tensor | undefined)[] = [];
    try {
      const named = (await translate(call)) as Readonly<Record<string, Tensor | undefined>>;
      results = definition.outputs.map(plain).map((name) => (call.wants(name) ? named[name] : undefined));
      return results;
    } finally {
      call.release(results);
    }
  };
  return Object.assign(run, { operator });
}

function check(condition: boolean, message: () => string): asserts condition {
  if (!condition) throw new FoveaError("argument", message());
}

const plain = <Name extends string>(name: Name) => name.replace(/\?$/, "") as Named<Name>;

function namedInputs(operator: string, names: readonly string[], given: readonly OnnxInput[]) {
  check(
    Array.isArray(given) && given.length <= names.length,
    () =>
      `${operator}: expected at most ${names.length} inputs (${names.map(plain).join(", ")}), got ${given?.length}.`,
  );
  const inputs = new Map<string, Tensor | readonly number[]>();
  for (const [index, name] of names.entries()) {
    const input = given[index] ?? undefined;
    check(input !== undefined || name.endsWith("?"), () => `${operator}: input ${index}, ${name}, is required.`);
    if (input === undefined) continue;
    check(
      input instanceof Tensor || (Array.isArray(input) && input.every((value) => typeof value === "number")),
      () => `${operator}: ${plain(name)} must be a Tensor (make one with tensor()) or a list of numbers, got ${input}.`,
    );
    inputs.set(plain(name), input);
  }
  return inputs;
}

const KINDS: { readonly [Kind in keyof AttributeKinds]: (value: unknown) => boolean } = {
  float: (value) => typeof value === "number" && Number.isFinite(value),
  int: Number.isSafeInteger,
  flag: (value) => value === 0 || value === 1 || typeof value === "boolean",
  ints: (value) => Array.isArray(value) && value.every(Number.isSafeInteger),
  string: (value) => typeof value === "string",
  graph: (value) => typeof value === "object" && value !== null,
};
const KIND_NAMES: { readonly [Kind in keyof AttributeKinds]: string } = {
  float: "a finite number",
  int: "a whole number",
  flag: "0 or 1",
  ints: "a list of whole numbers",
  string: "a string",
  graph: "a graph",
};

function resolveAttributes<K extends Kinds>(operator: string, kinds: K, given: OnnxAttributes<K>): Resolved<K> {
  const resolved: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(given)) {
    const kind = Object.hasOwn(kinds, name) ? kinds[name] : undefined;
    const known = Object.keys(kinds).join(", ") || "none";
    check(kind !== undefined, () => `${operator}: no attribute ${name}; there are: ${known}.`);
    if (value === undefined) continue;
    check(
      KINDS[kind](value),
      () => `${operator}: attribute ${name} must be ${KIND_NAMES[kind]}, got ${JSON.stringify(value)}.`,
    );
    resolved[name] = kind === "flag" ? Boolean(value) : value;
  }
  return resolved as Resolved<K>;
}

function wantedOutputs(operator: string, names: readonly string[], asked: OnnxRun["outputs"]): ReadonlySet<string> {
  const count = typeof asked === "number" ? asked : asked?.length;
  check(
    count === undefined || (Number.isInteger(count) && count >= 0 && count <= names.length),
    () => `${operator}: has ${names.length} outputs (${names.map(plain).join(", ")}), asked for ${count}.`,
  );
  const wanted = (name: string, index: number) => {
    if (asked === undefined) return !name.endsWith("?");
    return typeof asked === "number" ? index < asked : asked[index] === true;
  };
  return new Set(names.filter(wanted).map(plain));
}
