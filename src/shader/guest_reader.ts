// Reads the text of a user's function and resolves every name in it by WGSL's rules of scope. It
// knows as much of WGSL's grammar as scopes need; all other mistakes are left to the compiler.

import { type FoveaError, show } from "../errors.ts";
import { recursive } from "./recursion.ts";
import type { Tokens } from "./tokens.ts";
import {
  ATTRIBUTES,
  FORBIDDEN,
  isPromised,
  isType,
  MEMORY,
  STATEMENTS,
  whyNoName,
  whyNot,
} from "./wgsl_names.ts";

const MOST_DEPTH = 127; // WGSL lets statements nest so deep; brackets of all kinds count here
const MOST_NAME = 1000; // UTF-16 code units

const CLOSING: Readonly<Record<string, string>> = { "(": ")", "[": "]", "{": "}" };
/** What may stand in a stretch of the text. */
type Stretch = "body" | "head" | "members" | "expression";

interface Bracket {
  readonly sign: string;
  readonly start: number;
  /** How many names were in scope before it. */
  readonly scope: number;
  /** Whether it is the head of a loop, whose names stay in scope for the body. */
  readonly ofLoop: boolean;
}

/** The head of a function. */
export interface EntryHead {
  /** The head from `fn` on, as its author wrote it. */
  readonly written: string;
  /** Parameters and result, without blanks and comments. */
  readonly signature: string;
}

export class GuestReader {
  /** Names of the module scope, and where each is declared. */
  readonly declared = new Map<string, number>();
  readonly locals = new Set<string>();
  /** Names from outside of functions, and where each is used first. */
  readonly used = new Map<string, number>();
  /** The offsets at which such names stand. */
  readonly outer: number[] = [];
  /** The heads of the functions. */
  readonly heads = new Map<string, EntryHead>();
  readonly #tokens: Tokens;
  readonly #names: ReadonlySet<string>;
  /** Parameters and variables in scope, innermost last, and how often each is. */
  readonly #scope: string[] = [];
  readonly #visible = new Map<string, number>();
  readonly #parameters: string[] = [];
  /** What each declaration of the module scope uses. */
  readonly #uses = new Map<string, Set<string>>();
  #declaration = new Set<string>();

  /** @param names Names that the text may use beside its own and WGSL's */
  constructor(tokens: Tokens, names: ReadonlySet<string>) {
    this.#tokens = tokens;
    this.#names = names;
  }

  read(): void {
    while (this.#tokens.next().kind !== "end") this.#readDeclaration();
    for (const [name, offset] of this.used) this.#checkKnown(name, offset);
    this.#checkCycles();
  }

  #readDeclaration(): void {
    const tokens = this.#tokens;
    const { start, text } = tokens;
    if (text === ";") return;
    if (text === "@") {
      this.#readAttribute();
      if (tokens.peek() === "") throw tokens.error(start, "nothing follows the attribute");
      return;
    }
    if (text === "fn") this.#readFunction();
    else if (text === "struct") {
      this.#declare("struct");
      this.#expect("{");
      this.#readUntil("}", "members");
    } else if (text === "const" || text === "alias") {
      this.#declare(text);
      this.#readUntil(";", "expression");
    } else if (text === "const_assert") {
      this.#declaration = new Set();
      this.#readUntil(";", "expression");
    } else if (text === "var") {
      throw this.#forbidden(start, "var", MEMORY);
    } else {
      this.#checkAllowed(text, start);
      throw tokens.error(
        start,
        `expected fn, struct, const, alias or const_assert, found ${show(text)}`,
      );
    }
  }

  #readFunction(): void {
    const { source, start } = this.#tokens;
    const name = this.#declare("fn");
    this.#expect("(");
    const head = ["("];
    this.#readUntil("{", "head", (text) => head.push(text));
    this.heads.set(name, {
      written: source.slice(start, this.#tokens.start).trim(),
      signature: head.join(""),
    });
    // Parameters are in scope in the body, and not yet in the head.
    for (const parameter of this.#parameters.splice(0)) this.#enter(parameter);
    this.#readUntil("}", "body");
    this.#leave(0);
  }

  /** Goes past brackets, names and numbers up to the sign `stop` outside of all brackets. */
  #readUntil(stop: string, stretch: Stretch, seen?: (text: string) => void): void {
    const tokens = this.#tokens;
    const began = tokens.start;
    const open: Bracket[] = [];
    if (stretch === "head") open.push({ sign: "(", start: began, scope: 0, ofLoop: false });
    /** A variable whose statement is not over, and how many brackets are around it. */
    let variable: { readonly name: string; readonly depth: number } | undefined;
    let loop: "head" | "body" | undefined;
    let loopScope = 0;
    for (;;) {
      const { kind, start, text } = tokens.next();
      if (kind === "end")
        throw tokens.error(open.at(-1)?.start ?? began, `the text ends before a \`${stop}\``);
      if (open.length === 0 && text === stop) return;
      seen?.(text);
      if (loop === "body" && text !== "{")
        throw tokens.error(start, "expected { after the head of the loop");
      if (kind === "name") {
        if (stretch === "head" || stretch === "members") this.#readMember(text, start, stretch);
        else if (stretch === "body" && STATEMENTS.has(text)) {
          if (text === "for") loop = "head";
          if (text !== "let" && text !== "var" && text !== "const") continue;
          variable = { name: this.#readVariable(text), depth: open.length };
        } else this.#use(text, start);
      } else if (text === "(" || text === "[" || text === "{") {
        if (text === "{" && stretch !== "body") throw tokens.error(start, "unexpected `{`");
        if (open.length === MOST_DEPTH)
          throw tokens.error(start, `brackets are nested more than ${MOST_DEPTH} deep`);
        const scope = loop === "body" ? loopScope : this.#scope.length;
        open.push({ sign: text, start, scope, ofLoop: loop === "head" && text === "(" });
        loop = undefined;
      } else if (text === ")" || text === "]" || text === "}") {
        const bracket = open.pop();
        if (!bracket || CLOSING[bracket.sign] !== text)
          throw tokens.error(start, `\`${text}\` closes nothing`);
        if (bracket.ofLoop) {
          loop = "body";
          loopScope = bracket.scope;
        } else if (text === "}") this.#leave(bracket.scope);
      } else if (text === ";" && variable?.depth === open.length) {
        this.#enter(variable.name);
        variable = undefined;
      } else if (text === "@") this.#readAttribute();
      else if (text === ".") {
        const member = tokens.next();
        if (member.kind !== "name") throw tokens.error(member.start, "expected a name after `.`");
        this.#checkName(member.text, member.start);
      }
    }
  }

  /** Reads a parameter, a member of a struct, or a name in their types. */
  #readMember(text: string, start: number, stretch: "head" | "members"): void {
    if (this.#tokens.peek() !== ":") this.#use(text, start);
    else {
      this.#checkName(text, start);
      if (stretch === "head") this.#parameters.push(text);
    }
  }

  /** Reads the name of a variable, after its address space. */
  #readVariable(word: string): string {
    const tokens = this.#tokens;
    if (word === "var" && tokens.peek() === "<") {
      while (tokens.next().text !== ">") {
        if (tokens.kind === "end") throw tokens.error(tokens.start, "expected `>`");
        if (tokens.kind === "name") this.#use(tokens.text, tokens.start);
      }
    }
    return this.#readName(word);
  }

  #readName(after: string): string {
    const { kind, start, text } = this.#tokens.next();
    if (kind !== "name")
      throw this.#tokens.error(start, `expected a name after ${after}, found ${show(text)}`);
    this.#checkName(text, start);
    return text;
  }

  /** Reads the name of a declaration of the module scope. */
  #declare(word: string): string {
    const name = this.#readName(word);
    const { start } = this.#tokens;
    if (isType(name) || this.#names.has(name)) {
      throw this.#tokens.error(start, `${name} has a meaning already; take another name`);
    }
    if (this.declared.has(name)) throw this.#tokens.error(start, `${name} is declared twice`);
    this.declared.set(name, start);
    this.outer.push(start);
    this.#declaration = new Set();
    this.#uses.set(name, this.#declaration);
    return name;
  }

  #readAttribute(): void {
    const { start } = this.#tokens;
    const { kind, text } = this.#tokens.next();
    if (kind === "name" && ATTRIBUTES.has(text)) return;
    throw this.#forbidden(
      start,
      `@${text}`,
      "attributes belong to the kernel; pass memory as captures",
    );
  }

  #expect(sign: string): void {
    const { start, text } = this.#tokens.next();
    if (text !== sign) throw this.#tokens.error(start, `expected \`${sign}\`, found ${show(text)}`);
  }

  #use(name: string, start: number): void {
    if (name === "true" || name === "false") return;
    if (name === "_" && this.#tokens.peek() === "=") return;
    if (this.#visible.get(name)) return;
    this.#checkName(name, start);
    this.outer.push(start);
    this.#declaration.add(name);
    if (!this.used.has(name)) this.used.set(name, start);
  }

  #checkName(name: string, start: number): void {
    this.#checkAllowed(name, start);
    const why = whyNoName(name);
    if (why) throw this.#tokens.error(start, `\`${name.slice(0, 100)}\` can't be a name: ${why}`);
    if (name.length > MOST_NAME) {
      throw this.#tokens.error(
        start,
        `a name has ${name.length} characters; at most ${MOST_NAME} are taken`,
      );
    }
  }

  #checkAllowed(word: string, start: number): void {
    if (Object.hasOwn(FORBIDDEN, word)) throw this.#forbidden(start, word, FORBIDDEN[word]);
  }

  #checkKnown(name: string, start: number): void {
    if (this.declared.has(name) || this.#names.has(name) || isPromised(name)) return;
    const why = whyNot(name);
    if (why) throw this.#forbidden(start, name, why);
    const given = [...this.#names].slice(0, 20).join(", ");
    throw this.#tokens.error(
      start,
      `there is no ${show(name)} here; a function has its own declarations, WGSL's functions, and ${given}`,
    );
  }

  #enter(name: string): void {
    this.locals.add(name);
    this.#scope.push(name);
    this.#visible.set(name, (this.#visible.get(name) ?? 0) + 1);
  }

  /** Forgets the names that are not among the first ones in scope. */
  #leave(scope: number): void {
    while (this.#scope.length > scope) {
      const name = this.#scope.pop() as string;
      this.#visible.set(name, (this.#visible.get(name) as number) - 1);
    }
  }

  /** Throws if a declaration uses itself: WGSL has no recursion. */
  #checkCycles(): void {
    const name = recursive(this.#uses);
    if (name === undefined) return;
    const start = this.declared.get(name) as number;
    throw this.#tokens.error(start, `${name} needs itself, and WGSL has no recursion`);
  }

  #forbidden(start: number, text: string, why: string): FoveaError {
    return this.#tokens.error(start, `\`${text}\` can't be in a function: ${why}`);
  }
}
