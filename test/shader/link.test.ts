import { describe, expect, it } from "vitest";
import { FoveaError } from "../../src/errors.ts";
import { link, type ModuleMap, type Renames } from "../../src/shader/link.ts";
import { asOutput, asReadRows } from "../../src/shader/renames_operands.ts";
import { blankComments } from "../../src/shader/source.ts";

const MODULES: ModuleMap = {
  "package::main": [
    "// a kernel",
    "import package::lib::math::{twice};",
    "import package::slots::config::{",
    "  SIZE,",
    "};",
    "enable f16;",
    "",
    "fn main() -> u32 {",
    "  return twice(SIZE);",
    "}",
  ].join("\n"),
  "package::lib::math":
    "fn twice(x: u32) -> u32 { return 2u * x; }\nfn half(x: u32) -> u32 { return x / 2u; }",
  "package::slots::config": "const SIZE = 8u;",
};

const failure = (modules: ModuleMap, root = "package::main") => {
  try {
    link(root, modules);
  } catch (error) {
    expect(error).toBeInstanceOf(FoveaError);
    expect((error as FoveaError).code).toBe("shader");
    return (error as Error).message;
  }
  throw new Error("the link should have failed");
};
const withMain = (text: string): ModuleMap => ({ ...MODULES, "package::main": text });

describe("link", () => {
  const linked = link("package::main", MODULES);
  const lines = linked.code.split("\n");

  it("puts directives first and every module before the one that imports it", () => {
    expect(lines[0]).toBe("enable f16;");
    expect(linked.code.indexOf("fn twice")).toBeLessThan(linked.code.indexOf("fn main"));
    expect(linked.code.indexOf("const SIZE")).toBeLessThan(linked.code.indexOf("fn main"));
    expect(linked.code).not.toContain("import");
  });

  it("maps a line of the output to the file and line it was written on", () => {
    const at = (text: string) => linked.locate(lines.findIndex((line) => line.includes(text)) + 1);
    expect(at("enable f16")).toMatchObject({ module: "main.wesl", line: 6 });
    expect(at("return twice(SIZE)")).toMatchObject({ module: "main.wesl", line: 9 });
    expect(at("fn half")).toMatchObject({ module: "lib/math.wesl", line: 2 });
    expect(at("const SIZE")).toMatchObject({ module: "slots/config.wesl", line: 1 });
  });

  it("replaces a slot by other text, which may have its own name", () => {
    const replaced = link("package::main", {
      ...MODULES,
      "package::slots::config": { name: "your config", text: "\nconst SIZE = 16u;" },
    });
    const line = replaced.code.split("\n").findIndex((text) => text.includes("16u")) + 1;
    expect(replaced.locate(line)).toMatchObject({ module: "your config", line: 2 });
    expect(replaced.code).not.toContain("8u;");
  });

  it("links a module once, however many import it, and modules that import each other", () => {
    const { code } = link("package::a", {
      "package::a": "import package::b::{f};\nimport package::c::{g};\nfn main() { f(); g(); }",
      "package::b": "import package::c::{g};\nfn f() { g(); }",
      "package::c": "import package::b::{f};\nfn g() {}",
    });
    expect(code.match(/fn g\(/g)).toHaveLength(1);
  });

  it("does not see imports and declarations inside comments and function bodies", () => {
    const { code } = link("package::main", {
      "package::main":
        "// import package::nowhere::{x};\n/* fn twice() {} /* nested */ import a::{b}; */\nfn main() { const twice = 1u; }\nimport package::lib::math::{twice};",
      "package::lib::math": MODULES["package::lib::math"],
    });
    expect(code).toContain("fn twice");
  });
});

describe("link of a module under other names", () => {
  const row = [
    "import package::slots::config::{SIZE};",
    "@group(0) @binding(1) var<storage, read> q: array<u32>;  // [M, SIZE]",
    "fn word_of_q(at: u32) -> u32 { if (at > 1u) { return q[1]; } return q[at]; }",
    "fn load_q() -> u32 { return word_of_q(0u) + SIZE; }",
  ].join("\n");
  const linked = (rename: Renames, load = "load_q", more: ModuleMap = {}) =>
    link("package::main", {
      ...MODULES,
      "package::main": `import package::slots::query::{${load}};\nfn main() { ${load}(); }`,
      "package::slots::query": { name: "query renamed", text: row, rename },
      ...more,
    });

  it("renames whole names and bindings, in comments too", () => {
    const { code } = linked(
      {
        names: {
          q: "k",
          load_q: "load_k",
          word_of_q: "word_of_k",
          "@binding(1)": "@binding(2)",
          "M?": "N",
          "ABSENT?": "X",
        },
      },
      "load_k",
    );
    expect(code).toContain("@group(0) @binding(2) var<storage, read> k: array<u32>;  // [N, SIZE]");
    expect(code).toContain("fn load_k() -> u32 { return word_of_k(0u) + SIZE; }");
    expect(code).not.toMatch(/\bq\b|_q\b/);
  });

  it("does not import what an expression stands for", () => {
    const { code } = linked({
      names: { SIZE: "params.width" },
      andThen: asReadRows("x", 1).andThen,
    });
    expect(code).toContain("return word_of_q(0u) + params.width; }");
    expect(code).not.toContain("const SIZE");
  });

  it("imports a declaration of another module in place of the module's own", () => {
    const output = "package::slots::output";
    const { code, locate } = linked(
      {
        names: { q: "o", word_of_q: "word_of_o" },
        andThen: asOutput("x").andThen,
      },
      "load_q",
      {
        [output]: "var<workgroup> o: u32;\nfn word_of_o(at: u32) -> u32 { return o + at; }",
      },
    );
    expect(code.match(/fn word_of_o/g)).toHaveLength(1);
    expect(code).not.toContain("var<storage");
    const line = code.split("\n").findIndex((text) => text.includes("fn load_q")) + 1;
    expect(locate(line)).toEqual({ module: "query renamed", line: 4, rewritten: false });
  });

  it("fails if the module has no such name, or the other module lacks it", () => {
    expect(() => linked({ names: { q: "k", quary: "key", "@binding(7)": "x" } })).toThrow(
      "query renamed:1: has no quary, @binding(7) to rename",
    );
    const lacking = { "package::slots::output": "fn other() { }" };
    const rename = { names: { q: "o" }, andThen: asOutput("x").andThen };
    expect(() => linked(rename, "load_q", lacking)).toThrow("declares no o");
  });
});

describe("link refuses, with module and line,", () => {
  it("an unknown root", () => {
    expect(failure({}, "package::gone")).toBe("link: unknown module package::gone");
  });
  it("an unknown module", () => {
    expect(failure(withMain("\nimport package::gone::{x};"))).toBe(
      "main.wesl:2: unknown module package::gone",
    );
  });
  it("an unknown name", () => {
    const message = failure(withMain("import package::lib::math::{twice, thrice};"));
    expect(message).toBe("main.wesl:1: lib/math.wesl declares no thrice");
  });
  it("a constant that the replaced slot lacks", () => {
    const message = failure({
      ...MODULES,
      "package::slots::config": { name: "slots/config", text: "const WIDTH = 1u;" },
    });
    expect(message).toBe("main.wesl:3: slots/config declares no SIZE");
  });
  it("a name declared by two modules", () => {
    const message = failure(withMain("import package::lib::math::{half};\n\nfn twice() {}"));
    expect(message).toBe("main.wesl:3: twice is also declared at lib/math.wesl:1");
  });
  it("a name declared twice in a module", () => {
    expect(failure(withMain("const A = 1;\nvar<private> A: u32;"))).toBe(
      "main.wesl:2: A is declared twice",
    );
  });
  it("an import of another form", () => {
    expect(failure(withMain("import package::lib::math as m;"))).toBe(
      "main.wesl:1: expected `import package::path::{Name, ...};`, found `import package::lib::math as m;`",
    );
  });
});

describe("blankComments", () => {
  it("keeps every position", () => {
    const text = "a /* b\n/* c */ d */ e // f /* g\nh";
    const blank = blankComments(text);
    expect(blank).toHaveLength(text.length);
    expect(blank.replace(/ +/g, " ")).toBe("a \n e \nh");
  });
  it("ends a block comment behind a line comment inside it", () => {
    expect(blankComments("/* // */ x").trim()).toBe("x");
    expect(blankComments("/* // /* */ */ x").trim()).toBe("x");
  });
});
