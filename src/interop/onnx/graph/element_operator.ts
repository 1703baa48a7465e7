import { type Code, expect, type Kind, shown, Term } from "./terms.ts";

type Attributes = Readonly<Record<string, unknown>>;

/** Computes the element that an operator gives for elements of its inputs. */
export type Elementwise = (code: Code, terms: readonly Term[], attributes: Attributes) => Term;

/** The kind of the result. */
export interface ElementOperator {
  readonly kind: (kinds: readonly Kind[], attributes: Attributes) => Kind;
  readonly make: Elementwise;
}

export function number(attributes: Attributes, name: string, otherwise: number): number {
  const given = attributes[name] ?? otherwise;
  expect(
    typeof given === "number" && Number.isFinite(Math.fround(given)),
    () => `${name} must be a finite number, got ${shown(given)}`,
  );
  return given;
}
const known = (terms: readonly Term[]) =>
  terms.every(({ constant }) => constant !== undefined)
    ? terms.map(({ constant }) => constant as number)
    : undefined;
const anyHidden = (terms: readonly Term[]) => terms.some(({ hidden }) => hidden !== undefined);
/** The text of a term for comparisons, in which -Infinity is a number below all others. */
export const ordered = ({ text, hidden }: Term) =>
  hidden === undefined ? text : `select(${text}, -3.4028235e38f, ${hidden})`;

export const same: ElementOperator["kind"] = ([first, ...rest]) => {
  expect(
    rest.every((kind) => kind === first),
    () => `takes tensors of one type, got ${[first, ...rest].join(", ")}`,
  );
  return first;
};
export const only =
  (...allowed: readonly Kind[]): ElementOperator["kind"] =>
  (kinds) => {
    const kind = same(kinds, {});
    expect(allowed.includes(kind), () => `takes ${allowed.join(" or ")}, got ${kind}`);
    return kind;
  };
export const numeric = only("f32", "i32");

export interface Formula {
  readonly kind?: ElementOperator["kind"];
  readonly host: (values: readonly number[], attributes: Attributes, kind: Kind) => number;
  readonly wgsl: (
    texts: readonly string[],
    attributes: Attributes,
    kind: Kind,
    code: Code,
  ) => string;
  /** The result for an operand that may be -Infinity. Default: such an operand is refused. */
  readonly infinite?: (code: Code, terms: readonly Term[], wgsl: () => string) => Term;
}

export function operator({
  kind: kindOf = only("f32"),
  host,
  wgsl,
  infinite,
}: Formula): ElementOperator {
  return {
    kind: kindOf,
    make: (code, terms, attributes) => {
      const kinds = terms.map((term) => term.kind);
      const result = kindOf(kinds, attributes);
      const values = known(terms);
      if (values) return Term.constant(result, host(values, attributes, kinds[0]));
      const texts = terms.map((term) => term.text);
      const text = () => wgsl(texts, attributes, kinds[0], code);
      if (!anyHidden(terms)) return code.let(result, text());
      expect(infinite !== undefined, () => "an operand may be -Infinity, which has no place in it");
      return infinite(code, terms, text);
    },
  };
}
