// Attention, fused, with what it keeps for its gradients.

import { planAttentionBackward } from "../../attention/gradients/backward.ts";
import { planAttention } from "../../attention/plan_attention.ts";
import { planAttentionWeights } from "../../attention/weights.ts";
import { check, show } from "../../errors.ts";
import { isRecord, type OptionNames } from "../../given.ts";
import type { RelativeBias } from "../../positions/buckets.ts";
import type {
  AdditiveSimilarity,
  NormalizedSimilarity,
  ScoreOptions,
  Similarity,
} from "../../scores/options.ts";
import { graphOf, takeSettings, withoutFunction } from "../arguments.ts";
import type { Place, Value } from "../value.ts";
import { droppedBy } from "./dropout.ts";

/** @internal The label of log-sum-exps. */
export const LSE = "log-sum-exp";

/** How queries and keys are compared: see {@link Similarity}, with values in place of tensors. */
export type SimilaritySettings =
  | "dot"
  | "cosine"
  | (Pick<NormalizedSimilarity, "kind" | "eps"> & {
      /** [D] f32. Default 1. */
      readonly qWeights?: Value;
      /** [D] f32. Default 1. */
      readonly kWeights?: Value;
    })
  | (Pick<AdditiveSimilarity, "kind"> & {
      /** [D] or [H, D] f32: scores are the sum over d of vector[d] tanh(q[d] + k[d] + innerBias[d]). */
      readonly vector?: Value;
      /** [D] or [H, D] f32. Default none. */
      readonly innerBias?: Value;
    });

/**
 * Options of {@link attention}: those of the engine's function, with values in place of tensors.
 * What is learned of them gets its gradient.
 */
export interface AttentionSettings
  extends Pick<
    ScoreOptions,
    | "causal"
    | "scale"
    | "window"
    | "attentionChunk"
    | "sinkTokens"
    | "softcap"
    | "maxTemperature"
    | "scoreFunction"
    | "maskFunction"
    | "blockMask"
  > {
  /** [B] i32: how many of the queries count, for each entry. Default all. */
  readonly qLengths?: Value;
  /** [B] i32: how many of the keys count, for each entry. Default all. */
  readonly kvLengths?: Value;
  /** [B or 1, H or 1, M or 1, N or 1] u8: 0 hides a key. Default none. */
  readonly mask?: Value;
  /** [B or 1, H or 1, M or 1, N or 1] f32, added to the scores. Default none. */
  readonly bias?: Value;
  /** [H] or [B, H] f32: slopes of ALiBi. Default none. */
  readonly alibiSlopes?: Value;
  /** T5's bias by distance, from a table [buckets, H]. Default none. */
  readonly relativeBias?: Omit<RelativeBias, "table"> & { readonly table: Value };
  /** [H] f32: a logit of each head that joins the sum and has no value. Default none. */
  readonly sinks?: Value;
  /** [H] f32: a factor of the scores. Default 1. */
  readonly temperature?: Value;
  /** [H] f32: the logarithm of such a factor, at most `maxTemperature`. */
  readonly logTemperature?: Value;
  /** Default `"dot"`. */
  readonly similarity?: SimilaritySettings;
  /**
   * Dropout of the probabilities, by the seed and `program.step`: see {@link dropout}. In a program
   * without gradients nothing is dropped. p is from 0 up to below 1, the default of `seed` the place
   * of the operation. Default none.
   */
  readonly dropout?: { readonly p: number; readonly seed?: number };
  /**
   * Is given the probabilities [B, H, M, N] while the program is recorded, to have them as an
   * output that people look at. They take a kernel of their own. Default: nobody looks.
   */
  readonly watch?: (weights: Value) => void;
}

/** The names of the settings but for `watch`. */
export const ATTENTION_SETTINGS: OptionNames<Omit<AttentionSettings, "watch">> = {
  causal: "any?",
  scale: "number",
  window: "any?",
  attentionChunk: "number?",
  sinkTokens: "number",
  softcap: "number?",
  maxTemperature: "number",
  scoreFunction: "any",
  maskFunction: "any",
  blockMask: "any",
  qLengths: "any",
  kvLengths: "any",
  mask: "any",
  bias: "any",
  alibiSlopes: "any",
  relativeBias: "any",
  sinks: "any",
  temperature: "any",
  logTemperature: "any",
  similarity: "any",
  dropout: "any",
};

const DROPOUT: OptionNames<NonNullable<AttentionSettings["dropout"]>> = {
  p: "number",
  seed: "number",
};

/** Settings that are values, by the names of their gradients if they can have some. */
const VALUES = {
  qLengths: undefined,
  kvLengths: undefined,
  mask: undefined,
  bias: "dBias",
  alibiSlopes: "dAlibiSlopes",
  sinks: "dSinks",
  temperature: "dTemperature",
  logTemperature: "dLogTemperature",
} as const;
/** The same of members of the similarity. */
const OF_SIMILARITY = {
  qWeights: "dQWeights",
  kWeights: "dKWeights",
  vector: "dVector",
  innerBias: "dInnerBias",
} as const;

interface Held {
  readonly name: string;
  readonly value: Value;
  readonly gradient: string | undefined;
}

/** The values of an object's members, and the object once they have tensors. */
function held(given: object, names: Readonly<Record<string, string | undefined>>) {
  const found = Object.entries(given).filter(([name]) => name in names);
  return {
    values: found.map(([name, value]): Held => ({ name, value, gradient: names[name] })),
    at: (place: Place): object => ({
      ...given,
      ...Object.fromEntries(found.map(([name, value]) => [name, place(value)])),
    }),
  };
}

/**
 * @internal The program of rows, the values that the settings hold, and the engine's options once
 *   they have tensors.
 */
export function settled(
  label: string,
  rows: Readonly<Record<string, Value>>,
  given: Omit<AttentionSettings, "watch">,
) {
  const settings: Omit<AttentionSettings, "watch"> = takeSettings(label, given, ATTENTION_SETTINGS);
  const { relativeBias, similarity, dropout, ...rest } = settings;
  const present = Object.entries(rest).filter(([, value]) => value !== undefined);
  const own = held(Object.fromEntries(present), VALUES);
  check(
    relativeBias === undefined || isRecord(relativeBias),
    "argument",
    () => `${label}: relativeBias must be an object with its table, got ${show(relativeBias)}.`,
  );
  const table = relativeBias && held(relativeBias, { table: "dRelativeBias" });
  const compared = isRecord(similarity) ? held(similarity, OF_SIMILARITY) : undefined;
  const values = [own, table, compared].flatMap((one) => one?.values ?? []);
  const named = Object.fromEntries(values.map(({ name, value }) => [name, value]));
  const graph = graphOf(label, rows, named);
  const drops =
    dropout !== undefined &&
    droppedBy(graph, label, takeSettings(`${label} dropout`, dropout, DROPOUT));
  return {
    graph,
    values,
    inputs: [...values.map(({ value }) => value), ...(drops ? [drops.step] : [])],
    options: (at: Place): ScoreOptions => ({
      ...own.at(at),
      ...(table && { relativeBias: table.at(at) as RelativeBias }),
      ...(similarity && { similarity: (compared?.at(at) ?? similarity) as Similarity }),
      ...(drops && { dropout: { p: drops.p, seed: drops.seed, step: at(drops.step) } }),
    }),
  };
}

/**
 * softmax(scale q k^T) v, in the fused kernels: nothing of size M x N is in memory, forward or
 * backward.
 *
 * @param q [B, H, M, D] f32
 * @param k [B, Hkv, N, D], H a multiple of Hkv
 * @param v [B, Hkv, N, Dv]
 * @returns [B, H, M, Dv], whose elements lie in the order [B, M, H, Dv], as projections of all
 *   heads together take them
 */
export function attention(q: Value, k: Value, v: Value, settings: AttentionSettings = {}): Value {
  const label = "attention";
  const [watch, rest] = withoutFunction(label, settings, "watch");
  const { graph, values, inputs: others, options } = settled(label, { q, k, v }, rest);
  const [B, H, M] = q.shape;
  const Dv = v.shape[3];
  const inputs = [q, k, v, ...others];
  const output = graph.computed("attention", [B, M, H, Dv], inputs).permute(0, 2, 1, 3);
  const lse = graph.computed(LSE, [B, H, M], inputs);
  graph.add({
    label: "attention",
    inputs,
    outputs: [output, lse],
    plan: (device, at) =>
      planAttention(device, {
        q: at(q),
        k: at(k),
        v: at(v),
        output: at(output),
        lse: at(lse),
        ...options(at),
      }),
    gradient({ of, into, wants }) {
      const dOutput = of(output);
      if (!dOutput) return;
      // The kernels write all three; what is not wanted goes nowhere.
      const spare = (x: Value) => graph.computed("unused gradient", x.shape, []);
      const [dQ, dK, dV] = [q, k, v].map((x) => (wants(x) ? into(x) : spare(x)));
      const learned = values.filter(({ value, gradient }) => gradient && wants(value));
      const gradients = learned.map(({ value, gradient }) => [gradient, into(value)] as const);
      graph.add({
        label: "attention backward",
        inputs: [...inputs, output, lse, dOutput],
        outputs: [dQ, dK, dV, ...gradients.map(([, value]) => value)],
        plan: (device, at) =>
          planAttentionBackward(device, {
            q: at(q),
            k: at(k),
            v: at(v),
            output: at(output),
            lse: at(lse),
            dOutput: at(dOutput),
            dQ: at(dQ),
            dK: at(dK),
            dV: at(dV),
            ...Object.fromEntries(gradients.map(([name, value]) => [name, at(value)])),
            ...options(at),
          }),
      });
    },
  });
  watch?.(attentionWeights(q, k, rest));
  return output;
}

/**
 * The probabilities of attention before dropout, [B, H, M, N], for people to look at: no gradient
 * goes through them.
 */
export function attentionWeights(q: Value, k: Value, settings: AttentionSettings = {}): Value {
  const label = "attention weights";
  const [, given] = withoutFunction(label, settings, "watch");
  const { dropout: _, ...rest } = takeSettings(label, given, ATTENTION_SETTINGS);
  const { graph, inputs: others, options } = settled(label, { q, k }, rest as typeof given);
  const [B, H, M] = q.shape;
  const inputs = [q, k, ...others];
  const output = graph.computed("attention weights", [B, H, M, k.shape[2]], inputs);
  graph.add({
    label: "attention weights",
    inputs,
    outputs: [output],
    plan: (device, at) =>
      planAttentionWeights(device, {
        q: at(q),
        k: at(k),
        output: at(output),
        ...options(at),
      }),
  });
  return output;
}
