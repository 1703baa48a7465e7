// Rows of a table by their numbers: the plan, and the one-liner on top of it.

import { check } from "../../errors.ts";
import { type OptionNames, readOptions } from "../../given.ts";
import { type FloatTensor, resolveSpec, type Tensor } from "../../gpu/tensor.ts";
import { embeddingSpecialisation } from "../../kernels/embedding.ts";
import type { WeightIntegers } from "../../kernels/matmul.ts";
import { pointwiseWorkgroups } from "../../kernels/pointwise.ts";
import { rowKernel } from "../../kernels/rows.ts";
import { addresses } from "../../plan/access.ts";
import { type Caller, operation, optionsBeside, type Stage } from "../../plan/operation.ts";
import type { Plan } from "../../plan/plan.ts";
import { checkTensors, type RunOptions } from "../../plan/run.ts";
import {
  bindingBase,
  checkedSpec,
  expectApart,
  expectShape,
  FLOATS,
  type ResolvedSpec,
} from "../../plan/specs.ts";
import type { Dtype, TensorSpec } from "../../types.ts";
import {
  checkedIntegers,
  checkedWords,
  integersIn,
  type WeightQuantisation,
} from "../products/weight_integers.ts";
import { alongRows, foldRows, layRows, rowNumbers, withHeads } from "../row_axes.ts";

/**
 * The embedding that a plan is made for. Shapes and strides are fixed by the plan; memory is given
 * at encode.
 */
export interface EmbeddingProblem {
  /** [V, E] f32, f16 or bf16: the table. A tensor, or what it will look like. */
  readonly weight: TensorSpec;
  /**
   * How integers stand for the elements of the table, which is then u32 [V, words]: see
   * {@link WeightQuantisation}. Default: they are floats.
   */
  readonly quantised?: WeightQuantisation;
  /** i32 or u32, of any shape: the numbers of rows, from 0 up to V - 1. */
  readonly ids: TensorSpec;
  /** Factor of the rows. Default 1; the Transformer has sqrt(E). */
  readonly scale?: number;
  /**
   * [..., E] f32, f16 or bf16, with the axes of ids in front. Default: dense, of the dtype of
   * weight, or f32 if that is of integers.
   */
  readonly output?: TensorSpec;
  /** Name of the plan's GPU objects in errors and captures. Default `"embedding"`. */
  readonly label?: string;
}

/** The names of all members of a problem. */
const EMBEDDING_PROBLEM: OptionNames<EmbeddingProblem> = {
  weight: "any",
  quantised: "any",
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
  /** As the caller gave it. */
  readonly weight: ResolvedSpec;
  readonly quantised: WeightIntegers | undefined;
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
  problem: Pick<EmbeddingProblem, "weight" | "quantised" | "ids" | "scale">,
) {
  const { scale = 1 } = problem;
  const quantised = problem.quantised && checkedIntegers(label, problem.quantised);
  const weight = quantised
    ? checkedWords(label, problem.weight)
    : checkedSpec(label, "weight", problem.weight, FLOATS);
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
  const width = quantised ? integersIn(weight.shape[1], quantised) : weight.shape[1];
  check(
    width !== undefined,
    "argument",
    () =>
      `${label}: no row has ${weight.shape[1]} words of int${quantised?.bits} with a scale for each ${quantised?.group}.`,
  );
  return { weight, quantised, ids, scale, shape: [...ids.shape, width] };
}

function resolve(problem: EmbeddingProblem, { label }: Caller): ResolvedEmbedding {
  const { weight, quantised, ids, scale, shape } = resolveTable(label, problem);
  const output = problem.output
    ? checkedSpec(label, "output", problem.output, FLOATS)
    : resolveSpec("output", { shape, dtype: quantised ? "f32" : weight.dtype });
  expectShape(label, "output", output, shape, "a row of weight for each id");
  expectApart(label, "output", output);
  return { weight, quantised, ids, output, scale };
}

function kernel(
  { weight, quantised, ids, output, scale }: ResolvedEmbedding,
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
  const { struct, values } = laid.params;
  const table = { spec: withHeads(weight), base: bindingBase(device, weight) };
  // Rows of integers lie where words say, however many of them make a vec4.
  const words = quantised && addresses("source", "n", table, false, { layout: "bhmd" });
  const accesses = quantised ? { ...laid.accesses, source: "words" as const } : laid.accesses;
  return {
    source: rowKernel("embedding", embeddingSpecialisation(accesses, quantised)),
    names: { source: "weight", indices: "ids", o: "output" },
    params: { struct, values: { ...values, ...words } },
    workgroups: pointwiseWorkgroups(rows, width),
  };
}

/** Options of {@link embedding}. */
export interface EmbeddingOptions extends RunOptions {
  /** How integers stand for the elements of the table. Default: they are floats. */
  readonly quantised?: WeightQuantisation;
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
