// Options that are a user's functions or block masks: their checks, and the tensors and numbers
// that they capture.

import { check, show } from "../errors.ts";
import {
  AttentionFunction,
  checkCaptureNames,
  type MaskFunction,
} from "../functions/attention_function.ts";
import { BlockMask } from "../functions/block_mask.ts";
import { checkCaptured, numberBytes } from "../functions/captures.ts";
import { Tensor } from "../gpu/tensor.ts";
import type { DescribedProblem, Descriptor } from "./descriptor.ts";

const isFunction = (given: unknown, kind: string) =>
  given instanceof AttentionFunction && given.kind === kind;

/** Describes `scoreFunction`. */
export const SCORE_FUNCTION: Descriptor = ({ label, options: { scoreFunction } }) => {
  check(
    scoreFunction === undefined || isFunction(scoreFunction, "score"),
    "argument",
    () => `${label}: scoreFunction must come from scoreFunction(), got ${show(scoreFunction)}.`,
  );
  return (
    scoreFunction && {
      keeps: "nothing",
      slots: { score: scoreFunction.text },
      calls: scoreFunction,
    }
  );
};

/** Describes `maskFunction`, also for the function of a block mask. */
export const MASK_FUNCTION: Descriptor = ({ label, options }) => {
  const { scoreFunction, maskFunction, blockMask } = options;
  check(
    maskFunction === undefined || isFunction(maskFunction, "mask"),
    "argument",
    () => `${label}: maskFunction must come from maskFunction(), got ${show(maskFunction)}.`,
  );
  checkCaptureNames(label, [scoreFunction, maskFunction]);
  const used: MaskFunction | undefined =
    blockMask instanceof BlockMask ? blockMask.maskFunction : maskFunction;
  return used && { keeps: "nothing", slots: { mask: used.text }, calls: used };
};

/** Describes `blockMask`, without its function. */
export const BLOCK_MASK: Descriptor = (problem) => {
  const { blockMask } = problem.options;
  if (blockMask === undefined) return undefined;
  checkBlockMask(problem, blockMask);
  const { blocks, options } = blockMask;
  const { shape, strides } = blocks;
  const [b, h] = strides.map((stride, axis) => (shape[axis] > 1 ? stride : 0));
  const [block_q, block_kv] = options.blockSize;
  return {
    keeps: "scores",
    slots: { blocks: true },
    params: () => ({
      block_q,
      block_kv,
      blocks_stride_b: b,
      blocks_stride_h: h,
      blocks_stride_m: strides[2],
    }),
    operand: { name: "blocks", spec: blocks, fallback: blocks },
  };
};

/** Throws FoveaError unless the value is a block mask that was made for these sizes. */
function checkBlockMask(
  { label, options, sizes, entries, cache, alignEnd, offset }: DescribedProblem,
  blockMask: BlockMask,
): void {
  const { batch, heads, seqQ, seqKv } = sizes;
  check(
    blockMask instanceof BlockMask,
    "argument",
    () =>
      `${label}: blockMask must come from createBlockMask() or blockMaskOf(), got ${show(blockMask)}.`,
  );
  check(
    options.maskFunction === undefined,
    "argument",
    () =>
      `${label}: a block mask brings its own mask function; leave maskFunction out, or make the block mask from both with allOf().`,
  );
  const made = blockMask.options;
  const oneOr = (size: number, all: number) => size === all || size === 1;
  check(
    made.seqQ === seqQ &&
      made.seqKv === seqKv &&
      oneOr(made.batch, batch) &&
      oneOr(made.heads, heads),
    "argument",
    () =>
      `${label}: the block mask is for B = ${made.batch}, H = ${made.heads}, M = ${made.seqQ}, N = ${made.seqKv}; the problem has B = ${batch}, H = ${heads}, M = ${seqQ}, N = ${seqKv}.`,
  );
  check(
    !cache && !entries.kind,
    "argument",
    () =>
      `${label}: a block mask can't be combined with lengths or positions of batch entries; use its mask function.`,
  );
  const first = alignEnd ? seqKv - seqQ : offset;
  check(
    first === made.queryOffset,
    "argument",
    () =>
      `${label}: the block mask puts the first query at position ${made.queryOffset}, the problem at ${first}. Make the block mask with the same queryOffset.`,
  );
  checkCaptureNames(label, [options.scoreFunction, blockMask.maskFunction]);
}

/**
 * Calls `add` with the name of each captured tensor, and gives captured numbers as uniforms hold
 * them.
 */
export function capturesOf(
  device: GPUDevice,
  label: string,
  functions: readonly AttentionFunction[],
  add: (name: string, spec: Tensor, fallback: Tensor) => void,
): (readonly [name: string, bytes: ArrayBuffer])[] {
  const numbers: [string, ArrayBuffer][] = [];
  for (const { captures } of functions) {
    for (const [name, value] of Object.entries(captures)) {
      if (value instanceof Tensor) {
        checkCaptured(label, name, device, value);
        add(`captures.${name}`, value, value);
      } else numbers.push([`captures.${name}`, numberBytes(value)]);
    }
  }
  return numbers;
}
