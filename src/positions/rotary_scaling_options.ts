// The ways to change the frequencies of rotary embedding for longer texts than a model was trained
// with, as a caller gives them.

import { check, show } from "../errors.ts";
import type { Numbers, OptionNames } from "../given.ts";
import { checkNames } from "../options.ts";

/**
 * How the frequencies that a model was trained with are changed for longer texts. L is the number
 * of positions that it was trained for, theta_k the frequency of pair k and 2 pi / theta_k its
 * wavelength.
 */
export type RotaryScaling =
  | {
      /** theta_k / factor. Source: Position Interpolation (arXiv 2306.15595). */
      readonly type: "linear";
      readonly factor: number;
    }
  | {
      /**
       * The base becomes base * factor^(R / (R - 2)): the slowest pair turns `factor` times slower,
       * the fastest as before.
       */
      readonly type: "ntk";
      readonly factor: number;
    }
  | {
      /**
       * "Dynamic" NTK: `"ntk"` with the factor that a text of this length needs, which is
       * factor * length / L - (factor - 1), and no change up to L. Source: Hugging Face's rope_type
       * "dynamic".
       */
      readonly type: "dynamic";
      readonly factor: number;
      /** L. */
      readonly originalMaxPositions: number;
      /**
       * Tokens that the text has, or will have at most. The frequencies depend on it, so rows that
       * were rotated for another length, as in a cache, don't fit these.
       */
      readonly length: number;
    }
  | {
      /**
       * Pairs that turn more than `betaFast` times in L positions keep their frequency, those that
       * turn less than `betaSlow` times have it divided by `factor`, and a ramp over k joins the
       * two. cos and sin are multiplied by the attention factor, by default 0.1 ln(factor) + 1.
       * Source: YaRN (arXiv 2309.00071), section 3.
       */
      readonly type: "yarn";
      readonly factor: number;
      /** L. */
      readonly originalMaxPositions: number;
      /** Turns in L positions above which a pair keeps its frequency. Default 32. */
      readonly betaFast?: number;
      /** Turns in L positions below which a frequency is divided by `factor`. Default 1. */
      readonly betaSlow?: number;
      /** Whether the ends of the ramp are whole pairs. Default true; gpt-oss has false. */
      readonly truncate?: boolean;
      /**
       * As in DeepSeek's models, the attention factor is (0.1 mscale ln(factor) + 1) / (0.1
       * mscaleAllDim ln(factor) + 1). Give both or neither.
       */
      readonly mscale?: number;
      readonly mscaleAllDim?: number;
    }
  | {
      /**
       * Wavelengths above L / lowFreqFactor have their frequency divided by `factor`, those below L
       * / highFreqFactor keep it, and between them the two are mixed. Source: Llama 3.1 (arXiv
       * 2407.21783), and its code.
       */
      readonly type: "llama3";
      readonly factor: number;
      /** L. */
      readonly originalMaxPositions: number;
      /** Default 1. */
      readonly lowFreqFactor?: number;
      /** Default 4. */
      readonly highFreqFactor?: number;
    }
  | {
      /**
       * LongRoPE: each frequency is divided by a factor that comes with the model, one list of them
       * for texts up to L and one for longer texts. cos and sin are multiplied by the attention
       * factor, by default sqrt(1 + ln(factor) / ln(L)). Source: LongRoPE (arXiv 2402.13753), and
       * Hugging Face's rope_type "longrope".
       */
      readonly type: "longrope";
      /**
       * Positions that the model is made for, divided by L: max_position_embeddings /
       * original_max_position_embeddings.
       */
      readonly factor: number;
      /** L. */
      readonly originalMaxPositions: number;
      /** R / 2 divisors for texts up to L. */
      readonly shortFactor: Numbers;
      /** R / 2 divisors for longer texts. */
      readonly longFactor: Numbers;
      /** Tokens that the text has, or will have at most, as for `"dynamic"`. */
      readonly length: number;
    };

/** The names of the members of each type. */
const LINEAR = { type: "string", factor: "number" } as const;
const LLAMA3 = {
  ...LINEAR,
  originalMaxPositions: "number",
  lowFreqFactor: "number",
  highFreqFactor: "number",
} as const;
const SCALING: {
  readonly [Type in RotaryScaling["type"]]: OptionNames<Extract<RotaryScaling, { type: Type }>>;
} = {
  linear: LINEAR,
  ntk: LINEAR,
  dynamic: { ...LINEAR, originalMaxPositions: "number", length: "number" },
  yarn: {
    ...LINEAR,
    originalMaxPositions: "number",
    betaFast: "number",
    betaSlow: "number",
    truncate: "boolean",
    mscale: "number",
    mscaleAllDim: "number",
  },
  llama3: LLAMA3,
  longrope: {
    ...LINEAR,
    originalMaxPositions: "number",
    shortFactor: "any",
    longFactor: "any",
    length: "number",
  },
};

/** Values of rope_type in models' configurations, and the types that they are here. */
const FOREIGN: Readonly<Record<string, string>> = {
  default: 'leave scaling out: "default" changes nothing',
  su: 'it is called "longrope" here',
  deepseek_yarn: 'it is called "yarn" here, with mscale and mscaleAllDim',
  mrope: "M-RoPE is no scaling; give sections",
  "": 'rope_type is called "type" here',
};

/**
 * Throws FoveaError("argument") for an unknown type of scaling, or for members that the type does
 * not have.
 */
export function checkScaling(label: string, scaling: RotaryScaling): void {
  const type = scaling?.type;
  check(typeof type === "string" && Object.hasOwn(SCALING, type), "argument", () =>
    unknownType(label, scaling),
  );
  checkNames(`${label}: scaling`, scaling, SCALING[type]);
}

function unknownType(label: string, scaling: unknown): string {
  const { type, rope_type } = (scaling ?? {}) as { type?: unknown; rope_type?: unknown };
  const word = type === undefined && rope_type !== undefined ? "" : type;
  const advice =
    typeof word === "string" && Object.hasOwn(FOREIGN, word) ? FOREIGN[word] : undefined;
  const names = Object.keys(SCALING).map((name) => `"${name}"`);
  const all = `${names.slice(0, -1).join(", ")} or ${names.at(-1)}`;
  return `${label}: scaling.type must be ${all}, got ${show(type)}; ${advice ?? "others can be given as frequencies and attentionFactor"}.`;
}
