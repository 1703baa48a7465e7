// Rotary embedding as configs of Hugging Face's transformers describe it.

import type { RotaryOptions } from "../../positions/rotary_options.ts";
import type { RotaryScaling } from "../../positions/rotary_scaling_options.ts";
import type { Config } from "../config.ts";
import type { CachedRows } from "../definition.ts";

/** The rotary embedding of a layer. */
export interface Rope {
  /** Options for texts of so many tokens, on which some scalings depend. */
  readonly of: (tokens: number) => Omit<RotaryOptions, "sections">;
  /** What that means to a cache of rows that were turned before. */
  readonly limits: Pick<CachedRows, "changesPast" | "most">;
}

/** What of a rotary embedding stands elsewhere in a config. */
export interface RopeSizes {
  readonly headDim: number;
  readonly base: number;
  /** The share of the channels that turn. Default 1. */
  readonly share?: number;
  readonly mostPositions: number;
  /** The positions that the model was trained for first, if it is told outside of the scaling. */
  readonly originalPositions?: number | undefined;
}

/** Reads a `rope_scaling` (or `rope_parameters`) object; undefined means no scaling. */
export function ropeOf(scaling: Config | undefined, sizes: RopeSizes): Rope {
  const { headDim, share = 1 } = sizes;
  const base = scaling?.has("rope_theta") ? scaling.number("rope_theta") : sizes.base;
  scaling?.ignore("rope_theta");
  const part = scaling?.has("partial_rotary_factor")
    ? scaling.number("partial_rotary_factor")
    : share;
  const rotaryDim = 2 * Math.floor((headDim * part) / 2);
  const scaled = scaling && scalingOf(scaling, sizes);
  scaling?.end();
  return {
    of: (tokens) => ({ base, rotaryDim, ...scaled?.of(tokens) }),
    limits: scaled?.limits ?? {},
  };
}

const TYPES = ["default", "linear", "dynamic", "llama3", "yarn", "longrope", "su"] as const;

function scalingOf(config: Config, { mostPositions, originalPositions }: RopeSizes): Rope {
  const type = config.oneOf(config.has("rope_type") ? "rope_type" : "type", TYPES, "default");
  config.ignore("rope_type", "type");
  const attention = config.has("attention_factor")
    ? { attentionFactor: config.number("attention_factor") }
    : {};
  const L = () =>
    config.whole("original_max_position_embeddings", originalPositions ?? mostPositions);
  const always = (scaling: RotaryScaling): Rope => ({
    of: () => ({ scaling, ...attention }),
    limits: {},
  });
  switch (type) {
    case "default":
      return { of: () => ({}), limits: {} };
    case "linear":
      return always({ type, factor: config.number("factor") });
    case "dynamic": {
      const factor = config.number("factor");
      const originalMaxPositions = L();
      return {
        of: (tokens) => ({
          scaling: { type, factor, originalMaxPositions, length: tokens },
          ...attention,
        }),
        // Each token more turns all rows anew.
        limits: { most: originalMaxPositions },
      };
    }
    case "llama3":
      return always({
        type,
        factor: config.number("factor"),
        originalMaxPositions: L(),
        lowFreqFactor: config.number("low_freq_factor"),
        highFreqFactor: config.number("high_freq_factor"),
      });
    case "yarn":
      return always({
        type,
        factor: config.number("factor"),
        originalMaxPositions: L(),
        betaFast: config.number("beta_fast", 32),
        betaSlow: config.number("beta_slow", 1),
        truncate: config.flag("truncate", true),
        ...(config.has("mscale") && {
          mscale: config.number("mscale"),
          mscaleAllDim: config.number("mscale_all_dim", 0),
        }),
      });
    case "longrope":
    case "su": {
      // What the config tells beside the scaling decides, also of the factor.
      config.ignore("factor", "original_max_position_embeddings");
      const originalMaxPositions = originalPositions ?? L();
      const shortFactor = config.numbers("short_factor");
      const longFactor = config.numbers("long_factor");
      const ratio = mostPositions / originalMaxPositions;
      const factor = originalPositions === undefined ? config.number("factor", ratio) : ratio;
      return {
        of: (tokens) => ({
          scaling: {
            type: "longrope",
            factor,
            originalMaxPositions,
            shortFactor,
            longFactor,
            length: tokens,
          },
          ...attention,
        }),
        limits: { changesPast: originalMaxPositions },
      };
    }
  }
}
