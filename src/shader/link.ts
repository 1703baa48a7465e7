// The linker: turns a root shader and the modules it imports into one WGSL text, and maps positions
// in that text back to the files people wrote. The language is WGSL plus WESL's
// `import package::a::b::{X, Y};` and nothing else. A shader is specialised by passing other text
// for a module path (a "slot"), or by linking a module under other names (`rename`), never by
// rewriting text.
//
// Names live in one flat namespace: a clash is reported, not renamed. Imports and directives are
// blanked rather than removed, so a line of the output is a line of its source.

import { FoveaError } from "../errors.ts";
import { blankComments, type Line, located } from "./source.ts";
import { expandLoops } from "./unroll.ts";

/**
 * Maps a module path (`package::lib::softmax`) to its text. A `name` is what messages call the
 * module instead of its file.
 */
export type ModuleMap = Readonly<Record<string, string | ModuleSource>>;
export interface ModuleSource {
  readonly name: string;
  readonly text: string;
  /** Names under which the module is linked, in place of those in the text. */
  readonly rename?: Renames;
  /** Modules that the text uses without importing them. */
  readonly uses?: readonly string[];
  /** The text of a user, which is linked in place of `text`. */
  readonly guest?: GuestModule;
}

/** Names of a module that are linked as others. */
export interface Renames {
  /**
   * Maps a name of the text, or `@binding(n)`, to what stands there instead: a name, or an
   * expression. The text must have the name, unless it ends in "?" here.
   */
  readonly names: Readonly<Record<string, string>>;
  /** Changes the text after that, and keeps its lines. */
  readonly andThen?: ((text: string) => string) | undefined;
}

/** A module whose lines are made when the names of all others are known. */
export interface GuestModule {
  /** The name that other modules import. */
  readonly entry: string;
  /** Makes lines whose names are not among `taken`, and adds the names to it. */
  lines(taken: Set<string>): readonly Line[];
}

export interface LinkOptions {
  /**
   * Expand the loops marked `// unroll` (default true). The meaning of the text is the same either
   * way.
   */
  readonly unroll?: boolean;
}

export interface LinkedShader {
  readonly code: string;
  /**
   * Tells where line `line` (from 1) of `code` was written. Columns are as written unless the line
   * was rewritten.
   */
  locate(line: number): { module: string; line: number; rewritten?: boolean };
}

interface Import {
  readonly from: string;
  readonly names: readonly string[];
  readonly line: number;
}

interface Module {
  readonly name: string;
  readonly imports: readonly Import[];
  readonly directives: readonly Line[];
  /** Module-scope names and the lines that declare them. */
  readonly declared: ReadonlyMap<string, number>;
  readonly lines: readonly Line[];
  readonly guest: GuestModule | undefined;
}

const IMPORT = /\bimport\s+([^;]*);/g;
const IMPORT_BODY = /^((?:\w+::)+)(?:(\w+)|\{([\w\s,]*)\})$/;
const RENAMED = /@binding\(\d+\)|[A-Za-z_]\w*/g;
const DIRECTIVE = /^[ \t]*(?:enable|requires|diagnostic)\b[^;]*;/gm;
const DECLARATION = /[{}]|\b(?:fn|struct|alias|const|override|var(?:\s*<[^>]*>)?)\s+(\w+)/g;

/**
 * Links `root` with everything it imports. Throws FoveaError("shader") with module and line for
 * anything unknown.
 */
export function link(root: string, modules: ModuleMap, options: LinkOptions = {}): LinkedShader {
  const parsed = new Map<string, Module>();
  const ordered: Module[] = [];
  const visit = (path: string, from?: { module: Module; line: number }): Module => {
    const known = parsed.get(path);
    if (known) return known;
    const source = modules[path];
    if (source === undefined) throw at(from, `unknown module ${path}`);
    const module = parse(path, source);
    parsed.set(path, module);
    for (const { from: target, names, line } of module.imports) {
      const imported = visit(target, { module, line });
      for (const name of names) {
        if (imported.declared.has(name)) continue;
        throw at({ module, line }, `${imported.name} declares no ${name}`);
      }
    }
    ordered.push(module);
    return module;
  };
  visit(root);
  rejectDuplicates(ordered);
  const directives = new Map(
    ordered.flatMap((module) => module.directives).map((line) => [line.text, line]),
  );
  const joined = [...directives.values(), ...ordered.flatMap((module) => module.lines)];
  // The loops of users stay loops.
  const lines = (options.unroll ?? true) ? expandLoops(joined) : joined;
  const taken = new Set(ordered.flatMap(({ declared }) => [...declared.keys()]));
  for (const { guest } of ordered)
    if (guest) for (const line of guest.lines(taken)) lines.push(line);
  const places = lines.map(({ module, line, rewritten = false }) => ({ module, line, rewritten }));
  return {
    code: `${lines.map((line) => line.text).join("\n")}\n`,
    locate: (line) =>
      places[Math.min(Math.max(line, 1), places.length) - 1] ?? { module: root, line: 1 },
  };
}

function parse(path: string, source: string | ModuleSource): Module {
  const given: ModuleSource =
    typeof source === "string" ? { name: fileName(path), text: source } : source;
  const { name, uses = [], guest, rename } = given;
  const used = uses.map((from): Import => ({ from, names: [], line: 1 }));
  if (guest)
    return {
      name,
      imports: used,
      directives: [],
      declared: new Map([[guest.entry, 1]]),
      lines: [],
      guest,
    };
  const text = rename ? renamed(name, given.text, rename) : given.text;
  const code = blankComments(text);
  const lineOf = (offset: number) => code.slice(0, offset).split("\n").length;
  const blanks: [start: number, end: number][] = [];

  const imports = [...code.matchAll(IMPORT)].map((match): Import => {
    const line = lineOf(match.index);
    const body = IMPORT_BODY.exec(match[1].trim());
    if (!body)
      throw located(
        name,
        line,
        `expected \`import package::path::{Name, ...};\`, found \`${match[0]}\``,
      );
    blanks.push([match.index, match.index + match[0].length]);
    const names = (body[2] ?? body[3] ?? "").split(",").map((item) => item.trim());
    return { from: body[1].slice(0, -2), names: names.filter(Boolean), line };
  });
  const directives = [...code.matchAll(DIRECTIVE)].map((match): Line => {
    blanks.push([match.index, match.index + match[0].length]);
    return { text: match[0].trim(), module: name, line: lineOf(match.index) };
  });

  const declared = new Map<string, number>();
  for (const { name: declaredName, offset } of declarations(code)) {
    const line = lineOf(offset);
    if (declared.has(declaredName)) throw located(name, line, `${declaredName} is declared twice`);
    declared.set(declaredName, line);
  }

  let body = text;
  for (const [start, end] of blanks) {
    body = body.slice(0, start) + body.slice(start, end).replace(/[^\n]/g, " ") + body.slice(end);
  }
  const lines = body
    .split("\n")
    .map((line, index): Line => ({ text: line.trimEnd(), module: name, line: index + 1 }));
  return { name, imports: [...used, ...imports], directives, declared, lines, guest };
}

/**
 * The text of a module under other names, line by line. Throws FoveaError("shader") if it lacks one
 * of the names.
 */
export function renamed(module: string, text: string, { names, andThen }: Renames): string {
  const missing = new Set(Object.keys(names).filter((name) => !name.endsWith("?")));
  const result = text.replace(RENAMED, (word) => {
    missing.delete(word);
    return names[word] ?? names[`${word}?`] ?? word;
  });
  if (missing.size > 0) throw located(module, 1, `has no ${[...missing].join(", ")} to rename`);
  return andThen?.(result) ?? result;
}

/** The module-scope names of a text without comments, and where they are declared. */
function declarations(code: string): { name: string; offset: number }[] {
  let depth = 0;
  const found: { name: string; offset: number }[] = [];
  for (const match of code.matchAll(DECLARATION)) {
    if (match[0] === "{") depth++;
    else if (match[0] === "}") depth--;
    else if (depth === 0 && match[1]) found.push({ name: match[1], offset: match.index });
  }
  return found;
}

function rejectDuplicates(modules: readonly Module[]): void {
  const owners = new Map<string, Module>();
  for (const module of modules) {
    for (const [name, line] of module.declared) {
      const owner = owners.get(name);
      if (owner) {
        throw located(
          module.name,
          line,
          `${name} is also declared at ${owner.name}:${owner.declared.get(name)}`,
        );
      }
      owners.set(name, module);
    }
  }
}

const fileName = (path: string) => `${path.replace(/^package::/, "").replaceAll("::", "/")}.wesl`;

const at = (from: { module: Module; line: number } | undefined, message: string) =>
  from
    ? located(from.module.name, from.line, message)
    : new FoveaError("shader", `link: ${message}`);
