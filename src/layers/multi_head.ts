// Multi-head attention as a layer: projections, heads, attention and the projection behind it.

import { check, reading, show } from "../errors.ts";
import { readOptions } from "../given.ts";
import { checkDevice } from "../gpu/buffers.ts";
import { type FloatTensor, Tensor } from "../gpu/tensor.ts";
import { takeOptions } from "../options.ts";
import { RUN_OPTIONS, type RunOptions, runOnce } from "../plan/run.ts";
import type { BooleanMasks } from "./boolean_masks.ts";
import type { Layer } from "./multi_head_parts.ts";
import { type MultiHeadPlan, prepareMultiHead } from "./multi_head_plan.ts";
import {
  MULTI_HEAD_OPTIONS,
  MULTI_HEAD_PROBLEM,
  type MultiHeadOptions,
  type MultiHeadProblem,
} from "./multi_head_problem.ts";
import { type MultiHeadSizes, resolveSizes, weightTensors } from "./multi_head_sizes.ts";
import type { MultiHeadWeights } from "./multi_head_weights.ts";

/**
 * Options of {@link MultiHeadAttention.forward}: those of a problem, with tensors in place of
 * specs.
 */
export interface MultiHeadForwardOptions
  extends Omit<
      MultiHeadProblem,
      "query" | "key" | "value" | "output" | "lse" | "weightsOutput" | keyof BooleanMasks
    >,
    BooleanMasks<Tensor>,
    RunOptions {
  /** [B, N, key width]. Default: the query, for self-attention. */
  readonly key?: Tensor;
  /** [B, N, value width]. Default: the key. */
  readonly value?: Tensor;
  /** Where the output goes. Default: a new tensor, which is the caller's to destroy. */
  readonly output?: Tensor;
  /** `true` for a new tensor with the log-sum-exp, or the tensor that it goes to. Default: none. */
  readonly lse?: boolean | Tensor;
  /** Where the weights go. Default: a new tensor. */
  readonly weightsOutput?: Tensor;
}

/** The names of the options of a run. */
const { query: _query, ...FORWARD_OPTIONS } = { ...MULTI_HEAD_PROBLEM, ...RUN_OPTIONS };

export interface MultiHeadResult {
  /** [B, M, output width]. */
  readonly output: FloatTensor;
  /** [B, H, M], if it was asked for. */
  readonly lse?: Tensor<"f32">;
  /** [B, H, M, N'] or [B, M, N'], if they were asked for. */
  readonly weights?: Tensor<"f32">;
}

/**
 * Multi-head attention, the layer of Attention Is All You Need (arXiv 1706.03762, section 3.2.2),
 * with projections:
 *
 * ```
 * q_h = query Wq_h^T + bq_h,   k_g = key Wk_g^T + bk_g,   v_g = value Wv_g^T + bv_g
 * g = floor(h * Hkv / H)
 * output = concat_h(softmax(scale * q_h k_g^T + mask) v_g) Wo^T + bo     scale = 1 / sqrt(D)
 * ```
 *
 * It computes self-attention or cross-attention. Query, key, value and output may differ in width,
 * and q and k may have another head dim than v. The number of key heads divides that of query
 * heads; biases are optional. It takes every option of attention. Heads are split by strides, and
 * no scores are in memory. Every used query sees a learned key (`biasK`) and a key of zeros
 * (`zeroAttention`), whatever masks, lengths, windows and biases there are for other keys; the
 * scores of these two are scaled and capped like all others.
 *
 * A query that sees no key gets the bias of the output projection; PyTorch gives it NaN.
 *
 * @example
 * const weights = multiHeadWeights.glorot(device, { embedDim: 512, heads: 8 });
 * const layer = new MultiHeadAttention(device, weights, { heads: 8 });
 * const { output } = await layer.forward(x); // [B, M, 512] from [B, M, 512]
 */
export class MultiHeadAttention implements MultiHeadSizes {
  readonly device: GPUDevice;
  readonly weights: MultiHeadWeights;
  /** H, query heads. */
  readonly heads: number;
  /** Hkv, key and value heads. */
  readonly kvHeads: number;
  /** D, the head dim of q and k. */
  readonly headDim: number;
  /** Dv, the head dim of v. */
  readonly vDim: number;
  readonly queryWidth: number;
  readonly keyWidth: number;
  readonly valueWidth: number;
  readonly outputWidth: number;
  readonly #layer: Layer;

  /**
   * @param weights Tensors of any strides; {@link multiHeadWeights} makes them from other
   *   libraries' layouts. They may change between runs, as in training.
   * @throws FoveaError if their shapes do not go together.
   */
  constructor(device: GPUDevice, weights: MultiHeadWeights, options: MultiHeadOptions) {
    checkDevice(device);
    const given = takeOptions("multiHeadAttention", options, MULTI_HEAD_OPTIONS);
    const { label = "multiHeadAttention", zeroAttention = false } = given;
    const sizes = reading(`${label}: weights`, () => resolveSizes(label, weights, given));
    this.device = device;
    this.weights = weights;
    this.heads = sizes.heads;
    this.kvHeads = sizes.kvHeads;
    this.headDim = sizes.headDim;
    this.vDim = sizes.vDim;
    this.queryWidth = sizes.queryWidth;
    this.keyWidth = sizes.keyWidth;
    this.valueWidth = sizes.valueWidth;
    this.outputWidth = sizes.outputWidth;
    this.#layer = { device, label, sizes, weights, zeroAttention };
  }

  /** @internal What plans of a layer need. Throws FoveaError for what is no layer. */
  static partsOf(layer: MultiHeadAttention, what: string): Layer {
    check(
      typeof layer === "object" && layer !== null && #layer in layer,
      "argument",
      () => `${what}: layer must be a MultiHeadAttention, got ${show(layer)}.`,
    );
    return layer.#layer;
  }

  /**
   * Compiles the layer for a problem. The plan owns the memory between its kernels
   * (`workspaceBytes`), and encoding it allocates nothing.
   *
   * Rejects with FoveaError, as {@link planAttention} does, and then has allocated nothing.
   *
   * @example
   * const plan = await layer.plan({ query: { shape: [2, 128, 512] }, causal: true });
   * plan.encode(encoder, { query, output });
   * device.queue.submit([encoder.finish()]);
   */
  async plan(problem: MultiHeadProblem): Promise<MultiHeadPlan> {
    const taken = await readOptions(this.#layer.label, problem, MULTI_HEAD_PROBLEM);
    return (await prepareMultiHead(this.#layer, taken)).plan;
  }

  /**
   * Runs the layer once. Resolves once the GPU has accepted the work; `output.read()` waits for the
   * result itself. For calls in a loop make a plan and encode it: that waits for nothing and
   * allocates nothing.
   *
   * Rejects with FoveaError, and then has allocated nothing.
   *
   * @param query [B, M, query width]
   *
   * @example
   * const { output, weights } = await layer.forward(x, {
   *   key: memory,
   *   ignoreKeyMask: padding,
   *   weights: "mean",
   * });
   */
  async forward(query: Tensor, given: MultiHeadForwardOptions = {}): Promise<MultiHeadResult> {
    const { label } = this.#layer;
    const options = await readOptions(label, given, FORWARD_OPTIONS);
    for (const [name, one] of Object.entries({ query, key: options.key, value: options.value })) {
      if (one === undefined && name !== "query") continue;
      check(
        one instanceof Tensor,
        "argument",
        () => `${label}: ${name} must be a Tensor; make one with tensor().`,
      );
    }
    const { plan, resolved } = await prepareMultiHead(this.#layer, { ...options, query });
    const { output, lse, weights } = resolved;
    const made = await runOnce(
      this.device,
      label,
      { plan, allocated: Promise.resolve() },
      options,
      (make) => ({
        output: options.output ?? make("output", output.shape, output.dtype),
        ...(lse && { lse: options.lse instanceof Tensor ? options.lse : make("lse", lse.shape) }),
        ...(weights && { weightsOutput: options.weightsOutput ?? make("weights", weights.shape) }),
      }),
    );
    const { weightsOutput, ...results } = made;
    return { ...results, ...(weightsOutput && { weights: weightsOutput }) } as MultiHeadResult;
  }

  /** Frees the weights. Tensors of the caller's that share their memory are unusable then, too. */
  destroy(): void {
    for (const [, tensor] of weightTensors(this.weights)) tensor.destroy();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }
}
