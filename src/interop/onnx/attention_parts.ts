// Parts that com.microsoft's attention operators share: heads of rows, packed projections, biases,
// and the call of attention.

import {
  type AttentionOptions,
  attention,
  attentionWeights,
  copyTensor,
  type Dtype,
  project,
  splitHeads,
  type Tensor,
  type WeightsOptions,
} from "../../index.ts";
import type { Call } from "./padding_mask.ts";

/** `num_heads`, which has no default. */
export function headsOf(call: Call, heads: number | undefined, name = "num_heads"): number {
  call.expect(
    heads !== undefined && heads > 0,
    () => `attribute ${name} must be 1 or more, got ${heads}`,
  );
  return heads as number;
}

/** Checks how many axes an input has; `shape` says which. */
export function expectRank(
  call: Call,
  name: string,
  given: Tensor,
  rank: number,
  shape: string,
): void {
  call.expect(given.shape.length === rank, () => `${name} must be ${shape}, got [${given.shape}]`);
}

/** Checks the shape of an input; `named` are its axes. */
export function expectAxes(
  call: Call,
  name: string,
  given: Tensor,
  shape: readonly number[],
  named: string,
): void {
  call.expect(
    given.shape.length === shape.length && shape.every((size, axis) => size === given.shape[axis]),
    () => `${name} must be ${named} = [${shape}], got [${given.shape}]`,
  );
}

/** Checks that two inputs were given, or neither. */
export function expectBoth(
  call: Call,
  [a, b]: readonly string[],
  given: readonly (Tensor | undefined)[],
): void {
  const count = given.filter((one) => one !== undefined).length;
  call.expect(count !== 1, () => `${a} and ${b} belong together; only one was given`);
}

/**
 * Waits for pieces of work that run at the same time. If one fails, the others are still waited
 * for, so that nothing is made after the call has freed its memory.
 */
export async function together<const Results extends readonly unknown[]>(
  work: {
    readonly [Index in keyof Results]: Promise<Results[Index]>;
  },
): Promise<Results> {
  await Promise.allSettled(work as readonly Promise<unknown>[]);
  return Promise.all(work as readonly Promise<unknown>[]) as unknown as Promise<Results>;
}

/** Widths of q, k and v in packed weights [in, q + k + v]: `qkv_hidden_sizes`, or thirds. */
export function packedWidths(
  call: Call,
  weights: Tensor,
  heads: number,
  sizes: readonly number[] | undefined,
): readonly [q: number, k: number, v: number] {
  expectRank(call, "weights", weights, 2, "[input hidden size, q + k + v]");
  const columns = weights.shape[1];
  const widths = sizes ?? [columns / 3, columns / 3, columns / 3];
  const [q, k, v] = widths;
  call.expect(
    widths.length === 3 && widths.every((width) => width >= 0 && width % heads === 0) && q === k,
    () =>
      sizes
        ? `attribute qkv_hidden_sizes must be three multiples of num_heads = ${heads}, the first two alike, got [${sizes}]`
        : `weights [${weights.shape}] are no q, k and v of one width for num_heads = ${heads}; qkv_hidden_sizes says others`,
  );
  call.expect(
    q + k + v === columns,
    () => `attribute qkv_hidden_sizes [${sizes}] must add up to the ${columns} columns of weights`,
  );
  return [q, k, v];
}

/** Takes the heads of q, k and v out of packed rows [B, S, q + k + v]. */
export function splitPacked(rows: Tensor, heads: number, [q, k, v]: readonly number[]) {
  const part = (start: number, width: number) =>
    splitHeads(rows.slice(2, start, start + width), heads);
  return { q: part(0, q), k: part(q, k), v: part(q + k, v) };
}

/**
 * input [..., in] times packed weights [in, W], plus a bias [W]: [..., W] f32, so that no digits
 * are lost.
 */
export async function projectPacked(
  call: Call,
  input: Tensor,
  weights: Tensor,
  bias: Tensor | undefined,
  [inputName, weightsName]: readonly [string, string] = ["input", "weights"],
): Promise<Tensor> {
  const [inner, columns] = weights.shape;
  call.expect(
    input.shape[input.shape.length - 1] === inner,
    () =>
      `${weightsName} must have as many rows as ${inputName} [${input.shape}] has columns, got [${weights.shape}]`,
  );
  if (bias) expectAxes(call, "bias", bias, [columns], "[q + k + v]");
  const output = call.make([...input.shape.slice(0, -1), columns]);
  await project(input, weights.permute(1, 0), { ...(bias && { bias }), output, label: call.label });
  return output;
}

/** Parts of a bias [q + k + v] as [H, 1, D]. */
export function splitBias(
  call: Call,
  bias: Tensor | undefined,
  heads: number,
  widths: readonly number[],
) {
  if (!bias) return [];
  expectAxes(call, "bias", bias, [widths.reduce((sum, width) => sum + width, 0)], "[q + k + v]");
  let end = 0;
  return widths.map((width) => {
    end += width;
    const [step] = bias.strides;
    const D = width / heads;
    return bias.view({
      shape: [heads, 1, D],
      strides: [D * step, step, step],
      offset: (end - width) * step,
    });
  });
}

/** Rows [B, H, S, D] plus a bias [H, 1, D], if there is one, as f32. */
export async function plusBias(
  call: Call,
  rows: Tensor,
  bias: Tensor | undefined,
): Promise<Tensor> {
  if (!bias) return rows;
  return call.own((await copyTensor(rows, { bias, dtype: "f32", label: call.label })).output);
}

/** `attention_bias` [B or 1, H or 1, S, T] as attention takes it: f32. */
export async function attentionBias(
  call: Call,
  bias: Tensor | undefined,
  shape: readonly [batch: number, heads: number, queries: number, keys: number],
): Promise<{ readonly bias?: Tensor }> {
  if (!bias) return {};
  call.expect(
    bias.shape.length === 4 &&
      shape.every(
        (size, axis) => bias.shape[axis] === size || (axis < 2 && bias.shape[axis] === 1),
      ),
    () => `attention_bias must be [B or 1, H or 1, S, T] = [${shape}], got [${bias.shape}]`,
  );
  return { bias: await cast(call, bias, "f32") };
}

/** Converts a tensor to a dtype. */
export async function cast(call: Call, x: Tensor, dtype: Dtype): Promise<Tensor> {
  if (x.dtype === dtype) return x;
  return call.own((await copyTensor(x, { dtype, label: call.label })).output);
}

/** Queries and keys [B, H, rows, D]. */
interface Compared {
  readonly q: Tensor;
  readonly k: Tensor;
}

/**
 * Heads without channels have scores of 0, as sums of no products. The engine gets them as a
 * channel of zeros.
 */
function withChannels<Options extends Pick<AttentionOptions, "scale" | "similarity">>(
  call: Call,
  { q, k }: Compared,
  options: Options,
): Compared & { readonly options: Options } {
  if (q.shape[3] > 0) return { q, k, options };
  const [zeroQ, zeroK] = [q, k].map(({ shape }) => call.make([...shape.slice(0, 3), 1]));
  const { similarity: _, ...rest } = options;
  return { q: zeroQ, k: zeroK, options: { ...rest, scale: 1 } as Options };
}

/** Computes attention into `output`. Without heads, rows or channels there is nothing to do. */
export async function attend(
  call: Call,
  { v, ...compared }: Compared & { readonly v: Tensor },
  given: AttentionOptions & { readonly output: Tensor },
): Promise<void> {
  if (given.output.size === 0) return;
  const { q, k, options } = withChannels(call, compared, given);
  await attention(q, k, v, { label: call.label, ...options });
}

/** Computes weights or scores [B, H, S, T] into `output` or a new tensor. */
export async function weightsOf(
  call: Call,
  compared: Compared,
  given: WeightsOptions,
): Promise<Tensor> {
  const [batch, heads, queries] = compared.q.shape;
  const output = given.output ?? call.make([batch, heads, queries, compared.k.shape[2]]);
  if (output.size === 0) return output;
  const { q, k, options } = withChannels(call, compared, given);
  return attentionWeights(q, k, { label: call.label, ...options, output });
}

/**
 * Computes attention of heads [B, H, S, D] into rows [B, S, H * Dv]: into those that are given, or
 * into a new tensor of a dtype.
 */
export async function attendRows(
  call: Call,
  { q, k, v }: { readonly q: Tensor; readonly k: Tensor; readonly v: Tensor },
  options: AttentionOptions,
  rows: Tensor | Dtype,
): Promise<Tensor> {
  const [batch, heads, queries] = q.shape;
  const into =
    typeof rows === "string" ? call.make([batch, queries, heads * v.shape[3]], rows) : rows;
  await attend(call, { q, k, v }, { ...options, output: splitHeads(into, heads) });
  return into;
}

/** The option `scale`; an attribute of 0 means the default. */
export const scaleOf = (scale: number | undefined) => (scale ? { scale } : {});
