// Block masks say which blocks of scores a mask leaves. The caller keeps them. create_block_mask.ts
// finds them on the GPU.

import { check, show } from "../errors.ts";
import { elementsOfList, type OptionNames } from "../given.ts";
import { checkDevice } from "../gpu/buffers.ts";
import { tensor } from "../gpu/make_tensor.ts";
import { resolveSpec, type Tensor } from "../gpu/tensor.ts";
import { takeOptions } from "../options.ts";
import { checkBindingLimit } from "../plan/specs.ts";
import { AttentionFunction, type MaskFunction } from "./attention_function.ts";

/** Rows and keys of a block are multiples of these, because kernels have tiles of them. */
const Q_TILE = 64;
const KV_TILE = 32;
/** The most rows or keys of a block, so that it has fewer than 2^32 scores. */
const LARGEST = 2 ** 15;

/** The scores that a block mask is for. */
export interface BlockMaskOptions {
  /** M, queries. */
  readonly seqQ: number;
  /** N, keys. */
  readonly seqKv: number;
  /** Batch entries and heads that differ from each other. Default 1: one mask for all. */
  readonly batch?: number;
  /** Heads that differ from each other, in the same way. Default 1: one mask for all. */
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
 * function in partial ones only. It holds B * H * ceil(M / rows) * (1 + ceil(N / keys)) words. Make
 * one with {@link createBlockMask} or {@link blockMaskOf}; it is the caller's to `destroy()`.
 */
export class BlockMask {
  /**
   * [B, H, blocks of queries, 1 + blocks of keys] u32: the number of blocks that are not empty,
   * then 2 * block + (1 if full) for each of them.
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
 * A block mask from kinds that are known: [B, H, blocks of queries, blocks of keys] in row-major
 * order. In partial blocks `maskFunction` decides; without it, partial blocks are the same as full
 * ones.
 */
export function blockMaskOf(
  device: GPUDevice,
  kinds: readonly BlockKind[],
  given: BlockMaskOptions & { readonly maskFunction?: MaskFunction },
): BlockMask {
  checkDevice(device);
  const taken = takeOptions("blockMaskOf", given, { ...BLOCK_MASK_OPTIONS, maskFunction: "any" });
  const options = resolveBlockMask(taken);
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

/** The blocks of queries and of keys. */
export const blocksOf = ({ seqQ, seqKv, blockSize }: Required<BlockMaskOptions>) => [
  Math.ceil(seqQ / blockSize[0]),
  Math.ceil(seqKv / blockSize[1]),
];

/** The names of the options. */
export const BLOCK_MASK_OPTIONS: OptionNames<BlockMaskOptions> = {
  seqQ: "number",
  seqKv: "number",
  batch: "number",
  heads: "number",
  blockSize: "any",
  queryOffset: "number",
  label: "string",
};

/** Checks the options and fills in their defaults. Throws FoveaError("argument"). */
export function resolveBlockMask(given: BlockMaskOptions): Required<BlockMaskOptions> {
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

export const isMaskFunction = (given: unknown) =>
  given instanceof AttentionFunction && given.kind === "mask";

const isMultiple = (value: number, of: number) =>
  Number.isInteger(value) && value > 0 && value <= LARGEST && value % of === 0;
