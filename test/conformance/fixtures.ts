// Fixtures of models: a checkpoint with golden results, run on a device.

import { MODEL_TYPES } from "../../src/models/families/index.ts";
import { bytesSource, Model } from "../../src/models/index.ts";
import { isWithin, type Worst, worstOf } from "./compare.ts";

/** A fixture in one text: its files in base64, and the golden results. */
export interface PackedFixture {
  readonly fixture: string;
  readonly family: string | undefined;
  readonly files: Readonly<Record<string, string>>;
  readonly golden: Golden;
}

/** How a packed fixture begins. */
export const PACKED = '{"fixture":';

/** Of every result, absolute, as the fixtures say that arithmetic in f32 deserves. */
const TOLERANCE = 1e-4;

export interface Stored {
  readonly dtype: "float32" | "float64";
  readonly shape: readonly number[];
  readonly data: string;
}

type Ids = readonly (readonly number[])[];

interface Greedy {
  readonly prompt?: Ids;
  readonly new_tokens: readonly number[];
  readonly logits?: Stored;
}

/** What fixtures hold; which members, their family says. */
interface Golden {
  readonly prompt?: { readonly input_ids: Ids; readonly logits: Stored };
  readonly greedy?: Greedy;
  readonly batch?: {
    readonly input_ids?: Ids;
    readonly attention_mask?: Ids;
    readonly token_type_ids?: Ids;
    readonly pixel_values?: Stored;
    readonly logits?: Stored;
    readonly last_hidden_state?: Stored;
    readonly pooler_output?: Stored;
    readonly mlm_logits?: Stored;
    readonly nsp_logits?: Stored;
    readonly class_logits?: Stored;
    readonly attention?: { readonly layer: number; readonly probs: Stored };
    readonly greedy?: readonly Greedy[];
  };
  readonly logits?: {
    readonly input_ids: Ids;
    readonly positions: readonly number[];
    readonly data: Stored;
  };
  readonly attention?: { readonly layer: number; readonly input: string; readonly probs: Stored };
  readonly hidden?: { readonly layers: readonly Stored[] };
}

/** What a fixture needs and is not there, if anything. */
export const missingOf = ({ family, fixture }: PackedFixture): string | undefined =>
  family !== undefined && MODEL_TYPES.includes(family)
    ? undefined
    : `no family of models ${family ?? fixture}`;

/** Runs all that a fixture has golden results of, and returns the worst element. */
export async function runFixture(device: GPUDevice, packed: PackedFixture): Promise<Worst | null> {
  const files = Object.entries(packed.files).map(([name, data]) => [name, bytesOf(data)] as const);
  const model = await Model.load(device, bytesSource(Object.fromEntries(files), packed.fixture));
  const comparison = new Comparison();
  try {
    await compareTexts(model, packed.golden, comparison);
    await compareBatch(model, packed.golden, comparison);
    return comparison.worst;
  } finally {
    model.destroy();
  }
}

const bytesOf = (base64: string) => Uint8Array.from(atob(base64), (one) => one.charCodeAt(0));

/** The elements of a stored array. */
export function numbersOf({ dtype, data }: Stored): Float64Array {
  const { buffer } = bytesOf(data);
  return Float64Array.from(
    dtype === "float64" ? new Float64Array(buffer) : new Float32Array(buffer),
  );
}

/** Collects the worst of many results; throws for one that is beyond the tolerance, by its name. */
class Comparison {
  worst: Worst | null = null;
  #count = 0;

  /** @param isCounted Which elements count. Default all */
  add(
    name: string,
    got: ArrayLike<number>,
    stored: Stored,
    isCounted: (at: number) => boolean = () => true,
  ): void {
    const expected = numbersOf(stored);
    if (got.length !== expected.length)
      throw new Error(`${name}: ${got.length} elements, expected ${expected.length}`);
    const actual = Float64Array.from(expected, (x, at) => (isCounted(at) ? got[at] : x));
    const tensor = { dtype: "float32", shape: stored.shape, data: expected };
    const found = worstOf(this.#count++, tensor, actual, TOLERANCE);
    if (!found) return;
    if (!isWithin(found))
      throw new Error(
        `${name} at [${found.index.join(", ")}] is ${found.got}, expected ${found.expected}`,
      );
    if (!this.worst || Number(found.error) > Number(this.worst.error)) this.worst = found;
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
  if (greedy && first) await compareGreedy(model, first[0], undefined, greedy, comparison);
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

/**
 * Says one token after the other: the whole text runs again for each, at its full length, because
 * no token sees those after it.
 */
async function compareGreedy(
  model: Model,
  prompt: readonly number[],
  mask: readonly number[] | undefined,
  { new_tokens: tokens, logits }: Greedy,
  comparison: Comparison,
): Promise<void> {
  const length = prompt.length + tokens.length;
  const ids = [...prompt, ...new Array<number>(tokens.length).fill(0)];
  const counts = mask && [...mask, ...new Array<number>(tokens.length).fill(1)];
  const said: number[] = [];
  for (const [at, expected] of tokens.entries()) {
    const found = await model.run({ ids: [ids], ...(counts && { mask: [counts] }) });
    const [, , V] = found.logits.shape;
    const end = (prompt.length + at) * V;
    const row = found.logits.data.subarray(end - V, end);
    const best = row.indexOf(Math.max(...row));
    if (best !== expected)
      throw new Error(`token ${at} of ${length} is ${best}, expected ${expected}`);
    ids[prompt.length + at] = best;
    said.push(...row);
  }
  if (logits) comparison.add("greedy logits", said, logits);
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
  const asked = probabilities ? { attention: [probabilities.layer] } : {};
  const pixels = pixel_values && { shape: pixel_values.shape, data: numbersOf(pixel_values) };
  const found = await model.run(
    pixels ? { pixels } : { ids: ids as Ids, ...(mask && { mask }), ...(types && { types }) },
    asked,
  );
  const counts = mask?.flat();
  const ofRows = (width: number) => (at: number) => counts?.[Math.floor(at / width)] !== 0;
  for (const name of [
    "logits",
    "last_hidden_state",
    "mlm_logits",
    "pooler_output",
    "nsp_logits",
    "class_logits",
  ] as const) {
    const stored = batch[name];
    if (!stored) continue;
    const { shape, data } = found[name];
    comparison.add(name, data, stored, shape.length === 3 ? ofRows(shape[2]) : undefined);
  }
  if (probabilities) {
    const { shape, data } = found[`attention.${probabilities.layer}`];
    const [, H, T] = shape;
    const isQuery = (at: number) => {
      const row = Math.floor(at / T) % T;
      return counts?.[Math.floor(at / (T * T * H)) * T + row] !== 0;
    };
    comparison.add("attention", data, probabilities.probs, isQuery);
  }
  for (const [at, greedy] of batch.greedy?.entries() ?? [])
    await compareGreedy(model, (ids as Ids)[at], mask?.[at], greedy, comparison);
}
