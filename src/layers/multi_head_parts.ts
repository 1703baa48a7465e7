// The parts of multi-head attention: a plan each, and the memory between them.
//
//     query, key, value --project--> q, k, v --attention--> heads --project--> output
//                                                 |
//     a learned key, or one of zeros: --attention-+--merge
//
// q, k, v and heads are [B, rows, heads * dim]; attention looks at them as [B, heads, rows, dim] by
// strides. What keys the layer adds are attended to on their own and merged, exactly, so that no
// mask, length or position is about them.

import type { AttentionBindings } from "../attention/bindings.ts";
import { planMerge } from "../attention/merge.ts";
import { planAttention } from "../attention/plan_attention.ts";
import { planAttentionWeights } from "../attention/weights.ts";
import { tensor } from "../gpu/make_tensor.ts";
import { Tensor } from "../gpu/tensor.ts";
import { planProjection } from "../operations/projection.ts";
import type { Recording } from "../plan/target.ts";
import type { ScoreOptions } from "../scores/options.ts";
import type { Dtype } from "../types.ts";
import { isPlainMask, keyMaskView, prepareMasks } from "./boolean_masks.ts";
import { splitHeads } from "./heads.ts";
import type { MultiHeadBindings, ResolvedMultiHead } from "./multi_head_problem.ts";
import { type MultiHeadSizes, weightTensors } from "./multi_head_sizes.ts";
import type { LinearWeights, MultiHeadWeights } from "./multi_head_weights.ts";
import { bound, columnsPlace, type Given, type Place, splitPlace, viewed } from "./places.ts";

/** A layer, as its plans see it. */
export interface Layer {
  readonly device: GPUDevice;
  readonly label: string;
  readonly sizes: MultiHeadSizes;
  readonly weights: MultiHeadWeights;
  readonly zeroAttention: boolean;
}

/** A part of a plan: what is left to record of it with these tensors. */
export interface Part {
  prepare(given: Given, bindings: MultiHeadBindings): Recording | undefined;
  readonly plan: { destroy(): void; readonly workspaceBytes?: number };
}

/** Builds the parts of a plan. */
export class Builder {
  readonly owned: Tensor[] = [];
  readonly #layer: Layer;
  readonly #problem: ResolvedMultiHead;
  readonly #parts: Promise<Part>[] = [];

  constructor(layer: Layer, problem: ResolvedMultiHead) {
    this.#layer = layer;
    this.#problem = problem;
  }

  async build(): Promise<Part[]> {
    const { sizes, weights } = this.#layer;
    const { batch, rowsQ, rowsKv, storage, query, key, value, output, lse, options } =
      this.#problem;
    const { heads, kvHeads, headDim, vDim } = sizes;
    const mask = await this.#joinedMask();

    const keySource = key ? "key" : "query";
    const sources = [
      ["query", query, weights.query, heads * headDim],
      [keySource, key ?? query, weights.key, kvHeads * headDim],
      [value ? "value" : keySource, value ?? key ?? query, weights.value, kvHeads * vDim],
    ] as const;
    const projected = sources.map(([name, spec, linear, width], index) => {
      const y = this.#own("qkv"[index], [batch, index ? rowsKv : rowsQ, width], storage);
      this.#project(bound(name, spec), linear, y);
      return y;
    });
    const q = splitHeads(projected[0].tensor, heads);
    const k = splitHeads(projected[1].tensor, kvHeads);
    const v = splitHeads(projected[2].tensor, kvHeads);

    const extra = this.#extraKey();
    const sinks = this.#sinks(extra !== undefined);
    const joined = weights.output
      ? this.#own("heads", [batch, rowsQ, heads * vDim], extra ? "f32" : storage)
      : bound("output", output);
    const o = splitPlace(joined, heads);
    const needsLse = lse || this.#problem.weights || extra;
    const total = lse
      ? bound("lse", lse)
      : needsLse
        ? this.#own("lse", [batch, heads, rowsQ])
        : undefined;

    const partial = (name: string) => ({
      output: splitPlace(this.#own(`${name} output`, [batch, rowsQ, heads * vDim]), heads),
      lse: this.#own(`${name} lse`, [batch, heads, rowsQ]),
    });
    const own = extra ? partial("keys") : { output: o, lse: total };
    this.#attend({ ...options, ...sinks.own }, { q, k, v }, own, mask);
    if (extra && total) {
      const added = partial("added");
      this.#attend(
        { ...addedOptions(options), ...sinks.added },
        { q, ...extra },
        added,
        undefined,
        addedBindings,
      );
      this.#merge([own, added] as Partial[], { output: o, lse: total });
    }
    if (total) this.#writeWeights(q, k, { ...options, ...sinks.own }, total, mask);
    if (weights.output) this.#project(joined, weights.output, bound("output", output));
    const parts = await Promise.all(this.#parts);
    await Promise.all(
      [...this.owned, ...weightTensors(weights).map(([, given]) => given)].map(
        (used) => used.allocated,
      ),
    );
    return parts;
  }

  /** Frees what was built, once all that was begun is done. */
  async discard(): Promise<void> {
    for (const part of await Promise.allSettled(this.#parts)) {
      if (part.status === "fulfilled") part.value.plan.destroy();
    }
    for (const owned of this.owned) owned.destroy();
  }

  #own(
    name: string,
    shape: readonly number[],
    dtype: Dtype = "f32",
  ): Place & { readonly tensor: Tensor } {
    const made = tensor(this.#layer.device, shape, {
      dtype,
      label: `${this.#layer.label} ${name}`,
    });
    this.owned.push(made);
    return { tensor: made, spec: made, of: () => made };
  }

  #add<P extends Part["plan"]>(
    plan: Promise<P>,
    prepare: (plan: P, ...args: Parameters<Part["prepare"]>) => Recording | undefined,
  ) {
    this.#parts.push(
      plan.then((made) => ({ plan: made, prepare: (...args) => prepare(made, ...args) })),
    );
  }

  /** What all plans are told. */
  get #shared() {
    const { maxDispatchFlops } = this.#problem.run;
    return {
      label: this.#layer.label,
      ...(maxDispatchFlops !== undefined && { maxDispatchFlops }),
    };
  }

  #project(x: Place, { weight, bias }: LinearWeights, output: Place): void {
    const problem = {
      x: x.spec,
      weight,
      ...(bias && { bias }),
      output: output.spec,
      ...this.#shared,
    };
    this.#add(planProjection(this.#layer.device, problem), (plan, given) =>
      plan.prepare({ x: x.of(given), output: output.of(given) }),
    );
  }

  #attend(
    options: ScoreOptions,
    tensors: Record<"q" | "k" | "v", Tensor>,
    { output, lse }: { output: Place; lse: Place | undefined },
    mask: Place | undefined,
    bindingsOf = optionsOf,
  ): void {
    const problem = {
      ...options,
      ...tensors,
      output: output.spec,
      ...(lse && { lse: lse.spec }),
      ...(mask && { mask: mask.spec }),
    };
    this.#add(
      planAttention(this.#layer.device, { ...problem, ...this.#problem.run, ...this.#shared }),
      (plan, given, bindings) =>
        plan.prepare({
          ...bindingsOf(bindings),
          output: output.of(given),
          ...(lse && { lse: lse.of(given) }),
          ...(mask && { mask: mask.of(given) }),
        }),
    );
  }

  #merge(partials: readonly Partial[], to: Partial): void {
    const problem = {
      partials: partials.map(({ output, lse }) => ({ output: output.spec, lse: lse.spec })),
      output: to.output.spec,
      lse: to.lse.spec,
      label: this.#layer.label,
    };
    this.#add(planMerge(this.#layer.device, problem), (plan, given) =>
      plan.prepare({
        partials: partials.map(({ output, lse }) => ({
          output: output.of(given),
          lse: lse.of(given),
        })),
        output: to.output.of(given),
        lse: to.lse.of(given),
      }),
    );
  }

  /** The weights of all keys, a plan for the problem's and one for each that the layer adds. */
  #writeWeights(
    q: Tensor,
    k: Tensor,
    options: ScoreOptions,
    lse: Place,
    mask: Place | undefined,
  ): void {
    const { weights, mean, rowsKv } = this.#problem;
    if (!weights || weights.shape.includes(0)) return;
    const { device, weights: layer, zeroAttention, sizes } = this.#layer;
    const write = (
      k: Tensor,
      from: number,
      count: number,
      options: ScoreOptions,
      bindingsOf = optionsOf,
      mask?: Place,
    ) => {
      const output = columnsPlace(bound("weightsOutput", weights), from, count);
      const problem = {
        ...options,
        q,
        k,
        lse: lse.spec,
        output: output.spec,
        meanOverHeads: mean,
        ...this.#shared,
      };
      this.#add(
        planAttentionWeights(device, { ...problem, ...(mask && { mask: mask.spec }) }),
        (plan, given, bindings) =>
          plan.prepare({
            ...bindingsOf(bindings),
            lse: lse.of(given),
            output: output.of(given),
            ...(mask && { mask: mask.of(given) }),
          }),
      );
    };
    write(k, 0, rowsKv, options, optionsOf, mask);
    const added = [
      ...(layer.biasK ? [this.#overBatch(layer.biasK, sizes.headDim)] : []),
      ...(zeroAttention ? [this.#zeros(sizes.headDim)] : []),
    ];
    for (const [index, key] of added.entries())
      write(key, rowsKv + index, 1, addedOptions(options), addedBindings);
  }

  /**
   * The key and value that attention over the added ones is computed from, where a sink does not
   * do.
   */
  #extraKey(): { k: Tensor; v: Tensor } | undefined {
    const { weights, sizes, zeroAttention } = this.#layer;
    const { biasK, biasV } = weights;
    if (biasK && biasV)
      return { k: this.#overBatch(biasK, sizes.headDim), v: this.#overBatch(biasV, sizes.vDim) };
    if (!zeroAttention || !(this.#problem.options.sinks instanceof Tensor)) return undefined;
    return { k: this.#zeros(sizes.headDim), v: this.#zeros(sizes.vDim) };
  }

  /**
   * A key of zeros has a score of 0 and adds nothing to the output: it is a sink with a logit of 0.
   */
  #sinks(hasExtra: boolean): { own?: ScoreOptions; added?: ScoreOptions } {
    const { zeroAttention, sizes } = this.#layer;
    const { sinks } = this.#problem.options;
    const zeros = new Array<number>(sizes.heads).fill(0);
    if (!zeroAttention) return {};
    if (hasExtra) return this.#layer.weights.biasK ? { added: { sinks: zeros } } : {};
    const both = Array.isArray(sinks)
      ? sinks.map((sink: number) => Math.max(sink, 0) + Math.log1p(Math.exp(-Math.abs(sink))))
      : zeros;
    return { own: { sinks: both } };
  }

  /** [Hkv * D] as [B, Hkv, 1, D]. */
  #overBatch(row: Tensor, dim: number): Tensor {
    const [step] = row.strides;
    const { kvHeads } = this.#layer.sizes;
    return row.view({
      shape: [this.#problem.batch, kvHeads, 1, dim],
      strides: [0, dim * step, 0, step],
    });
  }

  #zeros(dim: number): Tensor {
    const zeros = this.#own("zeros", [dim]).tensor;
    return zeros.view({
      shape: [this.#problem.batch, this.#layer.sizes.kvHeads, 1, dim],
      strides: [0, 0, 0, 1],
    });
  }

  /** The one mask that attention takes: the caller's, or what several are joined into. */
  async #joinedMask(): Promise<Place | undefined> {
    const { device, label } = this.#layer;
    const { masks, rowsKv, batch, rowsQ } = this.#problem;
    if (!masks.length || !rowsKv || !batch || !rowsQ) return undefined;
    if (isPlainMask(masks)) {
      const [{ name, overScores }] = masks;
      return name === "mask"
        ? bound(name, overScores)
        : viewed(bound(name, overScores), keyMaskView, overScores);
    }
    const { plan, allocated, bits } = await prepareMasks(device, label, masks, rowsKv);
    this.#add(
      allocated.then(() => plan),
      (made, given) =>
        made.prepare(Object.fromEntries(masks.map(({ name }) => [name, given.get(name)]))),
    );
    return { spec: bits, of: () => bits };
  }
}

interface Partial {
  readonly output: Place;
  readonly lse: Place;
}

/**
 * What is true of added keys, too: their scores are scaled and capped, and unused queries stay
 * unused.
 */
function addedOptions({ scale, softcap, qLengths, dropout }: ScoreOptions): ScoreOptions {
  return {
    ...(scale !== undefined && { scale }),
    ...(softcap !== undefined && { softcap }),
    ...(qLengths !== undefined && { qLengths }),
    // Not the generator of the other keys: there, too, a key is the first one.
    ...(dropout && { dropout: { p: dropout.p, seed: (dropout.seed + 1) % 2 ** 53 } }),
  };
}

/** Those of them that are bound. */
const addedBindings = ({ qLengths }: MultiHeadBindings): AttentionBindings =>
  qLengths ? { qLengths } : {};

/** The bindings that options of attention have. */
function optionsOf(bindings: MultiHeadBindings): AttentionBindings {
  const {
    query,
    key,
    value,
    output,
    lse,
    weightsOutput,
    mask,
    ignoreMask,
    keyMask,
    ignoreKeyMask,
    ...options
  } = bindings;
  return options;
}
