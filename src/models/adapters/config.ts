// Reading of adapter_config.json, as PEFT's LoraConfig writes it.

import { check, FoveaError, show } from "../../errors.ts";
import { Config } from "../config.ts";

const FILE = "adapter_config.json";

/** Options that change nothing of what a saved adapter adds. */
const IGNORED = [
  "auto_mapping",
  "base_model_name_or_path",
  "fan_in_fan_out", // PEFT, too, goes by how the layer stores its weight
  "inference_mode",
  "lora_dropout",
  "megatron_core",
  "peft_version",
  "qalora_group_size",
  "revision",
  "task_type",
];

/** Options that would add something else; PEFT writes them all, off unless they are used. */
const OFF = [
  "alora_invocation_tokens",
  "arrow_config",
  "corda_config",
  "ensure_weight_tying",
  "eva_config",
  "layer_replication",
  "loftq_config",
  "lora_bias",
  "lora_ga_config",
  "megatron_config",
  "modules_to_save",
  "runtime_config",
  "target_parameters",
  "trainable_token_indices",
  "use_bdlora",
  "use_dora",
  "use_qalora",
];

/** Ways to begin that leave the weights beside an adapter as they are. */
const BEGINNINGS = [true, false, "gaussian", "eva", "orthogonal"];

/** What the config of an adapter says. */
export interface AdapterConfig {
  /** Whether a module has an adapter, by its names; undefined if the files alone tell. */
  readonly isTarget: ((names: readonly string[], isHead: boolean) => boolean) | undefined;
  /** Rows of a module's `lora_A`. */
  rankOf(name: string): number;
  /** What the product of a module's B and A is multiplied by. */
  scaleOf(name: string): number;
}

/** Whether a value says that an option is off. */
const isOff = (value: unknown): boolean =>
  value === undefined ||
  value === null ||
  value === false ||
  value === "" ||
  (typeof value === "object" && Object.keys(value).length === 0);

/**
 * Reads the config of an adapter. Throws FoveaError("file") for what is no LoRA, and for options
 * that are malformed, not known, or not supported.
 */
export function adapterConfig(given: unknown): AdapterConfig {
  check(
    typeof given === "object" && given !== null && !Array.isArray(given),
    "file",
    () => `${FILE}: a config is an object, got ${show(given)}.`,
  );
  const options = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== null));
  const config = new Config(options, FILE);
  config.oneOf("peft_type", ["LORA"]);
  config.only("bias", "none");
  config.ignore(...IGNORED, ...OFF, "init_lora_weights", "fan_in_fan_out");
  for (const name of OFF) {
    check(
      isOff(options[name]),
      "file",
      () => `${FILE}: ${name} is ${show(options[name])}, which is not supported.`,
    );
  }
  const { init_lora_weights: begun = true } = options;
  check(
    BEGINNINGS.includes(begun as string | boolean),
    "file",
    () =>
      `${FILE}: init_lora_weights is ${show(begun)}, which changes the weights beside the adapter, too; save it converted to a plain LoRA.`,
  );
  const rank = config.whole("r", 8);
  const alpha = config.number("lora_alpha", 8);
  const rooted = config.flag("use_rslora", false);
  const ranks = patterns(config, "rank_pattern");
  const alphas = patterns(config, "alpha_pattern");
  const isTarget = targets(config, options);
  config.end();
  const rankOf = (name: string) => {
    const own = ranks(name) ?? rank;
    if (Number.isSafeInteger(own) && own > 0) return own;
    throw new FoveaError("file", `${FILE}: rank_pattern: a rank is a whole number, got ${own}.`);
  };
  return {
    isTarget,
    rankOf,
    scaleOf(name) {
      const own = rankOf(name);
      return (alphas(name) ?? alpha) / (rooted ? Math.sqrt(own) : own);
    },
  };
}

/** A regular expression of a config, which has to match all of a name. */
function expression(option: string, source: string, before = ""): RegExp {
  try {
    return new RegExp(`^${before}(?:${source})$`, "u");
  } catch (cause) {
    throw new FoveaError(
      "file",
      `${FILE}: ${option}: ${show(source)} is no regular expression that JavaScript knows.`,
      { cause },
    );
  }
}

/** Numbers by regular expressions for the ends of names: the first that fits counts. */
function patterns(config: Config, option: string): (name: string) => number | undefined {
  const inner = config.inner(option);
  const all = (inner?.names ?? []).map((source) => {
    return [expression(option, source, "(?:.*\\.)?"), inner?.number(source)] as const;
  });
  return (name) => all.find(([pattern]) => pattern.test(name))?.[1];
}

type Matcher = (name: string, isHead: boolean) => boolean;

/** What `target_modules` and `exclude_modules` say: the ends of names, or a regular expression. */
function matcher(
  config: Config,
  options: Readonly<Record<string, unknown>>,
  option: string,
): Matcher | undefined {
  if (isOff(options[option])) {
    config.ignore(option);
    return undefined;
  }
  if (typeof options[option] !== "string") {
    const ends = config.texts(option);
    return (name) => ends.some((end) => name === end || name.endsWith(`.${end}`));
  }
  const text = config.text(option);
  if (text === "all-linear") return (_, isHead) => !isHead;
  const pattern = expression(option, text);
  return (name) => pattern.test(name);
}

/** Which modules have an adapter. */
function targets(
  config: Config,
  options: Readonly<Record<string, unknown>>,
): AdapterConfig["isTarget"] {
  const chosen = matcher(config, options, "target_modules");
  const excluded = matcher(config, options, "exclude_modules");
  const layers = new Set(config.wholes("layers_to_transform"));
  const isEvery = isOff(options.layers_to_transform);
  config.ignore("layers_to_transform", "layers_pattern");
  check(
    isOff(options.layers_pattern),
    "file",
    () => `${FILE}: layers_pattern is ${show(options.layers_pattern)}, which is not supported.`,
  );
  if (!chosen) return undefined;
  const isOfLayer = (name: string) => {
    const index = /\.(\d+)\./.exec(name)?.[1];
    return isEvery || (index !== undefined && layers.has(Number(index)));
  };
  return (names, isHead) =>
    names.some((name) => chosen(name, isHead) && isOfLayer(name)) &&
    !names.some((name) => excluded?.(name, isHead));
}
