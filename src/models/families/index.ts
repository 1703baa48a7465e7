// The families of models, by the `model_type` of their configs.

import { FoveaError, show } from "../../errors.ts";
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

const FAMILIES = new Map<string, Family>([
  ["gpt2", gpt2],
  ["bert", bert],
  ["distilbert", distilbert],
  ["vit", vit],
  ["whisper", whisper],
  ...["t5", "mt5"].map((type): readonly [string, Family] => [
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
  return family(config, names);
}
