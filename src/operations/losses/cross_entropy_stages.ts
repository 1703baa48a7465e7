// The stages of a cross-entropy and of its gradient, which one kernel finds together.

import { crossEntropySpecialisation } from "../../kernels/losses/cross_entropy.ts";
import type { LossTerms } from "../../kernels/losses/loss_sums.ts";
import { rowKernel, rowWorkgroups } from "../../kernels/rows.ts";
import type { Caller, Stage } from "../../plan/operation.ts";
import { bindingBase, type ResolvedSpec } from "../../plan/specs.ts";
import type { PlanTensors } from "../../plan/tensors.ts";
import {
  alongRows,
  broadcastTo,
  denseRowNumbers,
  foldRows,
  lanesOf,
  layRows,
  rowNumbers,
} from "../row_axes.ts";
import type { ResolvedCrossEntropy } from "./cross_entropy_problem.ts";
import { lossSumStages, ONE, ownPartialSums } from "./reduction.ts";

/** What is computed: the loss, the gradient of the logits, or both. */
export interface CrossEntropyResults extends ResolvedCrossEntropy {
  readonly loss: ResolvedSpec | undefined;
  readonly dLogits: ResolvedSpec | undefined;
  /** The gradient of the loss. Default: 1. */
  readonly dLoss: ResolvedSpec | undefined;
}

/** Vec4s of so many rows. */
const itemsOf = (rows: number) => Math.ceil(rows / 4);

const rowCount = ({ shape }: ResolvedSpec) =>
  shape.slice(0, -1).reduce((product, size) => product * size, 1);

/**
 * Adds the memory of the plan. Its names: losses of rows are its workspace, sums of workgroups its
 * blocks, what gradients are divided by its tables, and a gradient of the loss of 1 its angles.
 */
export function ownCrossEntropyMemory(
  own: PlanTensors["own"],
  { logits, loss, dLogits, dLoss, reduction }: CrossEntropyResults,
): void {
  const rows = rowCount(logits);
  const mean = reduction === "mean";
  if (loss && reduction !== "none") own("workspace", [rows], {});
  if ((loss && reduction !== "none") || (dLogits && mean)) ownPartialSums(own, itemsOf(rows));
  if (dLogits) own("tables", [1], { data: [1] });
  if (dLogits && !dLoss) own("angles", [1], { data: [1] });
}

/** The stages, in their order. */
export function crossEntropyStages(
  results: CrossEntropyResults,
  { label, device }: Caller,
): Stage[] {
  const { logits, target, classWeights, loss, dLogits, dLoss, reduction } = results;
  const { shape } = logits;
  const single = reduction === "none";
  const { specs, rows, width } = foldRows<"source" | "o" | "bias" | "index" | "result">(
    label,
    {
      source: logits,
      o: dLogits ?? logits,
      index: alongRows(label, "target", target, shape),
      ...(loss && single && { result: alongRows(label, "loss", loss, shape) }),
      ...(dLogits && { bias: gradientOfRows(label, dLoss, shape, single) }),
    },
    1,
    { source: "logits", o: "dLogits", bias: "dLoss", index: "target", result: "loss" },
  );
  const { index, result, o, ...read } = specs;
  const shared = lanesOf(device, { specs: { o }, rows, width });
  const laid = layRows(
    device,
    { specs: { ...read, ...(dLogits && { o }) }, rows, width },
    {
      ignored: results.ignoreIndex,
      smoothing: results.labelSmoothing,
      class_weights_base: classWeights ? bindingBase(device, classWeights) : 0,
      class_weights_stride: classWeights?.strides[0] ?? 0,
      ...rowNumbers(device, "index", index as ResolvedSpec),
      ...(result ? rowNumbers(device, "result", result) : denseRowNumbers("result", o.shape)),
    },
  );
  const weighted = classWeights !== undefined;
  const names = {
    source: "logits",
    indices: "target",
    weights_of_classes: "classWeights",
    row_losses: "workspace",
    losses: single ? "loss" : "workspace",
    divisors: "tables",
    bias: dLoss ? "dLoss" : "angles",
    o: "dLogits",
  };
  const sum = (of: "rows" | "counts", into: string, base: number): Stage[] =>
    lossSumStages({
      terms: { of, weighted } satisfies LossTerms,
      loss: of === "rows",
      counted: reduction === "mean",
      items: itemsOf(rows),
      values: laid.params.values,
      names,
      into,
      base,
    });
  const main: Stage = {
    source: rowKernel(
      "cross_entropy",
      crossEntropySpecialisation(laid.accesses, {
        ...shared,
        smoothed: results.labelSmoothing > 0,
        weighted,
        loss: loss !== undefined,
      }),
    ),
    names,
    params: laid.params,
    workgroups: rowWorkgroups(rows, shared.lanes),
  };
  return [
    ...(dLogits && reduction === "mean" ? sum("counts", "tables", 0) : []),
    main,
    ...(loss && !single ? sum("rows", "loss", bindingBase(device, loss)) : []),
  ];
}

/** The gradient of each row's loss, broadcast along the row. */
function gradientOfRows(
  label: string,
  dLoss: ResolvedSpec | undefined,
  shape: readonly number[],
  single: boolean,
): ResolvedSpec {
  return dLoss && single
    ? alongRows(label, "dLoss", dLoss, shape)
    : broadcastTo(label, "dLoss", dLoss ?? ONE, shape);
}
