// Fixtures of models with an encoder and a decoder.

import { generate, type Model, type ModelInputs } from "../../src/models/index.ts";
import {
  arraysOf,
  type Comparison,
  type Ids,
  isObject,
  isStored,
  queriesOfMask,
  rowsOfMask,
  type Stored,
  type StoredAttention,
} from "./golden.ts";

interface Entry {
  readonly new_tokens: readonly number[];
  readonly logits?: Stored;
}

type Members = Readonly<Record<string, unknown>>;

/** Whether golden results are those of such a model. */
export const isPair = (golden: unknown): golden is Members =>
  memberOf(golden, "decoder_input_ids") !== undefined;

/** The first member of this name, however deep it lies. */
function memberOf(golden: unknown, name: string): unknown {
  if (!isObject(golden) || isStored(golden)) return undefined;
  if (golden[name] !== undefined) return golden[name];
  for (const inner of Object.values(golden)) {
    const found = memberOf(inner, name);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** What the encoder is given. */
function sourceOf(golden: Members, comparison: Comparison): ModelInputs {
  const features = memberOf(golden, "input_features");
  if (isStored(features))
    return { features: { shape: features.shape, data: comparison.input(features) } };
  const mask = memberOf(golden, "attention_mask") as Ids | undefined;
  return { ids: memberOf(golden, "input_ids") as Ids, ...(mask && { mask }) };
}

/** Compares all that a run gives, and what it says greedily. */
export async function comparePair(
  model: Model,
  golden: Members,
  comparison: Comparison,
): Promise<void> {
  const source = sourceOf(golden, comparison);
  const decoderIds = memberOf(golden, "decoder_input_ids") as Ids;
  const decoderMask = memberOf(golden, "decoder_attention_mask") as Ids | undefined;
  const inputs = { ...source, decoderIds, ...(decoderMask && { decoderMask }) };
  const watched = [...attentionsOf(golden)];
  const layersOf = (kind: Kind) =>
    watched.filter((one) => one.kind === kind).map(({ stored: { layer } }) => layer);
  const found = await model.run(inputs, {
    hidden: true,
    attention: layersOf("attention"),
    crossAttention: layersOf("cross_attention"),
    encoderAttention: layersOf("encoder_attention"),
  });
  for (const { kind, stored } of watched) {
    const name = `${kind}.${stored.layer}`;
    const mask = kind === "encoder_attention" ? source.mask : decoderMask;
    const { shape, data } = found[name];
    comparison.add(name, data, stored.probs, queriesOfMask(mask, shape));
  }
  for (const [path, stored] of arraysOf(golden)) {
    const name = resultOf(path);
    if (name === undefined || !found[name]) continue;
    const mask = name.startsWith("encoder_") ? source.mask : decoderMask;
    const { shape, data } = found[name];
    comparison.add(name, data, stored, rowsOfMask(mask, shape[2]));
  }
  const greedy = memberOf(golden, "greedy");
  if (greedy) await compareEntries(model, source, greedy as Members, comparison);
}

type Kind = "attention" | "cross_attention" | "encoder_attention";

/** Probabilities of layers, and of which attention they are. */
function* attentionsOf(
  golden: Members,
  within = "",
): Generator<{ readonly kind: Kind; readonly stored: StoredAttention }> {
  for (const [name, inner] of Object.entries(golden)) {
    if (!isObject(inner) || isStored(inner)) continue;
    if (!isStored(inner.probs) || typeof inner.layer !== "number") {
      yield* attentionsOf(inner, `${within} ${name}`);
      continue;
    }
    const stored = inner as Members as object as StoredAttention;
    const told = `${within} ${name} ${name.includes("cross") ? "" : (stored.input ?? "")}`;
    const kind = told.includes("cross")
      ? "cross_attention"
      : told.includes("encoder") && !told.includes("decoder")
        ? "encoder_attention"
        : told.includes("decoder")
          ? "attention"
          : "encoder_attention";
    yield { kind, stored };
  }
}

/** The result of a model that an array is, by the names that lead to it. */
function resultOf(path: readonly string[]): string | undefined {
  const name = path[path.length - 1];
  const told = path.join(" ");
  if (told.includes("greedy")) return undefined;
  const layer = /^\d+$/.test(name) ? name : undefined;
  if (layer && /hidden/.test(told))
    return `${told.includes("encoder") && !told.includes("decoder") ? "encoder_" : ""}hidden.${layer}`;
  if (name === "logits") return "logits";
  const isLast = name === "encoder_last_hidden_state";
  return isLast || (name === "last_hidden_state" && path.includes("encoder"))
    ? "encoder_last_hidden_state"
    : undefined;
}

/** Goes on with the texts of all entries at once, with caches. */
async function compareEntries(
  model: Model,
  source: ModelInputs,
  greedy: Members,
  comparison: Comparison,
): Promise<void> {
  const given = memberOf(greedy, "decoder_prompt_ids") ?? [0];
  const prompt = given as readonly number[] | Ids;
  const all = (greedy.entries ?? [greedy]) as readonly Entry[];
  const prompts = all.map((_, at) =>
    typeof prompt[0] === "number" ? (prompt as readonly number[]) : (prompt as Ids)[at],
  );
  const maxNewTokens = Math.max(...all.map(({ new_tokens: tokens }) => tokens.length));
  const said: number[][] = all.map(() => []);
  const options = { source, maxNewTokens, stop: [], logits: true };
  for await (const { entry, index, token, logits } of generate(model, prompts, options)) {
    const { new_tokens: tokens } = all[entry];
    if (index >= tokens.length) continue;
    comparison.token(index, tokens.length, token, tokens[index]);
    said[entry].push(...(logits as Float32Array));
  }
  for (const [entry, { logits }] of all.entries())
    if (logits) comparison.add(`greedy logits of entry ${entry}`, said[entry], logits);
}
