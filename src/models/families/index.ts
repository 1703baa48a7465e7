// The families of models, by the `model_type` of their configs.

import { check, FoveaError, show } from "../../errors.ts";
import type { Config } from "../config.ts";
import type { Definition } from "../definition.ts";
import { bert, distilbert } from "./bert.ts";
import { gpt2 } from "./gpt2.ts";
import { LLAMA_TYPES, llama } from "./llama.ts";
import { t5 } from "./t5.ts";
import { vit } from "./vit.ts";
import { whisper } from "./whisper.ts";

/** Makes a definition from a config and the names in a checkpoint's files. */
type Family = (config: Config, names: ReadonlySet<string>) => Definition;

const T5_TYPES = ["t5", "mt5"];

/** Types of models with an encoder and a decoder. */
const PAIRS = ["whisper", ...T5_TYPES];

const FAMILIES = new Map<string, Family>([
  ["gpt2", gpt2],
  ["bert", bert],
  ["distilbert", distilbert],
  ["vit", vit],
  ["whisper", whisper],
  ...T5_TYPES.map((type): readonly [string, Family] => [
    type,
    (config, names) => t5(type, config, names),
  ]),
  ...LLAMA_TYPES.map(
    (type) =>
      [type, (config: Config, names: ReadonlySet<string>) => llama(type, config, names)] as const,
  ),
]);

/** The types of models that there are. */
export const MODEL_TYPES: readonly string[] = [...FAMILIES.keys()];

/** The model that a config describes. Throws FoveaError("file") for a family that is not known. */
export function familyOf(config: Config, names: ReadonlySet<string>): Definition {
  const type = config.text("model_type");
  const family = FAMILIES.get(type);
  if (!family) {
    throw new FoveaError(
      "file",
      `config.json: model_type is ${show(type)}; families are ${MODEL_TYPES.join(", ")}.`,
    );
  }
  checkCommon(config, type);
  return family(config, names);
}

/** Families whose queries see no later keys anyway. */
const isCausal = (type: string) => type === "gpt2" || LLAMA_TYPES.includes(type);

/** Options that configs of any family may have, with the one value that is supported. */
function checkCommon(config: Config, type: string): void {
  config.only("is_encoder_decoder", PAIRS.includes(type));
  config.only("add_cross_attention", false);
  config.only("cross_attention_hidden_size", null);
  config.only("tie_encoder_decoder", false);
  config.only("use_bidirectional_attention", false);
  if (isCausal(type)) config.ignore("is_decoder");
  else config.only("is_decoder", false);
  check(
    !config.has("quantization_config"),
    "file",
    () =>
      "config.json: quantization_config says that the weights are quantised, which are not read; save the model dequantised, for example in bfloat16.",
  );
  config.ignore("quantization_config");
  config.empty("pruned_heads");
  config.empty("per_layer_config");
}
