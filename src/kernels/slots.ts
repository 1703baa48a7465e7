// The slots of the attention kernels for a problem: what their modules depend on, their constants
// and their bindings. The modules are in slot_modules.ts.

import type { GuestPart } from "../shader/guests.ts";
import type { Binding } from "../types.ts";
import { type Access, isBf16 } from "./access.ts";
import type { KvAccess } from "./kv_access.ts";

/** Types that a function of a user may capture. */
export type CaptureType = "f32" | "i32" | "u32";

/** What a user's function computes. */
export type FunctionKind = "score" | "mask" | "probability";

/** What the text depends on of a user's function. The values that it captures are bound. */
export interface FunctionText {
  readonly label: string;
  /** The texts that the function is made of; the first one has its entry. */
  readonly parts: readonly GuestPart[];
  readonly captures: readonly {
    readonly name: string;
    readonly type: CaptureType;
    readonly array: boolean;
  }[];
  /** Whether it may return HIDDEN. */
  readonly hides: boolean;
  /** Modules of Fovea whose functions it calls. */
  readonly uses: readonly string[];
}

/** What the module of a similarity depends on. */
export type SimilarityChoice =
  | {
      readonly kind: "normalized";
      readonly rms: boolean;
      readonly qWeights: boolean;
      readonly kWeights: boolean;
    }
  | {
      readonly kind: "additive";
      readonly innerBias: boolean;
      readonly unitVector: boolean;
      /**
       * Set for kernels that hold rows in registers: another kernel has computed the exponentials
       * of the keys.
       */
      readonly storedKeys?: true;
    };

/** What the slots of a kernel depend on. Lengths and strides are not part of it. */
export interface SlotChoice {
  readonly q: Access;
  readonly k: Access;
  readonly v: Access;
  readonly o: Access;
  /**
   * How keys and values in a cache are reached. The cache brings its own modules, also for
   * `slots/sequence`.
   */
  readonly cache?: KvAccess;
  /**
   * Lengths and positions of entries: by default all entries have the same; "batch" means that each
   * has its own, "packed" that entries lie one after the other.
   */
  readonly sequence?: "batch" | "packed";
  /** Whether there are small tables: of lengths, slopes, sinks or distances. */
  readonly tables?: boolean;
  /** Results that are written beside the output. */
  readonly lse?: boolean;
  readonly rowMax?: boolean;
  /** The similarity that stands in for the dot product, and its options. */
  readonly similarity?: SimilarityChoice;
  /** Scores have a factor for each head, which memory holds as it is, or as its logarithm. */
  readonly temperature?: "plain" | "log";
  /** What is done to scores and probabilities. */
  readonly softcap?: boolean;
  readonly bias?: boolean;
  readonly relativeBias?: boolean;
  readonly alibi?: boolean;
  readonly sinks?: boolean;
  /** Probabilities are dropped by a seed, or by a seed and the number of the run in memory. */
  readonly dropout?: "seeded" | "stepped";
  /** Whether the scale is so large that plain scores might leave f32. */
  readonly largeScale?: boolean;
  /**
   * Whether there are so many keys that sums would lose digits; they are then added up in totals.
   */
  readonly longRows?: boolean;
  /** How a boolean mask is stored, if there is one. */
  readonly maskTensor?: "bytes" | "bits";
  /** The functions of users. */
  readonly score?: FunctionText;
  readonly mask?: FunctionText;
  /** A user's function of probabilities, which only the weights kernel has. */
  readonly probability?: FunctionText;
  /** Whether a block mask says which blocks of keys are not visited. */
  readonly blocks?: boolean;
}

/** Plain attention of dense tensors. */
export const PLAIN: SlotChoice = { q: "dense", k: "dense", v: "dense", o: "dense" };

/** The constants of `slots/config` that say what happens to scores and probabilities. */
export function slotConstants(slots: SlotChoice): Readonly<Record<string, boolean | number>> {
  const { similarity } = slots;
  return {
    ...slots.cache?.constants,
    ...(similarity?.kind === "normalized" && {
      NORMALIZED: true,
      RMS: similarity.rms,
      Q_WEIGHTS: similarity.qWeights,
      K_WEIGHTS: similarity.kWeights,
    }),
    ...(similarity?.kind === "additive" && {
      INNER_BIAS: similarity.innerBias,
      UNIT_VECTOR: similarity.unitVector,
    }),
    TEMPERATURE: slots.temperature !== undefined,
    LOG_TEMPERATURE: slots.temperature === "log",
    SOFTCAP: slots.softcap ?? false,
    SCORE_FUNCTION: slots.score !== undefined,
    SCORE_HIDES: slots.score?.hides ?? false,
    MASK_FUNCTION: slots.mask !== undefined,
    PROBABILITY_FUNCTION: slots.probability !== undefined,
    BIAS: slots.bias ?? false,
    RELATIVE_BIAS: slots.relativeBias ?? false,
    ALIBI: slots.alibi ?? false,
    MASK_TENSOR: slots.maskTensor !== undefined,
    SINKS: slots.sinks ?? false,
    DROPOUT: slots.dropout !== undefined,
    ROW_MAX: slots.rowMax ?? false,
    LARGE_SCALE: slots.largeScale ?? false,
    Q_BF16: isBf16(slots.q),
    K_BF16: isBf16(slots.k),
    V_BF16: isBf16(slots.v),
    O_BF16: isBf16(slots.o),
  };
}

/** The bindings of a kernel that reads q, k and v and writes o. */
export function slotBindings(slots: SlotChoice): Binding[] {
  const read = (binding: number, name: string, used: unknown): Binding[] =>
    used ? [{ binding, name, type: "read-only-storage" }] : [];
  const written = (binding: number, name: string, used: unknown): Binding[] =>
    used ? [{ binding, name, type: "storage" }] : [];
  return [
    { binding: 0, name: "params", type: "uniform" },
    ...read(1, "q", true),
    ...read(2, "k", true),
    ...read(3, "v", true),
    ...read(4, "tables", slots.tables),
    ...read(5, "bias", slots.bias),
    ...written(6, "o", true),
    ...written(7, "lse", slots.lse),
    ...read(9, "mask_tensor", slots.maskTensor),
    ...read(10, "blocks", slots.blocks),
    ...written(11, "row_max", slots.rowMax),
    ...read(12, "kv_state", slots.cache),
    ...captureBindings("score", slots.score),
    ...captureBindings("mask", slots.mask),
    ...captureBindings("probability", slots.probability),
  ];
}

/** The first binding of each function's captures; there is room for 64. */
export const CAPTURES_AT = { score: 16, mask: 80, probability: 144 } as const;

/** The bindings of what a function captures, in the order of its captures. */
export function captureBindings(kind: FunctionKind, text: FunctionText | undefined): Binding[] {
  return (text?.captures ?? []).map(({ name, array }, index) => ({
    binding: CAPTURES_AT[kind] + index,
    name: `captures.${name}`,
    type: array ? "read-only-storage" : "uniform",
  }));
}

/** What kernels call of a score function's derivatives, under names that no text may declare. */
export const CALLED = { slope: "score_gradient", captured: "captured_gradient" } as const;
