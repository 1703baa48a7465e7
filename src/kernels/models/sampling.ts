// The kernels that choose tokens, shaders/sampling_*.wesl and top_tokens.wesl: which modules each
// is linked from, their bindings and their uniform.

import finite from "../../../shaders/lib/finite.wesl?raw";
import samplingEdge from "../../../shaders/lib/sampling_edge.wesl?raw";
import samplingKeys from "../../../shaders/lib/sampling_keys.wesl?raw";
import samplingParams from "../../../shaders/lib/sampling_params.wesl?raw";
import joinedParts from "../../../shaders/lib/sampling_parts.wesl?raw";
import samplingSelect from "../../../shaders/lib/sampling_select.wesl?raw";
import samplingToken from "../../../shaders/lib/sampling_token.wesl?raw";
import samplingWeights from "../../../shaders/lib/sampling_weights.wesl?raw";
import threefry from "../../../shaders/lib/threefry.wesl?raw";
import samplingChoose from "../../../shaders/sampling_choose.wesl?raw";
import samplingChunks from "../../../shaders/sampling_chunks.wesl?raw";
import samplingGreedy from "../../../shaders/sampling_greedy.wesl?raw";
import samplingProbabilities from "../../../shaders/sampling_probabilities.wesl?raw";
import said from "../../../shaders/slots/said.wesl?raw";
import samplingConfig from "../../../shaders/slots/sampling_config.wesl?raw";
import storedLogits from "../../../shaders/slots/stored_logits.wesl?raw";
import tokenProbabilities from "../../../shaders/slots/token_probabilities.wesl?raw";
import wasSaid from "../../../shaders/slots/was_said.wesl?raw";
import topTokens from "../../../shaders/top_tokens.wesl?raw";
import saidBits from "../../../shaders/variants/said_bits.wesl?raw";
import storedLogitsKept from "../../../shaders/variants/stored_logits_kept.wesl?raw";
import tokenProbabilitiesChosen from "../../../shaders/variants/token_probabilities_chosen.wesl?raw";
import wasSaidBits from "../../../shaders/variants/was_said_bits.wesl?raw";
import { link, type ModuleMap } from "../../shader/link.ts";
import { constantsModule } from "../../shader/modules.ts";
import type { Binding, KernelSource } from "../../types.ts";
import type { Access } from "../access.ts";
import { KernelCache } from "../kernel_cache.ts";
import { readRows, writtenRows } from "../rows.ts";
import { UniformStruct } from "../uniform.ts";

const ROOTS = {
  sampling_chunks: samplingChunks,
  sampling_choose: samplingChoose,
  sampling_greedy: samplingGreedy,
  sampling_probabilities: samplingProbabilities,
  top_tokens: topTokens,
} as const;
export type SamplingKernel = keyof typeof ROOTS;

/** What the text of a kernel depends on. A kernel reads those that it has a use for. */
export interface SamplingSpecialisation {
  readonly kernel: SamplingKernel;
  /** How logits are read. */
  readonly logits?: Access;
  /** How probabilities are written. */
  readonly probabilities?: Access;
  /** Lanes of a workgroup that goes through an entry. Default 256 */
  readonly lanes?: number;
  /** Whether tokens that were said get a penalty, and whether logits are left for later kernels. */
  readonly penalised?: boolean;
  readonly left?: boolean;
  /** Whether tokens are marked as said. */
  readonly seen?: boolean;
  /** Whether the token that was chosen has the whole probability. */
  readonly chosen?: boolean;
}

/** Lanes of a workgroup of the probabilities, one a vec4. */
export const PROBABILITY_LANES = 64;
/** The most chunks of an entry. */
export const MOST_CHUNKS = 256;
/** The most tokens of a list of the largest logits. */
export const MOST_TOP_TOKENS = 64;
/** The most logits of an entry, and one: their weights are added in whole numbers. */
export const VOCABULARY_END = 2 ** 19;

/** Names of the bindings, by their numbers; those that the kernel writes end in "!". */
const bound = ({ kernel, penalised, left, seen, chosen }: SamplingSpecialisation) => {
  const said = { 7: "seen!" };
  switch (kernel) {
    case "sampling_chunks":
      return {
        1: "logits",
        ...(left && { 2: "left_logits!" }),
        3: "parts!",
        ...(penalised && { 7: "seen" }),
      };
    case "sampling_greedy":
      return {
        1: "logits",
        3: "parts",
        4: "entries!",
        5: "tokens!",
        6: "logprobs!",
        ...(seen && said),
      };
    case "sampling_choose":
      return {
        1: "logits",
        2: "left_logits",
        3: "parts",
        4: "entries!",
        5: "tokens!",
        6: "logprobs!",
        ...(seen && said),
        8: "steps",
      };
    case "sampling_probabilities":
      return { ...(!chosen && { 2: "left_logits" }), 4: "entries", 9: "probabilities!" };
    default:
      return { 1: "logits", 2: "left_logits", 3: "parts", 5: "tokens!", 6: "logprobs!" };
  }
};

/** The modules of a kernel, its root and its bindings. */
export function samplingParts(spec: SamplingSpecialisation): {
  readonly root: string;
  readonly modules: ModuleMap;
  readonly bindings: readonly Binding[];
} {
  const {
    kernel,
    lanes = 256,
    penalised = false,
    left = false,
    seen = false,
    chosen = false,
  } = spec;
  const variant = (name: string, text: string) => ({ name: `variants/${name}.wesl`, text });
  const named = Object.entries(bound(spec)) as [string, string][];
  return {
    root: `package::${kernel}`,
    modules: {
      [`package::${kernel}`]: ROOTS[kernel],
      "package::lib::finite": finite,
      "package::lib::params": samplingParams,
      "package::lib::sampling_edge": samplingEdge,
      "package::lib::sampling_keys": samplingKeys,
      "package::lib::sampling_parts": joinedParts,
      "package::lib::sampling_select": samplingSelect,
      "package::lib::sampling_token": samplingToken,
      "package::lib::sampling_weights": samplingWeights,
      "package::lib::threefry": threefry,
      ...constantsModule("config", samplingConfig, {
        PENALISED: penalised,
        LANES: lanes,
        RANKED: kernel === "top_tokens",
        SEEN: seen,
      }),
      "package::slots::logits": readRows("logits", 1, spec.logits),
      "package::slots::probabilities": writtenRows("probabilities", 9, spec.probabilities),
      "package::slots::said": seen ? variant("said_bits", saidBits) : said,
      "package::slots::stored_logits": left
        ? variant("stored_logits_kept", storedLogitsKept)
        : storedLogits,
      "package::slots::token_probabilities": chosen
        ? variant("token_probabilities_chosen", tokenProbabilitiesChosen)
        : tokenProbabilities,
      "package::slots::was_said": penalised ? variant("was_said_bits", wasSaidBits) : wasSaid,
    },
    bindings: [
      { binding: 0, name: "params", type: "uniform" },
      ...named.map(([binding, name]): Binding => {
        const type = name.endsWith("!") ? "storage" : "read-only-storage";
        return { binding: Number(binding), name: name.replace("!", ""), type };
      }),
    ],
  };
}

const kernels = new KernelCache<SamplingSpecialisation>();

export function samplingKernel(spec: SamplingSpecialisation): KernelSource {
  return kernels.get(spec, () => {
    const { root, modules, bindings } = samplingParts(spec);
    return { label: spec.kernel, ...link(root, modules), bindings };
  });
}

export const SAMPLING_PARAMS = new UniformStruct(samplingParams, "SamplingParams");
