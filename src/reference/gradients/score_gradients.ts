// The gradients of what the options of attention hold.

import type { ReferenceOptions, ReferenceTensor } from "../options.ts";
import { givenSimilarity } from "../similarity.ts";
import { sizeOf } from "../tensors.ts";

/**
 * Gradients of what the options hold, row-major, each with as many elements as the option has, and
 * 1 for an option that is a number. A tensor that is broadcast gets the sum over all places where
 * it is read. The gradient of what the options don't hold is empty.
 */
export interface ReferenceScoreGradients {
  /** 0 where the bias is -Infinity and hides the key. */
  readonly dBias: Float64Array;
  readonly dAlibiSlopes: Float64Array;
  /** Of the table [buckets, H]. */
  readonly dRelativeBias: Float64Array;
  /** Of the sinks [H]. */
  readonly dSinks: Float64Array;
  readonly dTemperature: Float64Array;
  /** 0 where the bound `maxTemperature` holds. */
  readonly dLogTemperature: Float64Array;
  /** Of the weights of the norm, `"l2"` or `"rms"`. */
  readonly dQWeights: Float64Array;
  readonly dKWeights: Float64Array;
  /** Of the vector, inner bias, inner scale and gain of additive similarity. */
  readonly dVector: Float64Array;
  readonly dInnerBias: Float64Array;
  readonly dInnerScale: Float64Array;
  readonly dGain: Float64Array;
  /** Of the tensors that the score function captures, by their names. */
  readonly dCaptures: Readonly<Record<string, Float64Array>>;
}

type Held = number | ArrayLike<number> | ReferenceTensor | undefined;

const zeros = (held: Held) =>
  new Float64Array(
    held === undefined
      ? 0
      : typeof held === "number"
        ? 1
        : "data" in held
          ? sizeOf(held.shape)
          : held.length,
  );

/** Gradients of 0. */
export function zeroScoreGradients(options: ReferenceOptions): ReferenceScoreGradients {
  const given = givenSimilarity(options);
  const similarity = given === "dot" ? undefined : given;
  const norm = similarity?.kind === "additive" ? undefined : similarity;
  const additive = similarity?.kind === "additive" ? similarity : undefined;
  const captures = Object.entries(options.scoreGradient?.captures ?? {});
  return {
    dBias: zeros(options.bias),
    dAlibiSlopes: zeros(options.alibiSlopes),
    dRelativeBias: zeros(options.relativeBias?.table),
    dSinks: zeros(options.sinks),
    dTemperature: zeros(options.temperature),
    dLogTemperature: zeros(options.logTemperature),
    dQWeights: zeros(norm?.qWeights),
    dKWeights: zeros(norm?.kWeights),
    dVector: zeros(additive?.vector),
    dInnerBias: zeros(additive?.innerBias),
    dInnerScale: zeros(additive?.innerScale),
    dGain: zeros(additive?.gain),
    dCaptures: Object.fromEntries(captures.map(([name, size]) => [name, new Float64Array(size)])),
  };
}
