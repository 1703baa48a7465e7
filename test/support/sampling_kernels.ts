// The kernels that choose tokens, for the tests that look at every kernel.

import { type SamplingSpecialisation, samplingParts } from "../../src/kernels/models/sampling.ts";
import type { KernelVariant } from "./kernels.ts";

/** Every kernel, and every variant of its slots once. */
export const SAMPLING_SPECS: Readonly<Record<string, SamplingSpecialisation>> = {
  "of chunks": { kernel: "sampling_chunks", logits: "dense" },
  "of chunks with a penalty": {
    kernel: "sampling_chunks",
    logits: "strided",
    lanes: 16,
    penalised: true,
    left: true,
  },
  greedy: { kernel: "sampling_greedy", logits: "dense" },
  "that chooses": { kernel: "sampling_choose", logits: "dense", seen: true },
  "that chooses with few lanes": { kernel: "sampling_choose", logits: "strided", lanes: 16 },
  "of probabilities": { kernel: "sampling_probabilities", probabilities: "dense" },
  "of probabilities of one": {
    kernel: "sampling_probabilities",
    probabilities: "strided",
    chosen: true,
  },
  "of the largest logits": { kernel: "top_tokens", logits: "dense" },
};

export const SAMPLING_VARIANTS: readonly KernelVariant[] = Object.entries(SAMPLING_SPECS).map(
  ([name, spec]) => ({ name: `sampling ${name}`, ...samplingParts(spec) }),
);
