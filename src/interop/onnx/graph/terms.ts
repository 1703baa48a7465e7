// One element of a tensor of a graph: a number that the host knows, or WGSL for it.

/** Element types as WGSL computes them: all floats in f32, all integers in i32. */
export type Kind = "f32" | "i32" | "bool";

/** The reason why a graph can't be translated; the operator adds which graph it is. */
export class GraphError extends Error {}

/** The most characters of a value in a message. */
const SHOWN = 100;

/**
 * A value of a model in a message: short, on one line, and with characters that would move a
 * terminal's cursor escaped.
 */
export function shown(given: unknown): string {
  const isPlain = given === null || ["number", "boolean", "undefined"].includes(typeof given);
  const quoted = typeof given === "string" && JSON.stringify(given);
  const list =
    Array.isArray(given) &&
    `[${given.slice(0, SHOWN).map((one) => (Array.isArray(one) ? "[...]" : shown(one)))}]`;
  const text = list || quoted || (isPlain ? String(given) : `a value of type ${typeof given}`);
  const safe = text.replace(
    /[\p{Cc}\u2028\u2029]/gu,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
  return safe.length > SHOWN ? `${safe.slice(0, SHOWN)}...` : safe;
}

/** A name of a model in a message. */
export const shownName = (name: string): string => shown(name).replace(/^"|"$/g, "");

export function expect(condition: boolean, message: () => string): asserts condition {
  if (!condition) throw new GraphError(message());
}

/**
 * A value. WGSL has no -Infinity, which is how graphs mask scores: it stands beside the text, as a
 * condition under which the value is -Infinity and the text means nothing.
 */
export class Term {
  readonly kind: Kind;
  /** Undefined if only the GPU knows the value. */
  readonly constant: number | undefined;
  /** WGSL of a bool; undefined if the value is always finite. */
  readonly hidden: string | undefined;
  readonly #text: string | undefined;

  private constructor(
    kind: Kind,
    { text, hidden, constant }: { text?: string; hidden?: string; constant?: number },
  ) {
    this.kind = kind;
    this.constant = constant;
    this.hidden = hidden;
    this.#text = text;
  }

  static of(kind: Kind, text: string, hidden?: string): Term {
    return new Term(kind, { text, ...(hidden !== undefined && { hidden }) });
  }

  static constant(kind: Kind, value: number): Term {
    const constant =
      kind === "f32"
        ? Math.fround(value)
        : kind === "i32"
          ? Math.trunc(value)
          : Number(value !== 0);
    return new Term(kind, { constant, ...(constant === -Infinity && { hidden: "true" }) });
  }

  get text(): string {
    return this.#text ?? literal(this.kind, this.constant as number);
  }
}

function literal(kind: Kind, value: number): string {
  if (value === -Infinity) return "0f";
  if (kind === "bool") return String(value !== 0);
  expect(Number.isFinite(value), () => `a constant ${value} has no place in WGSL`);
  expect(
    kind === "f32" || Math.abs(value) < 2 ** 31,
    () => `the integer ${value} is beyond 32 bits`,
  );
  const text = `${value}${kind === "f32" ? "f" : "i"}`;
  return value < 0 ? `(${text})` : text;
}

export const or = (a: string | undefined, b: string | undefined): string | undefined => {
  if (a === undefined || b === undefined || a === b) return a ?? b;
  return a === "true" || b === "true" ? "true" : `(${a} || ${b})`;
};

export const and = (a: string | undefined, b: string | undefined): string | undefined => {
  if (a === undefined || b === undefined) return undefined;
  if (a === "true" || a === b) return b;
  return b === "true" ? a : `(${a} && ${b})`;
};

/** The text of a function, statement by statement. The same text is computed once. */
export class Code {
  /** Helper functions that the statements call, by name. */
  readonly helpers = new Map<string, string>();
  /**
   * The beginning of the names of helpers, which must differ from those of a kernel's other
   * functions.
   */
  readonly prefix: string;
  /** Words of constants in memory. */
  readonly memory: number[] = [];
  readonly #names = new Map<string, string>();

  constructor(prefix: string) {
    this.prefix = prefix;
  }

  /** Adds a statement that computes a value, and gives the value for later statements. */
  let(kind: Kind, text: string, hidden?: string): Term {
    const isName = (one: string | undefined) => one === undefined || /^!?\w+$/.test(one);
    return Term.of(
      kind,
      this.#named(text),
      isName(hidden) ? hidden : this.#named(hidden as string),
    );
  }

  #named(text: string): string {
    const known = this.#names.get(text);
    if (known) return known;
    const name = `t${this.#names.size}`;
    this.#names.set(text, name);
    return name;
  }

  /** Puts numbers into memory. @returns the word where they begin */
  store(kind: Kind, values: ArrayLike<number>): number {
    const base = this.memory.length;
    const scratch = kind === "f32" ? new Float32Array(1) : new Int32Array(1);
    const bits = new Uint32Array(scratch.buffer);
    for (let i = 0; i < values.length; i++) {
      scratch[0] = values[i];
      this.memory.push(bits[0]);
    }
    return base;
  }

  /** Loads an element from memory. */
  load(kind: Kind, base: number, place: Term, mayHide: boolean): Term {
    const word = this.let(
      "i32",
      `${this.memoryName}[${base ? `${base} + ` : ""}${place.text}]`,
    ).text;
    if (kind === "bool") return this.let(kind, `${word} != 0u`);
    if (!mayHide) return this.let(kind, `bitcast<${kind}>(${word})`);
    const hidden = this.let("bool", `${word} == 0xff800000u`).text;
    return this.let(kind, `bitcast<${kind}>(select(${word}, 0u, ${hidden}))`, hidden);
  }

  /** The name of the memory in the function. */
  get memoryName(): string {
    return `${this.prefix}_constants`;
  }

  /** Calls a helper function, whose text says FN for its name. */
  call(name: string, text: string, ...given: readonly string[]): string {
    const full = `${this.prefix}_${name}`;
    this.helpers.set(full, text.replaceAll("FN", full));
    return `${full}(${given.join(", ")})`;
  }

  /** The statements. */
  get lines(): string[] {
    return [...this.#names].map(([text, name]) => `let ${name} = ${text};`);
  }
}
