// The memory and the kernels of the gradients of what a score function captures.

import { check, show } from "../../errors.ts";
import { tensor } from "../../gpu/make_tensor.ts";
import { resolveSpec, type Tensor } from "../../gpu/tensor.ts";
import type { BackwardSpecialisation } from "../../kernels/gradients/backward.ts";
import type { BackwardTile } from "../../kernels/gradients/backward_tiles.ts";
import {
  capturedSumsKernel,
  capturesKernel,
  STAGE,
  SUM_ELEMENTS,
  sumWords,
} from "../../kernels/gradients/captures.ts";
import type { FunctionText } from "../../kernels/slots.ts";
import type { Operands } from "../../plan/operand.ts";
import type { PlanHooks } from "../../plan/plan.ts";
import { checkBindingLimit } from "../../plan/specs.ts";
import type { Asked, PlanMemory } from "../memory.ts";
import type { WantedCapture } from "./captures.ts";
import type { ResolvedBackward } from "./problem.ts";
import type { BackwardStage } from "./stages.ts";

const OPERAND = "dCaptures.";
const SUMS = "sums";

/** The tensors that the gradients go to. */
export const askedOf = (wanted: readonly WantedCapture[]): Asked[] =>
  wanted.map(({ name, spec, given }) => ({ name: OPERAND + name, spec, given, written: true }));

/** Words of the sums of each capture. */
const strideOf = (wanted: readonly WantedCapture[]) =>
  sumWords(Math.max(0, ...wanted.map(({ elements }) => elements)));

/** The sums of a plan, before any memory is taken. */
export function checkSums(
  label: string,
  device: GPUDevice,
  wanted: readonly WantedCapture[],
): number {
  const words = wanted.length * strideOf(wanted);
  const spec = resolveSpec(label, { shape: [words], dtype: "u32" });
  checkBindingLimit(label, "the sums of dCaptures", device, spec);
  return words;
}

/** The memory of a plan with that of sums. */
export function withSums(
  device: GPUDevice,
  label: string,
  memory: PlanMemory,
  words: number,
): PlanMemory {
  if (!words) return memory;
  const made = tensor(device, [words], { dtype: "u32", label: `${label} sums` });
  const operand = { spec: made, base: 0, fallback: made, written: true };
  return {
    ...memory,
    operands: new Map([...memory.operands, [SUMS, operand]]),
    owned: [...memory.owned, made],
  };
}

/** The members of the gradients' uniform that tell how sums are kept. */
export function captureParams(
  wanted: readonly WantedCapture[],
  {
    heads,
    batch,
    seqQ,
    mostKeys,
  }: { heads: number; batch: number; seqQ: number; mostKeys: number },
) {
  const reads = Math.max(1, ...wanted.map((one) => one.reads));
  const terms = Math.max(2, heads * batch * seqQ * mostKeys * reads);
  return {
    capture_stride: strideOf(wanted),
    capture_room: Math.max(24, 62 - Math.ceil(Math.log2(terms))),
  };
}

/**
 * The kernels. They come after that of the gradients of queries, which completes the statistics of
 * rows.
 */
export function captureStages(
  resolved: ResolvedBackward,
  operands: Operands,
  {
    backward,
    tile,
    score,
  }: {
    /** The stages of the gradients; that of queries, or of their factors, covers the same scores. */
    readonly backward: readonly BackwardStage[];
    readonly tile: BackwardTile;
    /** The score function with derivatives by what is wanted. */
    readonly score?: FunctionText;
  },
): BackwardStage[] {
  const { dCaptures: wanted, seqQ, mostKeys, headDim, vDim } = resolved;
  if (!wanted.length) return [];
  const { names, views, slots } = backward.find(({ slots }) =>
    ["queries", "factors"].includes((slots as BackwardSpecialisation).kernel),
  ) as BackwardStage;
  const reads = wanted.reduce((sum, one) => sum + one.reads, 0);
  const source = capturesKernel({
    ...(slots as BackwardSpecialisation),
    ...(score && { score }),
    kernel: "queries",
    tile,
    reads,
  });
  const stride = strideOf(wanted);
  const ownRows = tile.rows * tile.lanes;
  const over = (stage: number): BackwardStage => ({
    source,
    names,
    views,
    slots,
    places: { stage },
    grid: {
      qTile: ownRows,
      qTiles: Math.ceil(seqQ / ownRows),
      vSplits: 1,
      flops: 2 * ownRows * mostKeys * (headDim + vDim),
    },
  });
  const each = (stage: number): BackwardStage[] =>
    wanted.flatMap(({ name, elements }, index) => {
      if (!elements) return [];
      return {
        source: capturedSumsKernel(),
        names: { o: OPERAND + name },
        views: {},
        slots,
        places: {
          stage,
          total_q: elements,
          q_base: index * stride,
          o_base: operands.get(OPERAND + name)?.base ?? 0,
        },
        problem: { ...resolved, batch: 1 },
        grid: {
          qTile: 1,
          qTiles: Math.ceil(elements / SUM_ELEMENTS),
          vSplits: 1,
          heads: 1,
          flops: SUM_ELEMENTS,
        },
      };
    });
  return [...each(STAGE.clear), over(STAGE.largest), over(STAGE.sum), ...each(STAGE.finish)];
}

/** The bindings of gradients of captures by their names. */
interface CaptureBindings {
  readonly dCaptures?: Readonly<Record<string, Tensor>>;
}

/** Hooks that know the gradients of captures. */
export function captureHooks<Bindings extends CaptureBindings>(
  label: string,
  wanted: readonly WantedCapture[],
  hooks: PlanHooks<Bindings>,
): PlanHooks<Bindings> {
  return {
    ...hooks,
    bindable: new Set([...hooks.bindable].filter((name) => name !== SUMS)),
    others: [...(hooks.others ?? []), "dCaptures"],
    boundBy(bindings, name) {
      if (name === SUMS) return undefined;
      return name.startsWith(OPERAND)
        ? bindings.dCaptures?.[name.slice(OPERAND.length)]
        : hooks.boundBy(bindings, name);
    },
    check(bindings) {
      hooks.check?.(bindings);
      const unknown = Object.keys(bindings.dCaptures ?? {}).find(
        (name) => !wanted.some((one) => one.name === name),
      );
      check(
        unknown === undefined,
        "argument",
        () =>
          `${label}: the plan has no gradient of a capture ${show(unknown)}; it has those of ${wanted.map(({ name }) => name).join(", ") || "none"}.`,
      );
    },
  };
}
