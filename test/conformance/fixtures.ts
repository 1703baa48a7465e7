// Fixtures of models: a checkpoint with golden results, run on a device.

import { MODEL_TYPES } from "../../src/models/families/index.ts";
import { bytesSource, generate, Model } from "../../src/models/index.ts";
import { BLOCKS } from "./blocks.ts";
import type { Worst } from "./compare.ts";
import {
  bytesOf,
  Comparison,
  type Ids,
  isStored,
  queriesOfMask,
  rowsOfMask,
  type Stored,
  type StoredAttention,
} from "./golden.ts";
import { comparePair, isPair } from "./pairs.ts";

/** A fixture in one text: its files in base64, and the golden results. */
export interface PackedFixture {
  readonly fixture: string;
  readonly family: string | undefined;
  readonly files: Readonly<Record<string, string>>;
  readonly golden: Golden;
}

/** How a packed fixture begins. */
export const PACKED = '{"fixture":';

interface Greedy {
  readonly prompt?: Ids;
  readonly new_tokens: readonly number[];
  readonly logits?: Stored;
  readonly log_probs?: Stored;
}

/** What fixtures hold; which members, their family says. */
interface Golden {
  readonly prompt?: { readonly input_ids: Ids; readonly logits: Stored };
  readonly greedy?: Greedy;
  readonly batch?: Readonly<Record<string, unknown>> & {
    readonly input_ids?: Ids;
    readonly attention_mask?: Ids;
    readonly token_type_ids?: Ids;
    readonly pixel_values?: Stored;
    readonly attention?: StoredAttention;
    readonly greedy?: readonly Greedy[];
  };
  readonly logits?: {
    readonly input_ids: Ids;
    readonly positions: readonly number[];
    readonly data: Stored;
  };
  readonly attention?: StoredAttention;
  readonly hidden?: { readonly layers: readonly Stored[] };
}

/** How far off a fixture is, and which of its golden arrays nothing was compared with. */
export interface FixtureResult {
  readonly worst: Worst | null;
  readonly left: readonly string[];
}

/** What a fixture needs and is not there, if anything. */
export const missingOf = ({ family, fixture }: PackedFixture): string | undefined =>
  family !== undefined && (MODEL_TYPES.includes(family) || BLOCKS.has(family))
    ? undefined
    : `no family of models ${family ?? fixture}`;

/** Runs all that a fixture has golden results of. */
export async function runFixture(
  device: GPUDevice,
  { files, golden, family, fixture }: PackedFixture,
): Promise<FixtureResult> {
  const comparison = new Comparison(golden);
  const bytes = Object.fromEntries(
    Object.entries(files).map(([name, data]) => [name, bytesOf(data)] as const),
  );
  const block = BLOCKS.get(family ?? "");
  if (block) {
    await block(device, bytes, golden, comparison);
    return { worst: comparison.worst, left: comparison.left };
  }
  const model = await Model.load(device, bytesSource(bytes, fixture));
  try {
    if (isPair(golden)) await comparePair(model, golden, comparison);
    else {
      await compareTexts(model, golden, comparison);
      await compareBatch(model, golden, comparison);
    }
    return { worst: comparison.worst, left: comparison.left };
  } finally {
    model.destroy();
  }
}

/** The prompt of a decoder, and what it says greedily. */
async function compareTexts(model: Model, golden: Golden, comparison: Comparison): Promise<void> {
  const { prompt, hidden, attention, greedy, logits } = golden;
  if (prompt) {
    const layer = attention?.input === "prompt" ? attention.layer : undefined;
    const asked = {
      ...(hidden && { hidden: true }),
      ...(layer !== undefined && { attention: [layer] }),
    };
    const found = await model.run({ ids: prompt.input_ids }, asked);
    comparison.add("logits", found.logits.data, prompt.logits);
    for (const [at, one] of hidden?.layers.entries() ?? [])
      comparison.add(`hidden.${at}`, found[`hidden.${at}`].data, one);
    if (attention && layer !== undefined)
      comparison.add(`attention.${layer}`, found[`attention.${layer}`].data, attention.probs);
  }
  const first = prompt?.input_ids ?? (greedy?.prompt && asRows(greedy.prompt));
  if (greedy && first) await compareGreedy(model, [first[0]], [greedy], comparison);
  if (!logits) return;
  const { input_ids: ids, positions } = logits;
  const last = Math.max(...positions);
  const found = await model.run({ ids: [ids[0].slice(0, last + 1)] });
  const V = found.logits.shape[2];
  const rows = positions.flatMap((at) => [...found.logits.data.subarray(at * V, (at + 1) * V)]);
  comparison.add("logits at positions", rows, logits.data);
  if (!attention) return;
  const length = attention.probs.shape[2];
  const asked = { attention: [attention.layer] };
  const watched = await model.run({ ids: [ids[0].slice(0, length)] }, asked);
  comparison.add("attention", watched[`attention.${attention.layer}`].data, attention.probs);
}

/** One text as a batch of one. */
const asRows = (ids: Ids | readonly number[]): Ids =>
  typeof ids[0] === "number" ? [ids as readonly number[]] : (ids as Ids);

/** Goes on with texts of any lengths, all at a time, as pages do: with caches. */
async function compareGreedy(
  model: Model,
  prompts: Ids,
  expected: readonly Greedy[],
  comparison: Comparison,
): Promise<void> {
  const said = expected.map((): number[] => []);
  const logs = expected.map((): number[] => []);
  const options = { maxNewTokens: expected[0].new_tokens.length, stop: [], logits: true };
  for await (const { entry, index, token, logits, logprob } of generate(model, prompts, options)) {
    const { new_tokens: tokens } = expected[entry];
    comparison.token(index, prompts[entry].length + tokens.length, token, tokens[index]);
    said[entry].push(...(logits as Float32Array));
    logs[entry].push(logprob);
  }
  for (const [entry, { logits, log_probs: logProbs }] of expected.entries()) {
    if (logits) comparison.add("greedy logits", said[entry], logits);
    if (logProbs) comparison.add("log probabilities", logs[entry], logProbs);
  }
}

/** A padded batch, or pictures. */
async function compareBatch(
  model: Model,
  { batch }: Golden,
  comparison: Comparison,
): Promise<void> {
  if (!batch) return;
  const { input_ids: ids, attention_mask: mask, token_type_ids: types, pixel_values } = batch;
  const probabilities = batch.attention;
  const pixels = pixel_values && {
    shape: pixel_values.shape,
    data: comparison.input(pixel_values),
  };
  const isText = model.family === "bert" || model.family === "distilbert";
  const found = await model.run(
    pixels ? { pixels } : { ids: ids as Ids, ...(mask && { mask }), ...(types && { types }) },
    {
      ...(probabilities && { attention: [probabilities.layer] }),
      ...(isText && { sentence: true }),
    },
  );
  for (const [name, stored] of Object.entries(batch)) {
    if (!isStored(stored) || stored === pixel_values) continue;
    const result = found[name] ?? (isText ? pooledLike(stored, found, comparison) : undefined);
    if (!result) continue;
    const { shape, data } = result;
    comparison.add(name, data, stored, shape.length === 3 ? rowsOfMask(mask, shape[2]) : undefined);
  }
  if (probabilities) {
    const { shape, data } = found[`attention.${probabilities.layer}`];
    comparison.add("attention", data, probabilities.probs, queriesOfMask(mask, shape));
  }
  if (!batch.greedy) return;
  const texts = (ids as Ids).map((row, entry) => row.filter((_, at) => mask?.[entry][at] !== 0));
  await compareGreedy(model, texts, batch.greedy, comparison);
}

/** What an array [B, width] of another name can be: the means of rows, of length 1 if it is so. */
function pooledLike(
  stored: Stored,
  found: Awaited<ReturnType<Model["run"]>>,
  comparison: Comparison,
) {
  const { mean_pooled: mean, sentence_embedding: embedding } = found;
  if (String(stored.shape) !== String(mean.shape)) return undefined;
  const [B, W] = stored.shape;
  const data = comparison.input(stored);
  const isUnit = Array.from({ length: B }, (_, at) =>
    Math.hypot(...data.subarray(at * W, (at + 1) * W)),
  ).every((length) => Math.abs(length - 1) < 1e-6);
  return isUnit ? embedding : mean;
}
