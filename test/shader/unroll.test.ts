import { describe, expect, it } from "vitest";
import { link } from "../../src/shader/link.ts";

/** Links a text, and returns it without indentation and empty lines. */
const expand = (text: string) =>
  link("package::main", { "package::main": text })
    .code.split("\n")
    .map((line) => line.trim())
    .filter(Boolean);
const failure = (text: string) => {
  try {
    expand(text);
  } catch (error) {
    return (error as Error).message;
  }
  throw new Error("the expansion should have failed");
};

describe("// unroll", () => {
  it("copies the body with the loop variable replaced, each copy in its own block", () => {
    expect(
      expand("// unroll\nfor (var i = 0u; i < 2u; i++) {\n  let x = a[i] + b.i + ii;\n}"),
    ).toEqual(["{", "let x = a[0u] + b.i + ii;", "}", "{", "let x = a[1u] + b.i + ii;", "}"]);
  });

  it("takes counts from module-scope constants, through any arithmetic", () => {
    const constants = "const A = 6u;\nconst B: u32 = (A + 2u) / 2u % 3u; // = 1\n";
    expect(
      expand(`${constants}// unroll\nfor (var i = 0u; i < A - 2u * (B + 1u); i++) { f(i); }`).slice(
        2,
      ),
    ).toEqual(["{", "f(0u);", "}", "{", "f(1u);", "}"]);
  });

  it("expands loops inside loops, whose count may be the outer variable", () => {
    const text =
      "// unroll\nfor (var i = 0u; i < 3u; i++) {\n// unroll\nfor (var j = 0u; j < i; j++) {\nf(i, j);\n}\n}";
    expect(expand(text).filter((line) => line.startsWith("f"))).toEqual([
      "f(1u, 0u);",
      "f(2u, 0u);",
      "f(2u, 1u);",
    ]);
  });

  it("leaves other loops alone, and comments that only look like it", () => {
    const text =
      "for (var i = 0u; i < 2u; i++) { f(i); }\n// unroll this one day\nfor (var j = 0u; j < 2u; j++) {}";
    expect(expand(text)).toHaveLength(3);
  });

  it("keeps the line that every copy was written on", () => {
    const text =
      "fn f() {\n// unroll\nfor (var i = 0u; i < 2u; i++) {\n\n  g(i);\n}\n}\nfn last() {}";
    const { code, locate } = link("package::main", { "package::main": text });
    const lines = code.split("\n");
    const written = (found: string) =>
      locate(lines.findIndex((line) => line.includes(found)) + 1).line;
    expect([written("g(0u)"), written("g(1u)"), written("fn last")]).toEqual([5, 5, 8]);
  });

  it("means the text as written when the expansion is off", () => {
    const text = "// unroll\nfor (var i = 0u; i < 2u; i++) {\n}";
    expect(link("package::main", { "package::main": text }, { unroll: false }).code).toBe(
      `${text}\n`,
    );
  });
});

describe("arrays that are only indexed by constants", () => {
  const loop = (body: string) => `fn f() {\n${body}\n}`;

  it("become one variable per element", () => {
    const text = loop(
      "var a = array<array<vec4f, 2u>, N>();\n// unroll\nfor (var i = 0u; i < N; i++) {\na[i][1u].x = a[0u][i];\n}",
    );
    expect(expand(`const N = 2u;\n${text}`)).toEqual([
      "const N = 2u;",
      "fn f() {",
      "var a_0_0 = vec4f(); var a_0_1 = vec4f(); var a_1_0 = vec4f(); var a_1_1 = vec4f();",
      "{",
      "a_0_1.x = a_0_0;",
      "}",
      "{",
      "a_1_1.x = a_0_1;",
      "}",
      "}",
    ]);
  });

  it.each([
    ["an index that isn't a constant", "a[k] = 1.0;"],
    ["a use as a whole", "let b = a;"],
    ["an index out of range", "a[2u] = 1.0;"],
    ["a pointer", "g(&a);"],
  ])("stay arrays after %s", (_, use) => {
    expect(expand(loop(`var a = array<f32, 2u>();\na[0u] = 1.0;\n${use}`))).toContain(
      "var a = array<f32, 2u>();",
    );
  });

  it("are told from arrays of the same name in other blocks, from members and from comments", () => {
    const text = loop(
      "{\nvar a = array<f32, 1u>();\na[0u] = b.a[k]; // a[k]\n}\n{\nvar a = array<f32, 1u>();\na[k] = 1.0;\n}",
    );
    const lines = expand(text);
    expect(lines).toContain("var a_0 = f32();");
    expect(lines).toContain("var a = array<f32, 1u>();");
    expect(lines.some((line) => line.startsWith("a_0 = b.a[k];"))).toBe(true);
  });
});

describe("the expander refuses", () => {
  it("a mark above anything but a counting loop", () => {
    const message =
      "main.wesl:2: `// unroll` must stand above `for (var i = 0u; i < COUNT; i++) {`";
    expect(failure("\n// unroll\nlet x = 1u;")).toBe(message);
    expect(failure("\n// unroll\nfor (var i = 1u; i < 2u; i++) {\n}")).toBe(message);
    expect(failure("\n// unroll")).toBe(message);
  });
  it("a count that it can't know", () => {
    expect(failure("// unroll\nfor (var i = 0u; i < n; i++) {\n}")).toBe(
      "main.wesl:2: can't unroll: `n` is not a constant of the module scope",
    );
    expect(failure("const A = A;\n// unroll\nfor (var i = 0u; i < A; i++) {\n}")).toContain(
      "`A` is not a constant",
    );
  });
  it("more lines than a kernel has, also of loops in loops", () => {
    const loop = (count: string, body: string) =>
      `// unroll\nfor (var i = 0u; i < ${count}; i++) {\n${body}\n}`;
    const message = "main.wesl:2: unrolled loops have more than 150000 lines";
    expect(failure(loop("300000u", "f(i);"))).toBe(message);
    const inner = loop("1000u", "f(i);").replaceAll("i ", "j ").replaceAll("i+", "j+");
    expect(failure(loop("1000u", inner))).toBe(message.replace(":2:", ":4:"));
  });
  it("jumps out of a loop that will not be one", () => {
    expect(failure("// unroll\nfor (var i = 0u; i < 2u; i++) {\n  continue;\n}")).toContain(
      "main.wesl:3: an unrolled",
    );
  });
  it("a loop that is not closed, or closed with more on the line", () => {
    expect(failure("// unroll\nfor (var i = 0u; i < 2u; i++) {\n")).toBe(
      "main.wesl:2: the unrolled loop is not closed",
    );
    expect(failure("// unroll\nfor (var i = 0u; i < 2u; i++) {\n} f();")).toContain(
      "main.wesl:3: nothing may follow",
    );
  });
});
