// Finds the blocks of scores that a mask leaves, once, on the GPU.

import { check, show } from "../errors.ts";
import { checkDevice, guarded, settle, USAGE } from "../gpu/buffers.ts";
import { tensor } from "../gpu/make_tensor.ts";
import { checkBindings, compileKernel } from "../gpu/pipelines.ts";
import { resolveSpec, Tensor } from "../gpu/tensor.ts";
import { BLOCKS, blockMaskKernel } from "../kernels/block_mask.ts";
import { takeOptions } from "../options.ts";
import { checkOperand } from "../plan/operand_checks.ts";
import { bindingRange, checkBindingLimit } from "../plan/specs.ts";
import type { MaskFunction } from "./attention_function.ts";
import {
  BLOCK_MASK_OPTIONS,
  BlockMask,
  type BlockMaskOptions,
  blocksOf,
  isMaskFunction,
  resolveBlockMask,
} from "./block_mask.ts";
import { checkCaptured, NUMBER_STRIDE, numberBytes } from "./captures.ts";

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
  const options = resolveBlockMask(takeOptions("createBlockMask", given, BLOCK_MASK_OPTIONS));
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
