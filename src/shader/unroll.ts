// The loop expander. Kernels are written as loops over register arrays, because that is how people
// read them. Mature GPU drivers unroll such loops and promote the arrays; software adapters and
// older compilers do neither. Above a loop
//
//     // unroll
//     for (var i = 0u; i < COUNT; i++) {
//
// the comment asks for COUNT copies of the body, with `i` replaced by a literal. Afterwards every
// function-scope array that is only indexed by constants becomes separate variables: `acc[1u][0u]`
// turns into `acc_1_0`.

import { blankComments, type Line, located } from "./source.ts";

const MARK = /^\s*\/\/ unroll$/;
const LOOP = /^\s*for \(var (\w+) = 0u; (\w+) < (.+?); (\w+)\+\+\) \{(.*)$/;
const CONST = /^\s*const\s+(\w+)\s*(?::\s*\w+)?\s*=\s*(.+?);/gm;
const ARRAY = /^(\s*)var (\w+) = (array<.*>)\(\);$/;
const ARRAY_TYPE = /^array\s*<(.*),([^,]*)>$/;

/** Lines that an expansion may have: ten times those of our largest kernel. */
const MOST_LINES = 150_000;

type Constants = (expression: string) => number | undefined;

/**
 * Expands every loop under `// unroll` and splits the arrays that this leaves with constant indices
 * only.
 */
export function expandLoops(lines: readonly Line[]): Line[] {
  const constants = constantsOf(lines);
  return splitArrays(expand(lines, constants, { lines: MOST_LINES }), constants);
}

function expand(lines: readonly Line[], constants: Constants, left: { lines: number }): Line[] {
  const out: Line[] = [];
  for (let index = 0; index < lines.length; index++) {
    const mark = lines[index];
    if (!MARK.test(mark.text)) {
      out.push(mark);
      continue;
    }
    const head = lines[index + 1];
    const loop = head && LOOP.exec(head.text);
    if (!loop || loop[1] !== loop[2] || loop[1] !== loop[4]) {
      throw located(
        mark.module,
        mark.line,
        "`// unroll` must stand above `for (var i = 0u; i < COUNT; i++) {`",
      );
    }
    const [, name = "", , bound = "", , rest = ""] = loop;
    const count = constants(bound);
    if (count === undefined) {
      throw located(
        head.module,
        head.line,
        `can't unroll: \`${bound}\` is not a constant of the module scope`,
      );
    }
    const { body, end } = loopBody(lines, index + 1, rest);
    const jump = body.find((line) => /\b(?:break|continue)\b/.test(blankComments(line.text)));
    if (jump)
      throw located(
        jump.module,
        jump.line,
        "an unrolled loop is no loop: `break` and `continue` can't be in it",
      );
    const use = new RegExp(`(?<![\\w.])${name}(?!\\w)`, "g");
    for (let copy = 0; copy < count; copy++) {
      const unrolled = body.map((line) => ({
        ...line,
        text: line.text.replace(use, `${copy}u`),
        rewritten: true,
      }));
      left.lines -= body.length;
      if (left.lines < 0)
        throw located(head.module, head.line, `unrolled loops have more than ${MOST_LINES} lines`);
      out.push({ ...head, text: "{" });
      for (const line of expand(unrolled, constants, left)) out.push(line);
      out.push({ ...head, text: "}" });
    }
    index = end;
  }
  return out;
}

/** The lines between the loop's braces, and the index of the line that closes it. */
function loopBody(
  lines: readonly Line[],
  headIndex: number,
  rest: string,
): { body: Line[]; end: number } {
  const head = lines[headIndex];
  const body: Line[] = [];
  let depth = 1;
  for (let index = headIndex; index < lines.length; index++) {
    const line = lines[index];
    const text = index === headIndex ? rest : line.text;
    const code = blankComments(text);
    for (let column = 0; column < code.length; column++) {
      if (code[column] === "{") depth++;
      if (code[column] === "}") depth--;
      if (depth > 0) continue;
      if (code.slice(column + 1).trim())
        throw located(line.module, line.line, "nothing may follow an unrolled loop's }");
      body.push({ ...line, text: text.slice(0, column) });
      return { body, end: index };
    }
    body.push({ ...line, text });
  }
  throw located(head.module, head.line, "the unrolled loop is not closed");
}

/**
 * Replaces arrays of function scope that are only ever indexed by constants by one variable per
 * element.
 */
function splitArrays(lines: readonly Line[], constants: Constants): Line[] {
  const out = [...lines];
  const code = lines.map((line) => blankComments(line.text));
  for (let index = 0; index < out.length; index++) {
    const declaration = ARRAY.exec(code[index]);
    if (!declaration) continue;
    const [, indent = "", name = "", type = ""] = declaration;
    const shape = arrayShape(type, constants);
    if (!shape) continue;
    const end = scopeEnd(code, index);
    const split: string[] = [];
    for (let at = index + 1; at < end; at++) {
      const text = splitUses(code[at], name, shape.sizes, constants);
      if (text === undefined) break;
      split.push(text);
    }
    if (split.length < end - index - 1) continue;
    for (const [offset, text] of split.entries()) {
      const at = index + 1 + offset;
      if (text === code[at]) continue;
      code[at] = text;
      out[at] = { ...out[at], text, rewritten: true };
    }
    const names = elementNames(name, shape.sizes);
    code[index] = names.map((element) => `${indent}var ${element} = ${shape.element}();`).join(" ");
    out[index] = { ...out[index], text: code[index] };
  }
  return out;
}

/**
 * `array<array<T, 4>, 8>` is element T with sizes [8, 4]; undefined if a size is not a known
 * constant.
 */
function arrayShape(
  type: string,
  constants: Constants,
): { element: string; sizes: number[] } | undefined {
  const match = ARRAY_TYPE.exec(type.trim());
  if (!match) return { element: type.trim(), sizes: [] };
  const size = constants(match[2]);
  const inner = arrayShape(match[1], constants);
  return size === undefined || !inner
    ? undefined
    : { element: inner.element, sizes: [size, ...inner.sizes] };
}

const elementNames = (name: string, sizes: readonly number[]): string[] =>
  sizes.reduce(
    (names, size) => names.flatMap((n) => Array.from({ length: size }, (_, i) => `${n}_${i}`)),
    [name],
  );

/** The index of the first line after `start` that closes the block `start` stands in. */
function scopeEnd(code: readonly string[], start: number): number {
  let depth = 0;
  for (let index = start + 1; index < code.length; index++) {
    for (const brace of code[index].match(/[{}]/g) ?? []) {
      depth += brace === "{" ? 1 : -1;
      if (depth < 0) return index + 1;
    }
  }
  return code.length;
}

/**
 * The line with `name[1u][2u]` as `name_1_2`; undefined if any use has another form or an index out
 * of range.
 */
function splitUses(
  text: string,
  name: string,
  sizes: readonly number[],
  constants: Constants,
): string | undefined {
  if (!text.includes(name)) return text; // most lines
  const use = new RegExp(`(?<![\\w.])${name}(?!\\w)`, "g");
  let out = "";
  let last = 0;
  for (const match of text.matchAll(use)) {
    let cursor = match.index + name.length;
    let element = name;
    for (const size of sizes) {
      const close = text[cursor] === "[" ? text.indexOf("]", cursor) : -1;
      const position = close < 0 ? undefined : constants(text.slice(cursor + 1, close));
      if (position === undefined || position >= size) return undefined;
      element += `_${position}`;
      cursor = close + 1;
    }
    out += text.slice(last, match.index) + element;
    last = cursor;
  }
  return out + text.slice(last);
}

/** An evaluator for unsigned integer expressions over the module-scope constants of the text. */
function constantsOf(lines: readonly Line[]): Constants {
  const code = blankComments(lines.map((line) => line.text).join("\n"));
  const expressions = new Map([...code.matchAll(CONST)].map((match) => [match[1], match[2]]));
  const values = new Map<string, number | undefined>();
  const lookUp = (name: string): number | undefined => {
    if (!values.has(name)) {
      values.set(name, undefined); // a cyclic constant is not a constant
      const expression = expressions.get(name);
      values.set(name, expression === undefined ? undefined : evaluate(expression, lookUp));
    }
    return values.get(name);
  };
  return (expression) => evaluate(expression, lookUp);
}

/**
 * Evaluates `+ - * / %` and parentheses over literals and names in unsigned integers; undefined for
 * anything else.
 */
function evaluate(
  expression: string,
  lookUp: (name: string) => number | undefined,
): number | undefined {
  const reduce = (
    text: string,
    pattern: RegExp,
    value: (...groups: string[]) => string | number,
  ): string => {
    let reduced = text;
    while (pattern.test(reduced))
      reduced = reduced.replace(pattern, (_, ...groups) => String(value(...groups)));
    return reduced;
  };
  const flat = (text: string) => {
    const products = reduce(text, /(\d+)\s*([*/%])\s*(\d+)/, (a, operator, b) =>
      operator === "*" ? +a * +b : operator === "/" ? Math.floor(+a / +b) : +a % +b,
    );
    return reduce(products, /(\d+)\s*([-+])\s*(\d+)/, (a, operator, b) =>
      operator === "+" ? +a + +b : +a - +b,
    );
  };
  const numbers = expression.replace(
    /(\d+)u\b|\b[A-Za-z_]\w*/g,
    (name, literal) => literal ?? `${lookUp(name)}`,
  );
  const value = flat(reduce(numbers, /\(([^()]*)\)/, (inner) => flat(inner))).trim();
  return /^\d+$/.test(value) ? Number(value) : undefined;
}
