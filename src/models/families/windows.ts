// Which layers of a decoder see a window of keys, as configs say it.

import type { Config } from "../config.ts";

/**
 * Keys that queries see in layers that slide. Null says that they see all, and so does nothing if
 * the family has no default.
 */
export function windowIn(config: Config, given?: number): number | undefined {
  const name = "sliding_window";
  return config.isNull(name) ? undefined : config.optional(name, given);
}

/** Which layers slide: those that `layer_types` calls so, or by a rule of the family. */
export function slidingIn(
  config: Config,
  layers: number,
  rule: (layer: number) => boolean,
): (layer: number) => boolean {
  config.ignore("layer_types");
  if (!config.has("layer_types")) return rule;
  const types = config.texts("layer_types");
  if (types.length !== layers) config.only("layer_types", `${layers} of them`);
  const known = ["sliding_attention", "full_attention"];
  if (!types.every((type) => known.includes(type))) config.only("layer_types", known.join(" or "));
  return (layer) => types[layer] === "sliding_attention";
}
