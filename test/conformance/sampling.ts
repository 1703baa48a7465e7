// Distributions of next tokens: logits and settings with the probabilities that follow.

import { type Tensor, tensor } from "../../src/index.ts";
import { planSampling, type SamplingSettings } from "../../src/models/index.ts";
import { describeWorst, isWithin, type Worst, worstOf } from "./compare.ts";
import { numbersOf, type Stored } from "./golden.ts";

/** A case of `sampling.json`. */
export interface SamplingCase {
  readonly name: string;
  readonly logits: Stored;
  /** Settings that are absent are off. */
  readonly options: {
    readonly history?: readonly number[];
    readonly repetition_penalty?: number;
    readonly temperature?: number;
    readonly top_k?: number;
    readonly top_p?: number;
    readonly min_p?: number;
  };
  /** Zeros where a token was removed. */
  readonly probabilities: Stored;
  readonly kept: readonly number[];
  /** Whether several tokens are alike at a threshold, and any of them may stay. */
  readonly order_dependent: boolean;
}

/** A case in one text. */
export interface PackedSampling {
  readonly fixture: string;
  readonly sampling: SamplingCase;
}

/** Of every probability, absolute. */
const TOLERANCE = 1e-6;

export const isSampling = (packed: object): packed is PackedSampling => "sampling" in packed;

/**
 * Runs a case and returns the probability that is furthest off. Throws for one beyond the
 * tolerance, for tokens that stay and should not or the other way round, and for a choice of one
 * that does not.
 */
export async function runSampling(
  device: GPUDevice,
  { sampling }: PackedSampling,
): Promise<Worst | null> {
  const { logits, options, probabilities, kept, order_dependent: isOrderFree } = sampling;
  const V = logits.shape[logits.shape.length - 1];
  const words = new Uint32Array(Math.ceil(V / 32));
  for (const id of options.history ?? []) words[id >> 5] |= 1 << (id & 31);
  const settings: SamplingSettings = {
    ...(options.repetition_penalty !== undefined && {
      repetitionPenalty: options.repetition_penalty,
    }),
    ...(options.temperature !== undefined && { temperature: options.temperature }),
    ...(options.top_k !== undefined && { topK: options.top_k }),
    ...(options.top_p !== undefined && { topP: options.top_p }),
    ...(options.min_p !== undefined && { minP: options.min_p }),
  };
  const used: Tensor[] = [];
  const keep = <One extends Tensor>(one: One): One => {
    used.push(one);
    return one;
  };
  const poison = { data: new Float32Array(V).fill(Number.NaN) };
  const bound = {
    logits: keep(tensor(device, [1, V], { data: numbersOf(logits) })),
    token: keep(tensor(device, [1], { dtype: "i32", data: [-1] })),
    logprob: keep(tensor(device, [1], { data: [Number.NaN] })),
    probabilities: keep(tensor(device, [1, V], poison)),
    seen: keep(tensor(device, [1, words.length], { dtype: "u32", data: words })),
  };
  const plan = await planSampling(device, { ...bound, ...settings });
  try {
    const encoder = device.createCommandEncoder();
    plan.encode(encoder);
    device.queue.submit([encoder.finish()]);
    const found = await bound.probabilities.read();
    const [token] = await bound.token.read();
    const stay = [...found.keys()].filter((id) => found[id] !== 0);
    const expected = numbersOf(probabilities);
    if (isOrderFree) {
      found.sort();
      expected.sort();
    } else if (stay.join() !== kept.join())
      throw new Error(`tokens that stay are [${stay.join(", ")}], expected [${kept.join(", ")}]`);
    const tensorOf = { dtype: "float32", shape: [V], data: expected };
    const worst = worstOf(0, tensorOf, found, TOLERANCE);
    if (worst && !isWithin(worst)) throw new Error(describeWorst(worst));
    if (stay.length !== kept.length) throw new Error(`${stay.length} stay, not ${kept.length}`);
    if (!stay.includes(token)) throw new Error(`token ${token} was chosen, and had been removed`);
    return worst ?? null;
  } finally {
    plan.destroy();
    for (const one of used) one.destroy();
  }
}
