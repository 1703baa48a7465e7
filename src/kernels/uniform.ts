// Uniform structs as the host writes them: names, types and places are read from the shader's own
// text.

import { FoveaError } from "../errors.ts";
import type { KernelSource } from "../types.ts";

/** A member of a struct: one number, or four, or an array of fours. */
export interface UniformMember {
  readonly name: string;
  /** The name of the type in WGSL; of an array, the type of its elements. */
  readonly type: string;
  /** Numbers that it holds. */
  readonly count: number;
  /** Bytes from the start of the struct. */
  readonly offset: number;
}

/** The values of members: a number, or as many as the member holds. */
export type UniformValues<Name extends string = string> = {
  readonly [Member in Name]?: number | ArrayLike<number> | undefined;
};

/** Bytes of a vec4; its offset is a multiple of them. */
const VEC4_BYTES = 16;
const VEC4 = "vec4";
/** By the letter that says what a type's numbers are. */
const WRITERS = { u: "setUint32", i: "setInt32", f: "setFloat32" } as const;

/** Writes a number as the GPU reads it: of u32, i32 or f32, or of vec4u or vec4f. */
export function writeScalar(view: DataView, offset: number, type: string, value: number): void {
  const [letter] = type.replace(VEC4, "");
  view[WRITERS[letter as keyof typeof WRITERS]](offset, value, true);
}

/** A struct that a uniform holds. */
export class UniformStruct<Name extends string = string> {
  readonly members: readonly UniformMember[];
  /** Bytes of the struct: a uniform's size is a multiple of 16. */
  readonly bytes: number;
  readonly #name: string;
  readonly #known: ReadonlySet<string>;

  /**
   * @param shader The text that declares the struct
   * @param name The struct's name
   * @param lengths The lengths of its arrays, by the names of the constants that stand for them in
   * the text
   */
  constructor(shader: string, name: string, lengths: Readonly<Record<string, number>> = {}) {
    const body = new RegExp(`\\bstruct ${name} \\{([^}]*)\\}`).exec(shader)?.[1] ?? "";
    let end = 0;
    this.members = [...body.matchAll(/^ *(\w+): (?:array<(\w+), (\w+)>|(\w+)),/gm)].map(
      ([, member, element, length, type]) => {
        const count = (element ?? type).startsWith(VEC4) ? 4 : 1;
        const offset = count > 1 ? Math.ceil(end / VEC4_BYTES) * VEC4_BYTES : end;
        const all = element ? count * lengths[length] : count;
        end = offset + 4 * all;
        return { name: member, type: element ?? type, count: all, offset };
      },
    );
    this.bytes = Math.ceil(end / VEC4_BYTES) * VEC4_BYTES;
    this.#name = name;
    this.#known = new Set(this.members.map((member) => member.name));
  }

  /**
   * Writes the struct into `bytes` at `offset`.
   *
   * Throws FoveaError("shader") for a value that the struct has no member for, and for a member
   * without a value: of a struct that several kernels share, for one that the kernel `source` reads
   * as `params.member`. The others are then 0.
   */
  pack(values: UniformValues<Name>, bytes: ArrayBuffer, offset = 0, source?: KernelSource): void {
    const given = values as UniformValues;
    for (const name in given) if (!this.has(name)) this.#refuse(`has no member ${name}`);
    const read = source && membersRead(source);
    const view = new DataView(bytes, offset, this.bytes);
    for (const member of this.members) {
      const value = given[member.name] ?? (read?.has(member.name) === false ? 0 : undefined);
      if (value === undefined)
        this.#refuse(`gets no value for ${member.name}${source ? ` of ${source.label}` : ""}`);
      const isNumber = typeof value === "number";
      if (!isNumber && value.length !== member.count)
        this.#refuse(`gets ${value.length} numbers for ${member.name}`);
      for (let i = 0; i < member.count; i++)
        writeScalar(view, member.offset + 4 * i, member.type, isNumber ? value : value[i]);
    }
  }

  has(name: string): boolean {
    return this.#known.has(name);
  }

  /**
   * Bytes from the uniform of one dispatch to the next: offsets of uniforms are multiples of 256 at
   * most.
   */
  get stride(): number {
    return Math.ceil(this.bytes / 256) * 256;
  }

  #refuse(what: string): never {
    throw new FoveaError("shader", `the uniform ${this.#name} ${what}.`);
  }
}

const readBy = new WeakMap<KernelSource, ReadonlySet<string>>();

/** The members of its uniform `params` that a kernel's text reads. */
function membersRead(source: KernelSource): ReadonlySet<string> {
  let members = readBy.get(source);
  if (!members) {
    members = new Set([...source.code.matchAll(/\bparams\.(\w+)/g)].map(([, name]) => name));
    readBy.set(source, members);
  }
  return members;
}
