// The dispatches of an optimiser, and the memory that they need.

import { settle } from "../../gpu/buffers.ts";
import { tensor } from "../../gpu/make_tensor.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import {
  CHUNK_PARAMS,
  MUON_STAGE,
  NORM_PARAMS,
  type OptimizerKernel,
  optimizerKernel,
  PURPOSE,
  SCHEDULE_PARAMS,
} from "../../kernels/training/optimizer.ts";
import type { UniformValues } from "../../kernels/uniform.ts";
import type { Caller } from "../../plan/operation.ts";
import {
  adjustedRate,
  allocateMuon,
  collectStacks,
  type MuonMemory,
  orthogonalSteps,
  type Stack,
} from "./muon.ts";
import { type Placed, type ResolvedGroup, ruleOf } from "./resolve.ts";
import {
  allocateState,
  collectRuns,
  type Rows,
  type Run,
  type RunState,
  stateNames,
  Table,
} from "./runs.ts";
import type { Bound, Part, Step } from "./sequence.ts";

/** What the dispatches are made for. */
export interface Order {
  readonly groups: readonly ResolvedGroup[];
  readonly placed: readonly Placed[];
  readonly small: Readonly<Record<"step" | "lr" | "rates" | "clipping" | "groups", Tensor>>;
  /** Undefined if gradients aren't clipped. */
  readonly maxNorm: number | undefined;
  /** Whether an update is left out if the norm of its gradients is not finite. */
  readonly skips: boolean;
  readonly schedule: UniformValues;
  readonly accumulationSteps: number;
  /** Where tensors go that have to be destroyed, and plans. */
  readonly owned: Tensor[];
  readonly plans: { destroy(): void }[];
}

/** A run, its state, and its rows in the table for an update and for an accumulation. */
interface LaidRun {
  readonly run: Run;
  readonly state: RunState;
  readonly rows: Rows;
  readonly given: Rows;
  /** The gradients that updates read. */
  readonly gradients: Bound | Tensor;
  /** The stack of the run's matrices, and the factor of their rates. */
  readonly muon: { readonly stack: number; readonly scale: number } | undefined;
}

/** Makes the lists of steps of an update and of an accumulation, and the state by parameters. */
export async function buildSteps(caller: Caller, order: Order) {
  const { device, label } = caller;
  const { placed, small, accumulationSteps, owned } = order;
  const accumulates = accumulationSteps > 1;
  const { runs, stacks, muonOf } = arrange(device, order);
  const table = new Table();
  const laid = runs.map((run): LaidRun => {
    const state = allocateState(device, label, run, accumulates, owned);
    const given = table.add(run, "given");
    return {
      run,
      state,
      given,
      rows: accumulates ? table.add(run, "like state") : given,
      gradients: state.whole.accumulated_gradient ?? run.gradients,
      muon: muonOf.get(run),
    };
  });
  const empty = (shape: readonly number[], name: string): Tensor => {
    owned.push(tensor(device, shape, { label: `${label} ${name}` }));
    return owned[owned.length - 1];
  };
  const stackRows = stacks.map(({ matrices, rows, columns }) =>
    table.addStack(matrices, rows, columns),
  );
  const memory = stacks.length ? allocateMuon(caller, stacks, owned) : undefined;
  const chunks = laid.reduce((sum, { rows }) => sum + rows.chunks, 0);
  const partials = tensor(device, [Math.max(1, chunks)], { label: `${label} partial sums` });
  const words = table.words();
  const entries = tensor(device, [Math.max(8, words.length)], {
    dtype: "u32",
    data: words.length ? words : new Uint32Array(8),
    label: `${label} tensors`,
  });
  owned.push(partials, entries);
  await settle(owned.map(({ allocated }) => allocated));

  const skip = order.skips ? 1 : 0;
  const common = { entries, groups: small.groups, clipping: small.clipping };
  const step = (
    kernel: OptimizerKernel,
    { first, count, chunks: workgroups }: Rows,
    values: UniformValues,
    bound: Step["bound"],
  ): Step => ({
    source: optimizerKernel(kernel),
    struct: CHUNK_PARAMS,
    values: { chunks: workgroups, first_entry: first, entries: count, skip, ...values },
    workgroups,
    bound: { ...common, ...bound },
  });
  const added = laid.map(({ run, state, given }) => {
    const bound = { gradients: run.gradients, ...state.whole };
    return step("accumulate", given, { scale: 1 / accumulationSteps }, bound);
  });
  const accumulate = accumulates ? added : [];
  const update: Part[] = [...accumulate];
  update.push(...clipSteps(order, laid, partials, step));
  update.push({
    source: optimizerKernel("advance"),
    struct: SCHEDULE_PARAMS,
    values: { ...order.schedule, groups: order.groups.length, skip },
    workgroups: 1,
    bound: {
      lr: small.lr,
      rates: small.rates,
      step_count: small.step,
      groups: small.groups,
      clipping: small.clipping,
    },
  });
  const clear = accumulates ? 1 : 0;
  for (const { run, rows, state, gradients } of laid) {
    const bound = { parameters: run.parameters, gradients, ...state.whole };
    if (run.rule !== "muon") update.push(step(run.rule, rows, { clear }, bound));
  }
  for (const [index, stack] of stacks.entries()) {
    const members = laid.filter(({ muon }) => muon?.stack === index);
    const steps = await muonSteps(caller, { stack, rows: stackRows[index], members }, memory, {
      clear,
      step,
      plans: order.plans,
    });
    update.push(...steps);
  }
  const state = placed.map(({ parameter: { size, shape }, group }) => {
    // Without elements a parameter is in no run, but has a state that can be saved.
    const names = size ? [] : stateNames(ruleOf(order.groups[group]), accumulates);
    return Object.fromEntries(names.map((name) => [name, empty(shape, name)]));
  });
  for (const { state: of } of laid) for (const [index, views] of of.views) state[index] = views;
  return { update, accumulate, state };
}

type MakeStep = (
  kernel: OptimizerKernel,
  rows: Rows,
  values: UniformValues,
  bound: Step["bound"],
) => Step;

/** Groups parameters into runs, and matrices of Muon into stacks. */
function arrange(device: GPUDevice, { groups, placed }: Order) {
  const { runs, add } = collectRuns(device);
  const { stacks, add: addMatrix } = collectStacks(device);
  const details = new Map<number, { stack: number; scale: number }>();
  for (const [index, { parameter, gradient, group }] of placed.entries()) {
    const { settings } = groups[group];
    const rule = ruleOf(groups[group]);
    let matrix = 0;
    let detail = "";
    if (rule === "muon" && parameter.size) {
      const at = addMatrix(parameter.shape, settings as Stack["settings"]);
      const scale = adjustedRate(parameter.shape, settings.adjustLr);
      matrix = at.matrix;
      details.set(index, { stack: at.stack, scale });
      detail = `${at.stack} ${scale}`;
    }
    add(rule, detail, { index, parameter, gradient, group, matrix });
  }
  const muonOf = new Map(runs.map((run) => [run, details.get(run.members[0].index)]));
  return { runs, stacks, muonOf };
}

/** The steps that measure the norm of all gradients, and find the factor that clips them. */
function clipSteps(
  { maxNorm, small }: Order,
  laid: readonly LaidRun[],
  partials: Tensor,
  step: MakeStep,
): Step[] {
  if (maxNorm === undefined) return [];
  let first = 0;
  const sums = laid.map(({ rows, gradients }) => {
    const firstPartial = first;
    first += rows.chunks;
    return step("norm", rows, { first_partial: firstPartial }, { gradients, partials });
  });
  const isBound = maxNorm <= 3.4e38;
  const total: Step = {
    source: optimizerKernel("norm_total"),
    struct: NORM_PARAMS,
    values: {
      norms: 1,
      first_partial: 0,
      partials: first,
      purpose: isBound ? PURPOSE.clip : PURPOSE.measure,
      bound: isBound ? maxNorm : 0,
    },
    workgroups: 1,
    bound: { partials, norms: small.clipping },
  };
  return [...sums, total];
}

/** The steps of a stack of matrices: momentum, orthogonal matrices, update. */
async function muonSteps(
  caller: Caller,
  of: { readonly stack: Stack; readonly rows: Rows; readonly members: readonly LaidRun[] },
  memory: MuonMemory | undefined,
  with_: { readonly clear: number; readonly step: MakeStep; readonly plans: Order["plans"] },
): Promise<Part[]> {
  const { stack, rows, members } = of;
  const { clear, step, plans } = with_;
  if (!memory) return [];
  const { norms, partials } = memory;
  const pass = (
    { run, state, gradients, muon }: LaidRun,
    over: Rows,
    stage: number,
    matrices: Tensor,
  ) => {
    const bound = { parameters: run.parameters, gradients, ...state.whole, matrices, norms };
    return step("muon", over, { stage, clear, scale: muon?.scale ?? 1 }, bound);
  };
  const [before] = memory.matrices;
  const mixed = members.map((one) => pass(one, one.rows, MUON_STAGE.momentum, before));
  const chunks = (kernel: "norm" | "muon", stage: number) =>
    kernel === "norm"
      ? step("norm", rows, { first_partial: 0 }, { gradients: before, partials })
      : pass(members[0], rows, stage, before);
  const { steps, result } = await orthogonalSteps(caller, stack, memory, chunks, plans);
  const updates = members.map((one) => pass(one, one.rows, MUON_STAGE.update, result));
  return [...mixed, ...steps, ...updates];
}
