// From a checked problem of gradients to a plan: its kernels, its uniforms, its bindings.

import { FoveaError } from "../../errors.ts";
import { checkDevice, paramsBuffer, settle } from "../../gpu/buffers.ts";
import { tileLimits } from "../../gpu/device.ts";
import { checkBindings, compileKernel } from "../../gpu/pipelines.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import { isAligned } from "../../kernels/access.ts";
import { GRADIENT } from "../../kernels/gradients/backward.ts";
import { chooseBackwardTile } from "../../kernels/gradients/backward_tiles.ts";
import { accessOf, addresses, rowAddresses } from "../../plan/access.ts";
import type { Operand } from "../../plan/operand.ts";
import { memoryOf } from "../../plan/operand_checks.ts";
import { type CompiledStage, Plan, type PlanHooks } from "../../plan/plan.ts";
import { type ResolvedSpec, reorder } from "../../plan/specs.ts";
import { UNIFORM_STRIDE } from "../../plan/work.ts";
import { loadExtension } from "../../scores/resolve.ts";
import { type AttentionBindings, attentionHooks } from "../bindings.ts";
import { normStages, slotChoice } from "../build.ts";
import { type Asked, operandsOf, type PlanMemory } from "../memory.ts";
import { dispatchesOf } from "../uniform.ts";
import {
  askedOf,
  captureHooks,
  captureParams,
  captureStages,
  checkSums,
  chooseCaptureTile,
  withSums,
} from "./capture_stages.ts";
import { type ResolvedBackward, resolveBackward, type TakenBackward } from "./problem.ts";
import { differentiableSlots } from "./score_function.ts";
import { type BackwardStage, backwardStages, clearStages, operandIn } from "./stages.ts";

/** Memory for one run of a plan of gradients: see {@link AttentionBindings} for the rules. */
export interface AttentionBackwardBindings extends Omit<AttentionBindings, "cache" | "rowMax"> {
  readonly dOutput?: Tensor;
  /** Needed if the plan was made with it. */
  readonly dLse?: Tensor;
  readonly dQ?: Tensor;
  readonly dK?: Tensor;
  readonly dV?: Tensor;
  /** Those that the plan was made with, by the names of the captures. */
  readonly dCaptures?: Readonly<Record<string, Tensor>>;
}

/** A compiled problem of attention's gradients. */
export type AttentionBackwardPlan = Plan<AttentionBackwardBindings>;

/** Numbers of a query row in the workspace: a vec4 of statistics. */
const ROW_FLOATS = 4;

/** Plans a problem that was read, and gives a promise that rejects if its buffers can't be had. */
export async function prepareBackward(device: GPUDevice, problem: TakenBackward) {
  checkDevice(device);
  const resolved = resolveBackward(problem, await loadExtension(problem));
  const { label, variant, headDim, vDim, batch, heads, totalQ } = resolved;
  if (resolved.similarity?.kind === "additive")
    throw new FoveaError("argument", `${label}: additive similarity has no gradients yet.`);
  const ofTile = {
    headDim,
    vDim,
    variant,
    block: resolved.blockMask?.options.blockSize ?? [],
    scores: resolved.seqQ * resolved.seqKv,
  };
  const tile = chooseBackwardTile(ofTile, tileLimits(device));
  const rows = (resolved.packed ? 1 : batch) * heads * totalQ;
  const { dCaptures } = resolved;
  const sumWords = checkSums(label, device, dCaptures);
  const memory = withSums(
    device,
    label,
    operandsOf(device, problem, resolved, {
      asked: [...backwardTensors(problem, resolved), ...askedOf(dCaptures)],
      workspace: [Math.max(rows, 1) * ROW_FLOATS],
    }),
    sumWords,
  );
  const { operands, owned } = memory;
  try {
    const slots = {
      ...slotChoice(device, resolved, operands),
      ...(await differentiableSlots(problem.scoreFunction)),
      lse: false,
    };
    const norms = (await normStages(resolved, slots)).map((stage) => ({
      ...stage,
      names: stage.names ?? {},
      views: {},
      slots,
    }));
    const ofCaptures = await differentiableSlots(
      problem.scoreFunction,
      dCaptures.map(({ name }) => name),
    );
    const backward = backwardStages(device, resolved, operands, { slots, tile });
    const stages = [
      ...norms,
      ...clearStages(device, resolved, operands, slots),
      ...backward,
      ...captureStages(resolved, operands, {
        queries: backward[1],
        tile: chooseCaptureTile(tile, ofTile, tileLimits(device)),
        ...ofCaptures,
      }),
    ];
    for (const { source } of stages) checkBindings(device, label, source.bindings);
    const compiled = await Promise.all(stages.map(({ source }) => compileKernel(device, source)));
    const laid = layUniforms(device, resolved, memory, stages);
    const copied = await copyStages(device, memory, laid);
    const { value: params, done } = paramsBuffer(device, label, laid.chunks);
    const plan = Plan.make<AttentionBackwardBindings>({
      device,
      label,
      operands,
      stages: [
        ...copied,
        ...stages.map(
          ({ source, names }, index): CompiledStage => ({
            source,
            names,
            compiled: compiled[index],
            dispatches: laid.dispatches[index],
          }),
        ),
      ],
      params,
      numbers: laid.numbers,
      owned,
      hooks: {
        ...captureHooks(
          label,
          dCaptures,
          attentionHooks(label, operands, undefined) as PlanHooks<AttentionBackwardBindings>,
        ),
        kernel: `backward ${tile.name}`,
      },
    });
    const allocated = settle([done, ...memoryOf(operands)]);
    allocated.catch(() => plan.destroy());
    return { plan, allocated, resolved };
  } catch (error) {
    for (const tensor of owned) tensor.destroy();
    throw error;
  }
}

/** The tensors of a plan beside q, k and those of options. */
function backwardTensors(problem: TakenBackward, resolved: ResolvedBackward): Asked[] {
  const { layout, dLse } = resolved;
  const rows = (
    name: "v" | "output" | "dOutput" | "dQ" | "dK" | "dV",
    written: boolean,
  ): Asked => ({
    name,
    spec: reorder(resolved[name], layout),
    given: problem[name],
    written,
  });
  const perRow = (name: "lse" | "dLse", spec: ResolvedSpec): Asked => ({
    name,
    spec,
    given: problem[name],
    written: false,
  });
  return [
    rows("v", false),
    rows("output", false),
    perRow("lse", resolved.lse),
    rows("dOutput", false),
    ...(dLse ? [perRow("dLse", dLse)] : []),
    rows("dQ", true),
    rows("dK", true),
    rows("dV", true),
  ];
}

/**
 * The uniforms of all stages: first the one that all of them share, then those of each dispatch,
 * then captured numbers.
 */
function layUniforms(
  device: GPUDevice,
  resolved: ResolvedBackward,
  { operands, places, numbers: captured }: PlanMemory,
  stages: readonly BackwardStage[],
) {
  const shared = new ArrayBuffer(UNIFORM_STRIDE);
  const dOutput = operandIn(operands, "dOutput");
  const dV = operandIn(operands, "dV");
  const isDense = (operand: Operand) => isAligned(accessOf(device, operand));
  GRADIENT.pack(
    {
      ...addresses("d_output", "m", dOutput, isDense(dOutput), resolved),
      ...addresses("d_v", "n", dV, isDense(dV), resolved),
      ...rowAddresses("d_lse", operands.get("dLse")),
      ...captureParams(resolved.dCaptures, resolved),
    },
    shared,
  );
  const chunks = [shared];
  let offset = UNIFORM_STRIDE;
  const dispatches = stages.map(({ source, grid, slots, views, places: own, entries }) => {
    const inputs = {
      device,
      problem: { ...resolved, batch: entries ?? resolved.batch },
      operands: new Map([...operands, ...Object.entries(views)]),
      places: { ...places, ...own },
      slots,
    };
    const laid = dispatchesOf(inputs, { source, grid }, offset);
    chunks.push(laid.bytes);
    offset += laid.bytes.byteLength;
    return laid.dispatches;
  });
  const numbers = new Map<string, number>();
  for (const [name, bytes] of captured) {
    numbers.set(name, offset);
    chunks.push(bytes);
    offset += bytes.byteLength;
  }
  return { chunks, dispatches, numbers, end: offset };
}

/** The stages that copy tensors into the tables, before all others. */
async function copyStages(
  device: GPUDevice,
  { copies, operands }: PlanMemory,
  laid: { readonly chunks: ArrayBuffer[]; readonly end: number },
): Promise<CompiledStage[]> {
  if (!copies.length) return [];
  const { compileTableCopy, copyDispatch } = await import("../../scores/table_copy.ts");
  const kernel = await compileTableCopy(device);
  let offset = laid.end;
  return copies.map(({ from, at }) => {
    const { dispatches, bytes } = copyDispatch(operandIn(operands, from), at, offset);
    laid.chunks.push(bytes);
    offset += bytes.byteLength;
    return { ...kernel, names: { source: from }, dispatches };
  });
}
