// Block masks: which blocks of scores a mask leaves, found once on the GPU and kept by the caller.

import { check, show } from "../errors.ts";
import { elementsOfList, type OptionNames } from "../given.ts";
import { checkDevice, guarded, settle, USAGE } from "../gpu/buffers.ts";
import { tensor } from "../gpu/make_tensor.ts";
import { checkBindings, compileKernel } from "../gpu/pipelines.ts";
import { resolveSpec, Tensor } from "../gpu/tensor.ts";
import { BLOCKS, blockMaskKernel } from "../kernels/block_mask.ts";
import { takeOptions } from "../options.ts";
import { checkOperand } from "../plan/operand_checks.ts";
import { bindingRange, checkBindingLimit } from "../plan/specs.ts";
import { AttentionFunction, type MaskFunction } from "./attention_function.ts";
import { checkCaptured, NUMBER_STRIDE, numberBytes } from "./captures.ts";

/** Rows and keys of a block are multiples of these: the tiles of the kernels. */
const Q_TILE = 64;
const KV_TILE = 32;
/** So that the scores of a block count below 2^32. */
const LARGEST = 2 ** 15;

/** For which scores a block mask is. */
export interface BlockMaskOptions {
  /** Queries M and keys N. */
  readonly seqQ: number;
  /** N, keys. */
  readonly seqKv: number;
  /** Batch entries and heads that differ from each other. Default 1: one mask for all. */
  readonly batch?: number;
  /** Heads that the mask is asked for, one block mask each. Default 1: all heads alike. */
  readonly heads?: number;
  /** Rows and keys of a block, multiples of 64 and 32. Default [64, 64]. */
  readonly blockSize?: readonly [rows: number, keys: number];
  /** Position of the first query. Default seqKv - seqQ: the last query stands at the last key. */
  readonly queryOffset?: number;
  /** Name of the GPU objects in errors and captures. */
  readonly label?: string;
}

/** What a block of scores holds. */
export type BlockKind = "empty" | "partial" | "full";

/**
 * The blocks of scores that a mask leaves. Attention visits no empty block, and evaluates the mask
 * function in partial ones only. Holds B * H * ceil(M / rows) * (1 + ceil(N / keys)) words. Make
 * one with {@link createBlockMask} or {@link blockMaskOf}; it is the caller's to `destroy()`.
 */
export class BlockMask {
  /**
   * [B, H, blocks of queries, 1 + blocks of keys] u32: how many follow, then 2 * block + (1 if
   * full).
   */
  readonly blocks: Tensor<"u32">;
  readonly maskFunction: MaskFunction | undefined;
  readonly options: Required<BlockMaskOptions>;

  /** @internal */
  constructor(
    blocks: Tensor<"u32">,
    maskFunction: MaskFunction | undefined,
    options: Required<BlockMaskOptions>,
  ) {
    this.blocks = blocks;
    this.maskFunction = maskFunction;
    this.options = options;
  }

  /**
   * The kinds of all blocks, [B, H, blocks of queries, blocks of keys] in row-major order, copied
   * to the CPU.
   */
  async read(): Promise<BlockKind[]> {
    const words = await this.blocks.read();
    const width = this.blocks.shape[3];
    const kinds = new Array<BlockKind>((words.length / width) * (width - 1)).fill("empty");
    for (let row = 0; row * width < words.length; row++) {
      for (let entry = 1; entry <= words[row * width]; entry++) {
        const word = words[row * width + entry];
        kinds[row * (width - 1) + Math.floor(word / 2)] = word % 2 ? "full" : "partial";
      }
    }
    return kinds;
  }

  /** Frees the memory. */
  destroy(): void {
    this.blocks.destroy();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }
}

/**
 * Finds the blocks of a mask function on the GPU, evaluating it once for every score.
 *
 * Rejects with FoveaError: `"argument"`, `"limit"`, `"shader"` with a place in the function's text,
 * `"out-of-memory"`.
 *
 * @example
 * const blockMask = await createBlockMask(device, slidingWindow(256, 0), {
 *   seqQ: 4096,
 *   seqKv: 4096,
 * });
 * const { output } = await attention(q, k, v, { blockMask });
 */
export async function createBlockMask(
  device: GPUDevice,
  maskFunction: MaskFunction,
  given: BlockMaskOptions,
): Promise<BlockMask> {
  checkDevice(device);
  check(
    isMaskFunction(maskFunction),
    "argument",
    () => `createBlockMask: expected a function from maskFunction(), got ${show(maskFunction)}.`,
  );
  const options = resolveOptions(takeOptions("createBlockMask", given, BLOCK_MASK_OPTIONS));
  const { label, seqQ, seqKv, batch, heads, queryOffset, blockSize } = options;
  const source = blockMaskKernel(maskFunction.text);
  checkBindings(device, label, source.bindings);
  const captures = Object.values(maskFunction.captures);
  for (const [name, value] of Object.entries(maskFunction.captures)) {
    if (!(value instanceof Tensor)) continue;
    checkCaptured(label, name, device, value);
    checkBindingLimit(label, `capture ${name}`, device, value);
    checkOperand(
      `${label}: capture ${name}`,
      device,
      { spec: value, base: 0, fallback: value, written: false },
      value,
    );
  }
  const [qBlocks, kvBlocks] = blocksOf(options);
  const shape = [batch, heads, qBlocks, 1 + kvBlocks];
  checkBindingLimit(
    label,
    "the list of blocks",
    device,
    resolveSpec(label, { shape, dtype: "u32" }),
  );
  const kernel = await compileKernel(device, source);
  const blocks = tensor(device, shape, { dtype: "u32", label });
  const workgroups = batch * heads * qBlocks;
  if (!workgroups) return new BlockMask(blocks, maskFunction, options);
  const x = Math.min(workgroups, device.limits.maxComputeWorkgroupsPerDimension);
  const members = {
    seq_q: seqQ,
    seq_kv: seqKv,
    n_heads: heads,
    q_offset: queryOffset,
    block_q: blockSize[0],
    block_kv: blockSize[1],
    q_blocks: qBlocks,
    kv_blocks: kvBlocks,
    grid_x: x,
    workgroups,
  };
  const numbers = captures.flatMap((value) => (value instanceof Tensor ? [] : [value]));
  let uniform: GPUBuffer | undefined;
  try {
    const { done } = guarded(device, label, () => {
      const tensors = captures.map((value) => {
        if (!(value instanceof Tensor)) return undefined;
        // A tensor without elements has no range, and is never read.
        return { buffer: value.buffer, ...(value.size && bindingRange(value)) };
      });
      const size = NUMBER_STRIDE * (1 + numbers.length);
      const buffer = device.createBuffer({ label, size, usage: USAGE.UNIFORM | USAGE.COPY_DST });
      uniform = buffer;
      const bytes = new ArrayBuffer(size);
      BLOCKS.pack(members, bytes);
      for (const [index, value] of numbers.entries()) {
        new Uint8Array(bytes).set(new Uint8Array(numberBytes(value)), NUMBER_STRIDE * (1 + index));
      }
      device.queue.writeBuffer(buffer, 0, bytes);
      let at = 0;
      const resources = tensors.map((bound) => {
        if (bound) return bound;
        at += NUMBER_STRIDE;
        return { buffer, offset: at, size: 4 };
      });
      const all = [{ buffer, size: NUMBER_STRIDE }, { buffer: blocks.buffer }, ...resources];
      const entries = all.map((resource, index) => ({
        binding: source.bindings[index].binding,
        resource,
      }));
      const encoder = device.createCommandEncoder({ label });
      const pass = encoder.beginComputePass({ label });
      pass.setPipeline(kernel.pipeline);
      pass.setBindGroup(0, device.createBindGroup({ label, layout: kernel.layout, entries }), [0]);
      pass.dispatchWorkgroups(x, Math.ceil(workgroups / x));
      pass.end();
      device.queue.submit([encoder.finish()]);
    });
    const captured = captures.flatMap((value) =>
      value instanceof Tensor ? [value.allocated] : [],
    );
    await settle([done, blocks.allocated, ...captured]);
  } catch (error) {
    blocks.destroy();
    throw error;
  } finally {
    uniform?.destroy();
  }
  return new BlockMask(blocks, maskFunction, options);
}

/**
 * A block mask from kinds that are known: [B, H, blocks of queries, blocks of keys] in row-major
 * order. Partial blocks are those in which `maskFunction` decides; without one there is no
 * difference between partial and full.
 */
export function blockMaskOf(
  device: GPUDevice,
  kinds: readonly BlockKind[],
  given: BlockMaskOptions & { readonly maskFunction?: MaskFunction },
): BlockMask {
  checkDevice(device);
  const taken = takeOptions("blockMaskOf", given, { ...BLOCK_MASK_OPTIONS, maskFunction: "any" });
  const options = resolveOptions(taken);
  const { batch, heads, label } = options;
  const { maskFunction } = taken;
  check(
    maskFunction === undefined || isMaskFunction(maskFunction),
    "argument",
    () => `${label}: maskFunction must come from maskFunction(), got ${show(maskFunction)}.`,
  );
  const [qBlocks, kvBlocks] = blocksOf(options);
  const count = batch * heads * qBlocks * kvBlocks;
  const list = elementsOfList<(typeof kinds)[number]>(kinds);
  check(
    list?.length === count,
    "argument",
    () =>
      `${label}: expected ${count} kinds [B, H, blocks of queries, blocks of keys] = [${[batch, heads, qBlocks, kvBlocks]}], got ${show(kinds)}.`,
  );
  const width = 1 + kvBlocks;
  const spec = resolveSpec(label, { shape: [batch, heads, qBlocks, width], dtype: "u32" });
  checkBindingLimit(label, "the list of blocks", device, spec);
  const words = new Uint32Array(batch * heads * qBlocks * width);
  list.forEach((kind, index) => {
    check(
      kind === "empty" || kind === "partial" || kind === "full",
      "argument",
      () => `${label}: kind ${index} must be "empty", "partial" or "full", got ${show(kind)}.`,
    );
    if (kind === "empty") return;
    const row = Math.floor(index / kvBlocks) * width;
    words[row] += 1;
    words[row + words[row]] = 2 * (index % kvBlocks) + Number(kind === "full");
  });
  const blocks = tensor(device, spec.shape, { dtype: "u32", data: words, label });
  return new BlockMask(blocks, maskFunction, options);
}

const blocksOf = ({ seqQ, seqKv, blockSize }: Required<BlockMaskOptions>) => [
  Math.ceil(seqQ / blockSize[0]),
  Math.ceil(seqKv / blockSize[1]),
];

/** The names of the options. */
const BLOCK_MASK_OPTIONS: OptionNames<BlockMaskOptions> = {
  seqQ: "number",
  seqKv: "number",
  batch: "number",
  heads: "number",
  blockSize: "any",
  queryOffset: "number",
  label: "string",
};

function resolveOptions(given: BlockMaskOptions): Required<BlockMaskOptions> {
  const { seqQ, seqKv, batch = 1, heads = 1, blockSize = [64, 64], label = "block mask" } = given;
  const { queryOffset = seqKv - seqQ } = given;
  for (const [name, value] of Object.entries({ seqQ, seqKv, batch, heads })) {
    check(
      Number.isInteger(value) && value >= 0 && value < 2 ** 29,
      "argument",
      () => `${label}: ${name} must be a whole number from 0 up to 2^29, got ${value}.`,
    );
  }
  check(
    Array.isArray(blockSize) &&
      blockSize.length === 2 &&
      isMultiple(blockSize[0], Q_TILE) &&
      isMultiple(blockSize[1], KV_TILE),
    "argument",
    () =>
      `${label}: blockSize must be [rows, keys], multiples of ${Q_TILE} and ${KV_TILE} up to ${LARGEST}, got ${show(blockSize)}.`,
  );
  check(
    Number.isInteger(queryOffset) && Math.abs(queryOffset) <= 2 ** 29,
    "argument",
    () => `${label}: queryOffset must be a whole number, got ${queryOffset}.`,
  );
  return { seqQ, seqKv, batch, heads, blockSize, queryOffset, label };
}

const isMaskFunction = (given: unknown) =>
  given instanceof AttentionFunction && given.kind === "mask";

const isMultiple = (value: number, of: number) =>
  Number.isInteger(value) && value > 0 && value <= LARGEST && value % of === 0;
