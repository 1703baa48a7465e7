// Rows of a table by their numbers: the plan, and the one-liner on top of it.

import { check } from "../../errors.ts";
import { type OptionNames, readOptions } from "../../given.ts";
import { type FloatTensor, resolveSpec, type Tensor } from "../../gpu/tensor.ts";
import { embeddingSpecialisation } from "../../kernels/embedding.ts";
import { pointwiseWorkgroups } from "../../kernels/pointwise.ts";
import { rowKernel } from "../../kernels/rows.ts";
import { type Caller, operation, optionsBeside, type Stage } from "../../plan/operation.ts";
import type { Plan } from "../../plan/plan.ts";
import { checkTensors, type RunOptions } from "../../plan/run.ts";
import {
  checkedSpec,
  expectApart,
  expectShape,
  FLOATS,
  type ResolvedSpec,
} from "../../plan/specs.ts";
import type { Dtype, TensorSpec } from "../../types.ts";
import { alongRows, foldRows, layRows, rowNumbers, withHeads } from "../row_axes.ts";

/**
 * The embedding that a plan is made for. Shapes and strides are fixed by the plan; memory is given
 * at encode.
 */
export interface EmbeddingProblem {
  /** [V, E] f32, f16 or bf16: the table. A tensor, or what it will look like. */
  readonly weight: TensorSpec;
  /** i32 or u32, of any shape: the numbers of rows, from 0 up to V - 1. */
  readonly ids: TensorSpec;
  /** Factor of the rows. Default 1; the Transformer has sqrt(E). */
  readonly scale?: number;
  /** [..., E] f32, f16 or bf16, with the axes of ids in front. Default: dense, the dtype of weight. */
  readonly output?: TensorSpec;
  /** Name of the plan's GPU objects in errors and captures. Default `"embedding"`. */
  readonly label?: string;
}

/** The names of all members of a problem. */
const EMBEDDING_PROBLEM: OptionNames<EmbeddingProblem> = {
  weight: "any",
  ids: "any",
  scale: "number",
  output: "any",
  label: "string",
};

/**
 * Memory for one run of a plan: tensors that look as the plan was told. The tensors that it was
 * made with are the default.
 */
export interface EmbeddingBindings {
  readonly weight?: Tensor;
  readonly ids?: Tensor;
  readonly output?: Tensor;
}

/** A compiled embedding. */
export type EmbeddingPlan = Plan<EmbeddingBindings>;

/** What numbers of rows and classes are stored as. */
export const IDS: readonly Dtype[] = ["i32", "u32"];

/**
 * Compiles an embedding, which takes rows of a table by their numbers:
 *
 * ```
 * output[..., :] = scale * weight[ids[...], :]
 * ```
 *
 * An id that the table has no row for, such as a negative one, gives a row of zeros: ids are on the
 * GPU, where nothing can refuse them. The product is f32. Lengths and strides compile nothing.
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const ids = { shape: [8, 128], dtype: "i32" } as const;
 * const plan = await planEmbedding(device, { weight: { shape: [50257, 768] }, ids });
 * plan.encode(pass, { weight, ids: tokens, output });
 */
export function planEmbedding(
  device: GPUDevice,
  problem: EmbeddingProblem,
): Promise<EmbeddingPlan> {
  return EMBEDDING.plan(device, problem);
}

interface ResolvedEmbedding {
  readonly weight: ResolvedSpec;
  readonly ids: ResolvedSpec;
  readonly output: ResolvedSpec;
  readonly scale: number;
}

const EMBEDDING = operation<
  EmbeddingProblem,
  EmbeddingBindings,
  ResolvedEmbedding,
  { readonly output: FloatTensor }
>({
  name: "embedding",
  problem: EMBEDDING_PROBLEM,
  resolve,
  tensors({ add }, { weight, ids, output }, problem) {
    add("output", output, problem.output, true);
    add("weight", weight, problem.weight);
    add("ids", ids, problem.ids);
  },
  kernel,
  results: ({ output }) => ({ output }),
});

/** What an embedding and its gradient check alike. */
export function resolveTable(
  label: string,
  problem: Pick<EmbeddingProblem, "weight" | "ids" | "scale">,
) {
  const { scale = 1 } = problem;
  const weight = checkedSpec(label, "weight", problem.weight, FLOATS);
  const ids = checkedSpec(label, "ids", problem.ids, IDS);
  check(
    weight.shape.length === 2,
    "argument",
    () => `${label}: weight must be [V, E], one row an id, got [${weight.shape.join(", ")}].`,
  );
  check(
    Number.isFinite(Math.fround(scale)),
    "argument",
    () => `${label}: scale must be a finite number of f32, got ${scale}.`,
  );
  return { weight, ids, scale, shape: [...ids.shape, weight.shape[1]] };
}

function resolve(problem: EmbeddingProblem, { label }: Caller): ResolvedEmbedding {
  const { weight, ids, scale, shape } = resolveTable(label, problem);
  const output = problem.output
    ? checkedSpec(label, "output", problem.output, FLOATS)
    : resolveSpec("output", { shape, dtype: weight.dtype });
  expectShape(label, "output", output, shape, "a row of weight for each id");
  expectApart(label, "output", output);
  return { weight, ids, output, scale };
}

function kernel(
  { weight, ids, output, scale }: ResolvedEmbedding,
  { label, device }: Caller,
): Stage {
  const index = alongRows(label, "ids", ids, output.shape);
  const { specs, rows, width } = foldRows<"o" | "index">(label, { o: output, index }, 1, {
    index: "ids",
  });
  const laid = layRows(
    device,
    { specs: { source: withHeads(weight), o: specs.o }, rows, width },
    {
      scale,
      table_rows: weight.shape[0],
      ...rowNumbers(device, "index", specs.index as ResolvedSpec),
    },
  );
  return {
    source: rowKernel("embedding", embeddingSpecialisation(laid.accesses)),
    names: { source: "weight", indices: "ids", o: "output" },
    params: laid.params,
    workgroups: pointwiseWorkgroups(rows, width),
  };
}

/** Options of {@link embedding}. */
export interface EmbeddingOptions extends RunOptions {
  /** Factor of the rows. Default 1. */
  readonly scale?: number;
  /**
   * Where the rows go. Default: a new dense tensor of the dtype of weight, which is the caller's to
   * destroy.
   */
  readonly output?: Tensor;
  /** Name in errors and captures. */
  readonly label?: string;
}

/** The names of the options. */
const EMBEDDING_OPTIONS = optionsBeside(EMBEDDING_PROBLEM, "weight", "ids");

/**
 * Takes rows of a table by their numbers. See {@link planEmbedding} for the formula and the rules.
 *
 * Resolves once the GPU has accepted the work; `output.read()` waits for the result itself.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param weight [V, E] f32, f16 or bf16
 * @param ids i32 or u32, of any shape
 * @returns `{ output }` [..., E]
 *
 * @example
 * const ids = tensor(device, [2, 3], { dtype: "i32", data: [5, 0, 7, 7, 1, 2] });
 * const { output } = await embedding(weight, ids); // [2, 3, E]
 */
export async function embedding(
  weight: Tensor,
  ids: Tensor,
  given: EmbeddingOptions = {},
): Promise<{ readonly output: FloatTensor }> {
  const name = "embedding";
  const options = await readOptions(name, given, EMBEDDING_OPTIONS);
  checkTensors(options.label ?? name, { weight, ids }, { output: options.output });
  const problem = { ...options, weight, ids };
  return EMBEDDING.run({ device: weight.device, name, problem, options });
}
