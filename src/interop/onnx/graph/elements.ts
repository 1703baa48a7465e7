// Operators of a graph that work element by element: in JavaScript for elements that the host
// knows, and in WGSL for all others.

import {
  type ElementOperator,
  type Formula,
  number,
  numeric,
  only,
  operator,
  ordered,
  same,
} from "./element_operator.ts";
import { ERF, erf, POW, TANH } from "./helpers.ts";
import { and, type Code, expect, or, Term } from "./terms.ts";

/** A function of one float. `limit` is its value at -Infinity. */
const unary = (
  host: (x: number) => number,
  wgsl: (x: string, code: Code) => string,
  limit?: number,
): ElementOperator =>
  operator({
    host: ([x]) => host(x),
    wgsl: ([x], _attributes, _kind, code) => wgsl(x, code),
    ...(limit !== undefined && {
      infinite: (code, [x], text) => code.let("f32", `select(${text()}, ${limit}f, ${x.hidden})`),
    }),
  });
const builtin = (name: string, host: (x: number) => number) => unary(host, (x) => `${name}(${x})`);

const comparison = (
  sign: string,
  host: (a: number, b: number) => boolean,
  kind = numeric,
): ElementOperator =>
  operator({
    kind: (kinds, attributes) => kind(kinds, attributes) && "bool",
    host: ([a, b]) => Number(host(a, b)),
    wgsl: ([a, b]) => `${a} ${sign} ${b}`,
    infinite: (code, [a, b]) => code.let("bool", `${ordered(a)} ${sign} ${ordered(b)}`),
  });
const logic = (sign: string, host: (a: number, b: number) => boolean): ElementOperator =>
  operator({
    kind: only("bool"),
    host: ([a, b]) => Number(host(a, b)),
    wgsl: ([a, b]) => `${a} ${sign} ${b}`,
  });

/** a * b and a / b for an a of -Infinity and a positive number b. */
const scaled: Formula["infinite"] = (code, [a, b], text) => {
  const [factor, other] = a.hidden === undefined ? [a, b] : [b, a];
  const { constant } = factor;
  expect(
    constant !== undefined && Number.isFinite(constant) && constant > 0,
    () => "-Infinity times something that is no positive constant has no place in it",
  );
  return code.let("f32", text(), other.hidden);
};

/** A binary operator on any number of operands. */
const variadic = ({ kind, make }: ElementOperator): ElementOperator => ({
  kind,
  make: (code, [first, ...rest], attributes) =>
    rest.reduce((sum, term) => make(code, [sum, term], attributes), first),
});

const ADD = operator({
  kind: numeric,
  host: ([a, b]) => a + b,
  wgsl: ([a, b]) => `${a} + ${b}`,
  infinite: (code, [a, b], text) => code.let("f32", text(), or(a.hidden, b.hidden)),
});
const MIN = operator({
  kind: numeric,
  host: ([a, b]) => Math.min(a, b),
  wgsl: ([a, b]) => `min(${a}, ${b})`,
  infinite: (code, [a, b], text) => code.let("f32", text(), or(a.hidden, b.hidden)),
});
const MAX = operator({
  kind: numeric,
  host: ([a, b]) => Math.max(a, b),
  wgsl: ([a, b]) => `max(${a}, ${b})`,
  infinite: (code, [a, b], text) => {
    const withoutA = a.hidden === undefined ? text() : `select(${text()}, ${b.text}, ${a.hidden})`;
    const without =
      b.hidden === undefined ? withoutA : `select(${withoutA}, ${a.text}, ${b.hidden})`;
    return code.let("f32", without, and(a.hidden, b.hidden));
  },
});
const DIV = operator({
  kind: numeric,
  host: ([a, b], _attributes, kind) => (kind === "i32" ? Math.trunc(a / b) : a / b),
  wgsl: ([a, b]) => `${a} / ${b}`,
  infinite: (code, [a, b], text) => {
    expect(b.hidden === undefined, () => "a divisor may be -Infinity, which has no place in it");
    return scaled(code, [a, b], text);
  },
});

/** The first operand's kind; the second only chooses among bools. */
const WHERE: ElementOperator = {
  kind: ([condition, ...kinds]) => {
    expect(condition === "bool", () => `takes a bool first, got ${condition}`);
    return same(kinds, {});
  },
  make: (code, [condition, a, b]) => {
    if (condition.constant !== undefined) return condition.constant ? a : b;
    const c = condition.text;
    const hidden = or(and(c, a.hidden), and(`!${c}`, b.hidden));
    return code.let(a.kind, `select(${b.text}, ${a.text}, ${c})`, hidden);
  },
};

const CLIP: ElementOperator = {
  kind: numeric,
  make: (code, [x, low, high], attributes) => {
    const { constant: least } = low;
    const { constant: most } = high;
    const above = least === -Infinity ? x : MAX.make(code, [x, low], attributes);
    return most === Infinity ? above : MIN.make(code, [above, high], attributes);
  },
};

/** TensorProto's types: those of floats and bool; all others are integers. */
const FLOATS: readonly unknown[] = [1, 10, 11, 16];
const BOOL = 9;

/** Casts to the kind that an attribute names, or to that of a second operand. */
const castTo = (kindOf: ElementOperator["kind"]): ElementOperator => ({
  kind: kindOf,
  make: (code, [x, ...rest], attributes) => {
    // biome-ignore format: one thought
    const to = kindOf([x, ...rest].map(({ kind }) => kind), attributes);
    if (to === x.kind) return x;
    if (x.constant !== undefined) return Term.constant(to, x.constant);
    if (to === "bool") return code.let(to, or(`(${x.text} != ${x.kind}(0))`, x.hidden) as string);
    expect(x.hidden === undefined, () => "-Infinity is no integer");
    return code.let(to, `${to}(${x.text})`);
  },
});

const sigmoid = (x: string) => `1f / (1f + exp(-${x}))`;

/** The operators by name. */
export const ELEMENTWISE: Readonly<Record<string, ElementOperator>> = {
  Add: ADD,
  Sum: variadic(ADD),
  Min: variadic(MIN),
  Max: variadic(MAX),
  Div: DIV,
  Where: WHERE,
  Clip: CLIP,
  Sub: operator({
    kind: numeric,
    host: ([a, b]) => a - b,
    wgsl: ([a, b]) => `${a} - ${b}`,
    infinite: (code, [a, b], text) => {
      expect(
        b.hidden === undefined,
        () => "-Infinity is taken away, and Infinity has no place in WGSL",
      );
      return code.let("f32", text(), a.hidden);
    },
  }),
  Mul: operator({
    kind: numeric,
    host: ([a, b]) => a * b,
    wgsl: ([a, b]) => `${a} * ${b}`,
    infinite: scaled,
  }),
  Pow: operator({
    kind: ([base]) => base,
    host: ([a, b]) => a ** b,
    wgsl: ([a, b], _attributes, kind, code) => {
      if (/^[1-4](\.0)?[fi]$/.test(b)) return new Array(Number.parseInt(b, 10)).fill(a).join(" * ");
      const power = code.call("pow", POW, `f32(${a})`, `f32(${b})`);
      return kind === "i32" ? `i32(round(${power}))` : power;
    },
  }),
  Mod: operator({
    kind: numeric,
    host: ([a, b], { fmod }) => (fmod ? a % b : a - b * Math.floor(a / b)),
    wgsl: ([a, b], { fmod }) => (fmod ? `${a} % ${b}` : `(${a} % ${b} + ${b}) % ${b}`),
  }),
  Abs: operator({ kind: numeric, host: ([x]) => Math.abs(x), wgsl: ([x]) => `abs(${x})` }),
  Neg: operator({ kind: numeric, host: ([x]) => -x, wgsl: ([x]) => `-${x}` }),
  Sign: operator({ kind: numeric, host: ([x]) => Math.sign(x), wgsl: ([x]) => `sign(${x})` }),
  Exp: unary(Math.exp, (x) => `exp(${x})`, 0),
  Sqrt: builtin("sqrt", Math.sqrt),
  // The logarithm of 0 is a number whose exponential is 0, whatever is added to it.
  Log: unary(Math.log, (x) => `select(log(${x}), -1e37f, ${x} == 0f)`),
  Reciprocal: unary((x) => 1 / x, (x) => `1f / ${x}`), // biome-ignore format: as the others
  Floor: builtin("floor", Math.floor),
  Ceil: builtin("ceil", Math.ceil),
  Round: builtin("round", (x) => (Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x))),
  Sin: builtin("sin", Math.sin),
  Cos: builtin("cos", Math.cos),
  Tan: builtin("tan", Math.tan),
  Asin: builtin("asin", Math.asin),
  Acos: builtin("acos", Math.acos),
  Atan: builtin("atan", Math.atan),
  Sinh: builtin("sinh", Math.sinh),
  Cosh: builtin("cosh", Math.cosh),
  Asinh: builtin("asinh", Math.asinh),
  Acosh: builtin("acosh", Math.acosh),
  Atanh: builtin("atanh", Math.atanh),
  Tanh: unary(Math.tanh, (x, code) => code.call("tanh", TANH, x), -1),
  Erf: unary(erf, (x, code) => code.call("erf", ERF, x), -1),
  Sigmoid: unary((x) => 1 / (1 + Math.exp(-x)), sigmoid, 0),
  // biome-ignore format: as the others
  Softplus: unary((x) => Math.log1p(Math.exp(x)), (x) => `max(${x}, 0f) + log(1f + exp(-abs(${x})))`, 0),
  // biome-ignore format: as the others
  Softsign: unary((x) => x / (1 + Math.abs(x)), (x) => `${x} / (1f + abs(${x}))`, -1),
  Gelu: operator({
    host: ([x]) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
    wgsl: ([x], { approximate }, _kind, code) => {
      const inner = `0.7978845608f * (${x} + 0.044715f * ${x} * ${x} * ${x})`;
      const bent =
        approximate === "tanh"
          ? code.call("tanh", TANH, inner)
          : code.call("erf", ERF, `${x} * ${Math.SQRT1_2}f`);
      return `0.5f * ${x} * (1f + ${bent})`;
    },
  }),
  Relu: operator({
    kind: numeric,
    host: ([x]) => Math.max(0, x),
    wgsl: ([x], _attributes, kind) => `max(${x}, ${kind}(0))`,
    infinite: (code, [x], text) => code.let("f32", `select(${text()}, 0f, ${x.hidden})`),
  }),
  LeakyRelu: operator({
    host: ([x], attributes) => (x < 0 ? number(attributes, "alpha", 0.01) * x : x),
    wgsl: ([x], attributes) =>
      `select(${x}, ${number(attributes, "alpha", 0.01)} * ${x}, ${x} < 0f)`,
  }),
  Elu: operator({
    host: ([x], attributes) => (x < 0 ? number(attributes, "alpha", 1) * Math.expm1(x) : x),
    wgsl: ([x], attributes) =>
      `select(${x}, ${number(attributes, "alpha", 1)} * (exp(${x}) - 1f), ${x} < 0f)`,
  }),
  HardSigmoid: operator({
    host: ([x], given) =>
      Math.min(1, Math.max(0, number(given, "alpha", 0.2) * x + number(given, "beta", 0.5))),
    wgsl: ([x], given) =>
      `clamp(${number(given, "alpha", 0.2)} * ${x} + ${number(given, "beta", 0.5)}, 0f, 1f)`,
  }),
  Greater: comparison(">", (a, b) => a > b),
  GreaterOrEqual: comparison(">=", (a, b) => a >= b),
  Less: comparison("<", (a, b) => a < b),
  LessOrEqual: comparison("<=", (a, b) => a <= b),
  Equal: comparison("==", (a, b) => a === b, same),
  And: logic("&&", (a, b) => a !== 0 && b !== 0),
  Or: logic("||", (a, b) => a !== 0 || b !== 0),
  Xor: logic("!=", (a, b) => a !== b),
  Not: operator({ kind: only("bool"), host: ([x]) => Number(x === 0), wgsl: ([x]) => `!${x}` }),
  Identity: { kind: ([kind]) => kind, make: (_code, [x]) => x },
  Cast: castTo((_kinds, { to }) => (FLOATS.includes(to) ? "f32" : to === BOOL ? "bool" : "i32")),
  CastLike: castTo(([, like]) => like),
};
