// Texts of users: which are taken, which are refused and where, and what reaches a compiler.

import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FoveaError } from "../../src/errors.ts";
import { GuestText, MOST_TEXT } from "../../src/shader/guest_text.ts";
import { guestLines } from "../../src/shader/guests.ts";
import { Tokens } from "../../src/shader/tokens.ts";
import { isPredeclared } from "../../src/shader/wgsl_names.ts";

const RULES = { entry: "score", names: new Set(["Position", "HIDDEN", "weights", "slope"]) };
const read = (source: string) => new GuestText("text", source, RULES);
const body = (statements: string) =>
  `fn score(s: f32, at: Position) -> f32 { ${statements} return s; }`;
const PLAIN = body("");

function failure(source: string): string {
  try {
    read(source);
  } catch (error) {
    expect(error).toBeInstanceOf(FoveaError);
    expect((error as FoveaError).code).toBe("argument");
    return (error as Error).message;
  }
  throw new Error("the text should have been refused");
}
/** Returns the tokens of a text, one after the other. */
function tokensOf(source: string): string[] {
  const tokens = new Tokens("text", source);
  const found: string[] = [];
  while (tokens.next().kind !== "end") found.push(tokens.text);
  return found;
}

describe("tokens", () => {
  it("are names of any letters, numbers and signs, between the blanks and comments of WGSL", () => {
    expect(
      tokensOf("\ufeffa\u0085Δé_1/* /* } */ // */0x1.8p-3f\u200e1e+5.5h;//x\r.5>>=\v1u"),
    ).toEqual(
      // biome-ignore format: one list
      ["a", "Δé_1", "0x1.8p-3f", "1e+5", ".5h", ";", ".5", ">", ">", "=", "1u"],
    );
  });
  it.each(["\n", "\v", "\f", "\r", "\r\n", "\u0085", "\u2028", "\u2029"])(
    "a line ends at %j",
    (end) => {
      expect(tokensOf(`// a${end}b`)).toEqual(["b"]);
      expect(failure(`// a${end} enable f16;`)).toMatch(/^text:2:2: `enable`/);
      expect(read(`// a${end}${PLAIN}`).lines((name) => name)[0].line).toBe(2);
    },
  );
  it.each([
    ["a NUL", `${PLAIN}\0`, "WGSL has no character U+0000"],
    ["half a pair of surrogates", `${PLAIN}\ud800`, "WGSL has no character U+D800"],
    ["a quotation mark", `${PLAIN}"`, 'WGSL has no character `"`'],
    ["a mark in the middle", `${PLAIN}\ufeff`, "WGSL has no character U+FEFF"],
    ["a name that begins as a number", body("_ = 1o[0];"), '"1o" is no number'],
    ["a member of a number", body("_ = 1.o;"), '"1.o" is no number'],
    ["an open comment", `${PLAIN}/* /* */`, "the comment is not closed"],
  ])("%s is none", (_, source, message) => {
    expect(failure(source)).toMatch(/^text:1:\d+: /);
    expect(failure(source)).toContain(message);
  });
});

describe("a text may have", () => {
  it.each([
    [
      "loops and switches",
      "for (var i = 0u; i < 4u; i++) { let x = i; if x > 2 { break; } else if x < 1 { continue; } } loop { let y = s; continuing { _ = y; break if y > s; } } while s > 9.0 { } switch at.head { case 1, 2: { } default: { } }",
    ],
    [
      "names in inner scopes that hide outer ones",
      "let x = s; { let x = x + 1.0; _ = x; } for (var x = x; x < s; x += 1.0) { let x = 1u; }",
    ],
    ["a name of ours for its own", "let q = s; let params = q; var o = vec2f(params); o[0] = 1.0;"],
    ["a function of WGSL hidden", "let max = max(s, 1.0); _ = max;"],
    ["pointers", "var x = s; let p = &x; *p = 1.0; let f = ptr_of(p);"],
    [
      "assertions and vectors",
      "const_assert 1 < 2; const n = 2; var a = array<vec4<f32>, n>(); a[1].xy += vec2(1.0); _ = a;",
    ],
    ["what it was given", "_ = weights[at.head % arrayLength(&weights)] * slope; _ = HIDDEN;"],
    ["a mark that means nothing here", "\n// unroll\nfor (var i = 0u; i < 300000u; i++) { }"],
    ["letters of the world", "let Ünïcode = s; let 変数 = Ünïcode; _ = 変数;"],
  ])("%s", (_, statements) => {
    const helper = "fn ptr_of(p: ptr<function, f32>) -> f32 { return *p; }";
    expect(read(`${body(statements)}\n@must_use ${helper}`).head?.signature).toBe(
      "(s:f32,at:Position)->f32",
    );
  });
  it("declarations in any order", () => {
    const text = read(
      `alias Pair = Both; struct Both { @size(16) o: f32, @align(16) params: array<Inner, N>, }; const N = 2u;
       const_assert N == 2u;; struct Inner { weights: f32 } ${body("var p: Pair; p.o = p.params[0].weights; _ = helper(p);")}
       fn helper(p: Pair) -> f32 { return p.o; }`,
    );
    expect([...text.declared.keys()]).toEqual(["Pair", "Both", "N", "Inner", "score", "helper"]);
    expect([...text.locals]).toEqual(["s", "at", "p"]);
  });
});

describe("a text is refused, with line and column,", () => {
  it.each([
    [
      "an entry point",
      `\n @compute @workgroup_size(1) fn x() {} ${PLAIN}`,
      "text:2:2: `@compute` can't be",
    ],
    [
      "an attribute of a parameter",
      "fn score(@builtin(position) s: f32) -> f32 { }",
      "text:1:10: `@builtin` can't be",
    ],
    [
      "an attribute of a statement",
      body("@diagnostic(off, x) { }"),
      "text:1:41: `@diagnostic` can't be",
    ],
    ["an import behind a semicolon", `${PLAIN}; import package::a::{b};`, ": `import` can't be"],
    ["an import in a body", body("import package::a;"), "text:1:41: `import` can't be"],
    ["a path", body("_ = package::lib::x();"), "text:1:45: `package` can't be"],
    ["a directive behind a semicolon", `;enable f16; ${PLAIN}`, "text:1:2: `enable` can't be"],
    ["a directive", `requires x; ${PLAIN}`, "text:1:1: `requires` can't be"],
    ["a filter", `diagnostic(off, x); ${PLAIN}`, "text:1:1: `diagnostic` can't be"],
    ["memory", `var<workgroup> x: u32; ${PLAIN}`, "text:1:1: `var` can't be"],
    ["its own memory", `var<private> x: u32; ${PLAIN}`, "text:1:1: `var` can't be"],
    ["a constant of the pipeline", `override x: u32; ${PLAIN}`, "text:1:1: `override` can't be"],
    ["an output", body("o[0] = s;"), 'text:1:41: there is no "o" here'],
    ["an operand", body("_ = q;"), 'text:1:45: there is no "q" here'],
    ["a uniform", body("_ = params.scale;"), 'text:1:45: there is no "params" here'],
    ["a type of ours", body("var w: Work;"), 'text:1:48: there is no "Work" here'],
    [
      "a name that is out of scope",
      body("{ let x = s; } _ = x;"),
      'text:1:60: there is no "x" here',
    ],
    ["a counter after its loop", body("for (var i = 0; ; ) { } _ = i;"), 'there is no "i" here'],
    ["a variable in its own value", body("let q = q;"), 'text:1:49: there is no "q" here'],
    [
      "a parameter of another function",
      `fn x(q: f32) { } ${body("_ = q;")}`,
      'there is no "q" here',
    ],
    [
      "a parameter in the head",
      `fn x(HEAD_DIM: u32, y: array<f32, HEAD_DIM>) { } ${PLAIN}`,
      'no "HEAD_DIM" here',
    ],
    ["a name in a template", body("var<q> x = s;"), 'there is no "q" here'],
    ["a barrier", body("workgroupBarrier();"), "barriers would stop the kernel"],
    ["a lane", body("_ = quadSwapX(s);"), "lanes of a subgroup"],
    ["a derivative", body("_ = dpdx(s);"), "derivatives are"],
    ["an atomic", body("_ = atomicLoad(&weights);"), "captures are only read"],
    ["a texture", body("_ = textureLoad(t);"), "textures can't be captured"],
    ["half a float", body("_ = vec2h();"), "take f32"],
    ["an end of fragments", body("discard;"), "text:1:41: `discard` can't be"],
    ["recursion", `fn a() { b(); } fn b() { a(); } ${PLAIN}`, "text:1:4: a needs itself"],
    ["a constant of itself", `const a = b; const b = a; ${PLAIN}`, "text:1:7: a needs itself"],
    ["two of a name", `const a = 1; ${PLAIN} fn a() { }`, "a is declared twice"],
    ["a type of WGSL", `alias f32 = u32; ${PLAIN}`, "text:1:7: f32 has a meaning already"],
    [
      "what it was given",
      `struct Position { } ${PLAIN}`,
      "text:1:8: Position has a meaning already",
    ],
    ["a capture", `const slope = 1.0; ${PLAIN}`, "text:1:7: slope has a meaning already"],
    ["underscores", body("let __x = s;"), "text:1:45: `__x` can't be a name"],
    ["a reserved word", body("let final = s;"), "`final` can't be a name: WGSL reserves the word"],
    ["a keyword", "fn fn() { }", "`fn` can't be a name: it is a keyword"],
    ["a brace too many", `${PLAIN} }`, "expected fn, struct, const, alias or const_assert"],
    ["a brace too few", PLAIN.slice(0, -1), "text:1:39: the text ends before a `}`"],
    ["brackets that do not match", body("_ = (s];"), "text:1:47: `]` closes nothing"],
    ["an end in a declaration", `${PLAIN} const x = 1`, "the text ends before a `;`"],
    ["an attribute of nothing", `${PLAIN} @must_use`, "nothing follows the attribute"],
    ["braces in a constant", `const a = { }; ${PLAIN}`, "unexpected `{`"],
    ["a loop without a body", body("for (var o = s; ; ) o += 1.0;"), "expected { after the head"],
    [
      "a long name",
      body(`let ${"a".repeat(1001)} = s;`),
      "a name has 1001 characters; at most 1000",
    ],
    ["deep brackets", body(`_ = ${"(".repeat(1e5)}`), "brackets are nested more than 127 deep"],
    ["a long text", " ".repeat(MOST_TEXT + 1), `at most ${MOST_TEXT} are taken`],
  ])("%s", (_, source, message) => {
    expect(failure(source)).toContain(message);
  });
});

describe("the lines of a text", () => {
  const linked = (text: GuestText, taken: string[]) =>
    guestLines(
      { entries: ["score"], parts: [{ text, suffix: "" }], memory: [], memoryLabel: "" },
      new Set(taken),
    );

  it("are its tokens in their columns, without comments", () => {
    const text = read(
      `// a /* b\r\n/* c\n*/\tfn score(s:f32,at:Position)->f32{ // unroll\u2028 return/**/s; }`,
    );
    expect(text.lines((name) => name)).toEqual([
      { module: "text", line: 3, text: "   fn score(s:f32,at:Position)->f32{" },
      { module: "text", line: 4, text: " return    s; }" },
    ]);
  });
  it("keep columns if other names are longer", () => {
    const lines = linked(
      read("fn sees(max: f32) -> f32 { return max; } fn min() { } fn score() { sees(1.0); }"),
      ["sees"],
    );
    expect(lines.map(({ text }) => text.trim()).join(" ")).toBe(
      "fn sees_2 (max: f32) -> f32 { return max; } fn min_2 () { } fn score() { sees_2 (1.0); }",
    );
    expect(lines[1].text.indexOf("(")).toBe("fn sees".length);
    expect(lines.every(({ line, rewritten }) => line === 1 && !rewritten)).toBe(true);
  });
  it("take no name of the kernel, nor one that a variable of the text has", () => {
    const text = read(`fn helper() { } ${body("let helper_2 = s; helper();")}`);
    // biome-ignore format: one thought
    const code = linked(text, ["helper", "helper_3"]).map((line) => line.text).join(" ");
    expect(code).toMatch(/fn helper_4 .*let helper_2 = s; helper_4/s);
  });
  it("say where columns are not kept, and cost no more than a few times the text", () => {
    const text = read(body(`${" ".repeat(600)}_ = s;`));
    expect(text.lines((name) => name)).toMatchObject([
      { rewritten: true, text: `${body("_ = s;")}` },
    ]);
    const many = read(
      `const a = 1.0; ${body(Array.from({ length: 20 }, () => `_ = ${"a+".repeat(200)}a;`).join("\n"))}`,
    );
    const written = many
      .lines((name) => `${name}_long`)
      .reduce((sum, line) => sum + line.text.length, 0);
    expect(written).toBeLessThan(20 * many.source.length + 2 ** 17);
  });
});

it("the names of WGSL that our shaders call are known, so that no text can hide them", () => {
  const folder = resolve(import.meta.dirname, "../../shaders");
  const files = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((file) =>
    file.endsWith(".wesl"),
  );
  const declared = new Set<string>();
  const called = new Set<string>();
  for (const file of files) {
    const text = readFileSync(join(folder, file), "utf8");
    // The dispatcher makes some modules, which declare what is imported from them.
    for (const [, names] of text.matchAll(/^import [^;{]*\{([^}]*)\};/gm)) {
      for (const name of names.split(",")) declared.add(name.trim());
    }
    const tokens = tokensOf(text);
    tokens.forEach((token, index) => {
      const before = tokens[index - 1];
      if (/^(?:fn|struct|alias)$/.test(before)) declared.add(token);
      else if (/^\w+$/.test(token) && tokens[index + 1] === "(" && before !== "@")
        called.add(token);
    });
  }
  const keywords = /^(?:if|for|while|switch|return|diagnostic)$/;
  const known = [...called].filter((name) => !declared.has(name) && !keywords.test(name));
  expect(known.length).toBeGreaterThan(30);
  expect(known.filter((name) => !isPredeclared(name))).toEqual([]);
});

describe("time is linear in the text", () => {
  const texts: Readonly<Record<string, (n: number) => string>> = {
    statements: (n) => body("_ = s + 1.0; ".repeat(n)),
    "blank lines": (n) => "\n".repeat(4 * n) + PLAIN,
    "a comment": (n) => `/*${"x".repeat(40 * n)}*/${PLAIN}`,
    "nested comments": (n) => "/*".repeat(4 * n) + "*/".repeat(4 * n) + PLAIN,
    "helpers that call each other": (n) =>
      Array.from({ length: n }, (_, i) => `fn f_${i}() { ${i ? `f_${i - 1}();` : ""} }`).join(
        "\n",
      ) + PLAIN,
    "members and variables": (n) =>
      body(Array.from({ length: n }, (_, i) => `let x${i} = at.head;`).join("")),
  };
  it.each(Object.entries(texts))(
    "%s",
    (_, make) => {
      const timeOf = (n: number) => {
        const source = make(n);
        const runs = Array.from({ length: 3 }, () => {
          const start = performance.now();
          read(source).lines((name) => name);
          return performance.now() - start;
        });
        return Math.min(...runs);
      };
      timeOf(1000);
      const small = timeOf(5_000);
      // This is 16 times the text, for which a quadratic pass would take 256 times as long.
      expect(timeOf(80_000)).toBeLessThan(90 * small + 50);
    },
    60_000,
  );
});

describe("any text", () => {
  const fragments = fc.constantFrom(
    ...[
      "fn ",
      "score",
      "(",
      ")",
      "{",
      "}",
      "[",
      "]",
      ";",
      ",",
      ":",
      "->",
      "f32",
      "at",
      "Position",
      "o",
      "q",
      "params",
    ],
    ...[
      "let ",
      "var ",
      "const ",
      "for ",
      "if ",
      "x",
      "=",
      "1.0",
      "1",
      ".",
      "@",
      "compute",
      "enable ",
      "import ",
      "_",
    ],
    ...[
      "//",
      "/*",
      "*/",
      "\n",
      "\r",
      "\u2028",
      "\u0085",
      " ",
      "\0",
      "é",
      "\ud800",
      "<",
      ">",
      "&",
      "main",
      "::",
    ],
    ...[
      "return ",
      "struct ",
      "alias ",
      "override ",
      "discard",
      "workgroupBarrier",
      "switch ",
      "case ",
      "default",
    ],
  );
  const random = fc.array(fragments, { maxLength: 40 }).map((list) => list.join(""));
  const legal = `struct Pair { a: f32, b: f32 }\nconst N = 2u; // two\nfn helper(p: Pair) -> f32 { return p.a * slope; }
fn score(s: f32, at: Position) -> f32 { var sum = s; for (var i = 0u; i < N; i++) { sum += helper(Pair(s, 1.0)); } return sum; }`;
  const mutated = fc.tuple(fc.nat(legal.length), fc.nat(6), random).map(([at, cut, put]) => {
    return legal.slice(0, at) + put + legal.slice(at + cut);
  });

  it.each([
    ["random", random],
    ["mutated", mutated],
  ])("(%s) is refused with a FoveaError, or names nothing of the kernel's", (_, texts) => {
    const ours = /^(?:o|q|params|main|compute|enable|import|override|discard|workgroupBarrier)$/;
    fc.assert(
      fc.property(texts, (source) => {
        let text: GuestText;
        try {
          text = read(source);
        } catch (error) {
          expect(error).toBeInstanceOf(FoveaError);
          return;
        }
        for (const name of text.used) if (!text.declared.has(name)) expect(name).not.toMatch(ours);
        // biome-ignore format: one thought
        const code = text.lines((name) => `${name}_renamed`).map((line) => line.text).join("\n");
        expect(code).not.toMatch(
          /\/[/*]|[^\n -~é]|@compute|\b(?:enable|import|override|discard)\b/,
        );
        const renamed = (name: string) => name.replace(/_renamed$/, "");
        expect(tokensOf(code).map(renamed)).toEqual(tokensOf(source).map(renamed));
      }),
      { numRuns: 1500, seed: 20261130 },
    );
  });
});
