// Reading of a model's config.json: every option is read, known to change nothing, or refused.

import { check, FoveaError, show } from "../errors.ts";
import { UNUSED_OPTIONS } from "./unused_options.ts";

/** The options of a config, each read by its name. */
export class Config {
  readonly #options: Readonly<Record<string, unknown>>;
  readonly #label: string;
  readonly #read = new Set<string>();

  /** Throws FoveaError("file") for what is no object. */
  constructor(options: unknown, label = "config.json") {
    check(
      typeof options === "object" && options !== null && !Array.isArray(options),
      "file",
      () => `${label}: a config is an object, got ${show(options)}.`,
    );
    this.#options = options as Readonly<Record<string, unknown>>;
    this.#label = label;
  }

  /** The names of all options. */
  get names(): readonly string[] {
    return Object.keys(this.#options);
  }

  /** How many options there are. */
  get count(): number {
    return Object.keys(this.#options).length;
  }

  /** Whether an option is given, and not null. */
  has(name: string): boolean {
    return this.#options[name] !== undefined && this.#options[name] !== null;
  }

  /** A whole number from `least` up. Without a default it has to be there. */
  whole(name: string, given?: number, least = 1): number {
    return this.#take(name, given, `a whole number from ${least} up`, (value) => {
      return Number.isSafeInteger(value) && (value as number) >= least;
    });
  }

  number(name: string, given?: number): number {
    return this.#take(name, given, "a number", Number.isFinite);
  }

  /** Whether an option is there, and null. */
  isNull(name: string): boolean {
    this.#read.add(name);
    return this.#options[name] === null;
  }

  /** A number, or what stands for one that is not given or null. */
  optional(name: string, given?: number): number | undefined {
    this.#read.add(name);
    return this.has(name) ? this.number(name) : given;
  }

  flag(name: string, given?: boolean): boolean {
    return this.#take(name, given, "true or false", (value) => typeof value === "boolean");
  }

  text(name: string, given?: string): string {
    return this.#take<string>(name, given, "a text", (value) => typeof value === "string");
  }

  /** One of these texts. */
  oneOf<const Text extends string>(name: string, known: readonly Text[], given?: Text): Text {
    return this.#take(name, given, `one of ${known.join(", ")}`, (value) =>
      known.includes(value as Text),
    );
  }

  /** A list of numbers, of this length if one is told. */
  numbers(name: string, length?: number): readonly number[] {
    const what = length === undefined ? "a list of numbers" : `a list of ${length} numbers`;
    return this.#take<readonly number[]>(
      name,
      undefined,
      what,
      (value) =>
        Array.isArray(value) &&
        value.every(Number.isFinite) &&
        (length === undefined || value.length === length),
    );
  }

  /** A whole number or a list of them, as a list; none if it is absent. */
  wholes(name: string): readonly number[] {
    if (!this.has(name)) return [];
    const value = this.#take<unknown>(name, undefined, "a whole number or a list of them", (one) =>
      [one].flat().every((id) => Number.isSafeInteger(id) && (id as number) >= 0),
    );
    return [value].flat() as number[];
  }

  /** A list of texts. */
  texts(name: string): readonly string[] {
    return this.#take<readonly string[]>(name, undefined, "a list of texts", (value) => {
      return Array.isArray(value) && value.every((one) => typeof one === "string");
    });
  }

  /** An object of options, read as a config of its own; undefined if it is null or absent. */
  inner(name: string): Config | undefined {
    this.#read.add(name);
    return this.has(name) ? new Config(this.#options[name], `${this.#label}: ${name}`) : undefined;
  }

  /**
   * Throws FoveaError("file") unless an option, if it is given, has the one value that is supported.
   */
  only(name: string, value: unknown): void {
    this.#read.add(name);
    if (!this.has(name) || this.#options[name] === value) return;
    throw new FoveaError(
      "file",
      `${this.#label}: ${name} is ${show(this.#options[name])}; only ${show(value)} is supported.`,
    );
  }

  /** Throws FoveaError("file") unless an option, if it is given, is an empty object or list. */
  empty(name: string): void {
    const value = this.#options[name];
    if (typeof value === "object" && value !== null && Object.keys(value).length === 0)
      this.ignore(name);
    else this.only(name, null);
  }

  /** Says that options have been looked at, whatever they are. */
  ignore(...names: readonly string[]): void {
    for (const name of names) this.#read.add(name);
  }

  /** The same of all options whose names a pattern matches. */
  ignoreLike(pattern: RegExp): void {
    this.ignore(...Object.keys(this.#options).filter((name) => pattern.test(name)));
  }

  /** Throws FoveaError("file") if there are options that nobody has looked at. */
  end(): void {
    const unknown = Object.keys(this.#options).filter(
      (name) => !this.#read.has(name) && !UNUSED_OPTIONS.has(name),
    );
    check(
      unknown.length === 0,
      "file",
      () =>
        `${this.#label}: ${unknown.slice(0, 5).map(show).join(", ")} ${unknown.length > 1 ? "are options" : "is an option"} that this family does not know, so the model would not compute what it was made for.`,
    );
  }

  #take<Value>(
    name: string,
    given: Value | undefined,
    what: string,
    isRight: (value: unknown) => boolean,
  ): Value {
    this.#read.add(name);
    const value = this.has(name) ? this.#options[name] : given;
    check(
      value !== undefined && isRight(value),
      "file",
      () => `${this.#label}: ${name} must be ${what}, got ${show(this.#options[name])}.`,
    );
    return value as Value;
  }
}
