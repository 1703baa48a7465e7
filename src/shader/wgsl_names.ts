// The names of WGSL: what the text of a user's function may name, and what it may not, with the
// reason.
// Source: WGSL (W3C), sections 6 ("Types"), 16 ("Keyword and token summary") and 17 ("Built-in
// functions").

const words = (text: string): ReadonlySet<string> => new Set(text.split(" "));

/** Keywords that may stand in the body of a function. */
export const STATEMENTS = words(
  "break case const const_assert continue continuing default else false for if let loop return switch true var while",
);

/** Words that WGSL keeps for itself; none can be a name. */
const RESERVED = words(
  "NULL Self abstract active alignas alignof as asm asm_fragment async attribute auto await become cast catch class " +
    "co_await co_return co_yield coherent column_major common compile compile_fragment concept const_cast consteval " +
    "constexpr constinit crate debugger decltype delete demote demote_to_helper do dynamic_cast enum explicit export " +
    "extends extern external fallthrough filter final finally friend from fxgroup get goto groupshared highp impl " +
    "implements import inline instanceof interface layout lowp macro macro_rules match mediump meta mod module move mut " +
    "mutable namespace new nil noexcept noinline nointerpolation non_coherent noncoherent noperspective null nullptr of " +
    "operator package packoffset partial pass patch pixelfragment precise precision premerge priv protected pub public " +
    "readonly ref regardless register reinterpret_cast require resource restrict self set shared sizeof smooth snorm " +
    "static static_assert static_cast std subroutine super target template this thread_local throw trait try type " +
    "typedef typeid typename typeof union unless unorm unsafe unsized use using varying virtual volatile wgsl where " +
    "with writeonly yield",
);
const MODULE_WORDS = words("alias diagnostic discard enable fn override requires struct");

const TYPES = /^(?:bool|f32|i32|u32|array|ptr|vec[234][fiu]?|mat[234]x[234]f?)$/;

/** Functions, address spaces and access modes that do no harm. */
const VALUES = words(
  "bitcast all any select arrayLength abs acos acosh asin asinh atan atan2 atanh ceil clamp cos cosh " +
    "countLeadingZeros countOneBits countTrailingZeros cross degrees determinant distance dot dot4I8Packed " +
    "dot4U8Packed exp exp2 extractBits faceForward firstLeadingBit firstTrailingBit floor fma fract frexp insertBits " +
    "inverseSqrt ldexp length log log2 max min mix modf normalize pow quantizeToF16 radians reflect refract " +
    "reverseBits round saturate sign sin sinh smoothstep sqrt step tan tanh transpose trunc pack2x16float " +
    "pack2x16snorm pack2x16unorm pack4x8snorm pack4x8unorm pack4xI8 pack4xI8Clamp pack4xU8 pack4xU8Clamp " +
    "unpack2x16float unpack2x16snorm unpack2x16unorm unpack4x8snorm unpack4x8unorm unpack4xI8 unpack4xU8 " +
    "function private storage uniform read",
);

/** Patterns of the other names of WGSL, and why a text may not use them. */
const REFUSED: readonly (readonly [RegExp, string])[] = [
  [/^\w+Barrier$|^workgroupUniformLoad$/, "barriers would stop the kernel"],
  [/^(?:subgroup|quad)[A-Z_]/, "lanes of a subgroup may be anywhere in the scores"],
  [/^(?:dpdx|dpdy|fwidth)/, "derivatives are for fragment shaders"],
  [/^(?:texture|sampler)/, "textures can't be captured; pass memory as captures"],
  [/^atomic/, "captures are only read"],
  [
    /^(?:f16|vec[234]h|mat[234]x[234]h)$/,
    "f16 needs a directive, which belongs to the kernel; take f32",
  ],
  [/^(?:workgroup|write|read_write|handle|binding_array)$/, "memory comes in by captures"],
  [
    /^(?:chromium_|subgroup_matrix|ray_|acceleration_structure)/,
    "it needs a directive, which belongs to the kernel",
  ],
];

const DIRECTIVES = "directives and imports belong to the kernel";
export const MEMORY =
  "outside of functions memory comes in by captures, and nothing is kept between calls";
/** Words that begin what a text must not have, and why. */
export const FORBIDDEN: Readonly<Record<string, string>> = {
  enable: DIRECTIVES,
  requires: DIRECTIVES,
  diagnostic: DIRECTIVES,
  import: DIRECTIVES,
  package: DIRECTIVES,
  override: "constants of a pipeline belong to the kernel; take a capture",
  discard: "it is for fragment shaders",
};

/** Attributes that declarations of a user may have. */
export const ATTRIBUTES = words("align must_use size");

export const isType = (name: string): boolean => TYPES.test(name);

/** Whether a text may use a name of WGSL. */
export const isPromised = (name: string): boolean => TYPES.test(name) || VALUES.has(name);

/** Why a text may not use a name of WGSL; undefined if there is no such name, or no reason. */
export const whyNot = (name: string): string | undefined =>
  REFUSED.find(([pattern]) => pattern.test(name))?.[1];

/** Whether WGSL declares a name, so that a declaration of it would hide that from other modules. */
export const isPredeclared = (name: string): boolean =>
  isPromised(name) || whyNot(name) !== undefined;

/** Why a word can't be a name; undefined if it can. */
export function whyNoName(word: string): string | undefined {
  if (word === "_" || word.startsWith("__")) return "names can't be `_` or begin with `__`";
  if (RESERVED.has(word)) return "WGSL reserves the word";
  return STATEMENTS.has(word) || MODULE_WORDS.has(word) ? "it is a keyword of WGSL" : undefined;
}
