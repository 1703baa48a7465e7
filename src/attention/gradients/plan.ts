// From a checked problem of gradients to a plan: its kernels, its uniforms, its bindings.

import { checkDevice, paramsBuffer, settle } from "../../gpu/buffers.ts";
import { tileLimits } from "../../gpu/device.ts";
import { tensor } from "../../gpu/make_tensor.ts";
import { checkBindings, compileKernel } from "../../gpu/pipelines.ts";
import { isAligned } from "../../kernels/access.ts";
import { ADDITIVE_TILE } from "../../kernels/gradients/additive.ts";
import { GRADIENT } from "../../kernels/gradients/backward.ts";
import { chooseBackwardTile, chooseSumTile } from "../../kernels/gradients/backward_tiles.ts";
import { PARAMS, UNIFORM_STRIDE } from "../../kernels/params.ts";
import { accessOf, addresses, rowAddresses } from "../../plan/access.ts";
import type { Operand, Operands } from "../../plan/operand.ts";
import { memoryOf } from "../../plan/operand_checks.ts";
import { type CompiledStage, Plan, type PlanHooks } from "../../plan/plan.ts";
import { checkBindingLimit, type ResolvedSpec, reorder } from "../../plan/specs.ts";
import { loadExtension } from "../../scores/resolve.ts";
import { attentionHooks } from "../bindings.ts";
import { normStages, slotChoice } from "../build.ts";
import { type Asked, operandsOf, type PlanMemory } from "../memory.ts";
import { dispatchesOf } from "../uniform.ts";
import { additiveStages } from "./additive_stages.ts";
import type { AttentionBackwardBindings } from "./bindings.ts";
import {
  askedOf,
  captureHooks,
  captureParams,
  captureStages,
  checkSums,
  withSums,
} from "./capture_stages.ts";
import { type ResolvedBackward, resolveBackward, type TakenBackward } from "./problem.ts";
import { differentiableSlots, loadGradient } from "./score_function.ts";
import { scoreStages, scoreSums } from "./score_stages.ts";
import type { SimilarityGradient } from "./similarity_problem.ts";
import { normalizedStages } from "./similarity_stages.ts";
import {
  type BackwardStage,
  backwardStages,
  canAddQueries,
  clearStages,
  operandIn,
  type Planned,
} from "./stages.ts";

/** Numbers of a query row in the workspace: a vec4 of statistics. */
const ROW_FLOATS = 4;

/** What makes the stages of gradients of a similarity. */
const stagesOf = (kind: "normalized" | "additive" | undefined) =>
  kind === "normalized"
    ? normalizedStages
    : kind
      ? additiveStages
      : (planned: Planned) => backwardStages(planned);

type Hooks = PlanHooks<AttentionBackwardBindings>;

/** Bytes of the workspace, and of what a plan owns beside the tensors of its memory. */
const scratchBytes = (operands: Operands, before: Operands) =>
  [...operands]
    .filter(([name]) => name === "workspace" || !before.has(name))
    .reduce((bytes, [, { fallback }]) => bytes + 4 * (fallback?.size ?? 0), 0);

/** Plans a problem that was read, and gives a promise that rejects if its buffers can't be had. */
export async function prepareBackward(device: GPUDevice, problem: TakenBackward) {
  checkDevice(device);
  const resolved = resolveBackward(
    problem,
    await loadExtension(problem),
    await loadGradient(problem),
  );
  const { label, variant, headDim, vDim, batch, heads, totalQ } = resolved;
  const ofTile = {
    headDim,
    vDim,
    variant: resolved.similarity?.kind === "additive" ? ADDITIVE_TILE : variant,
    block: resolved.blockMask?.options.blockSize ?? [],
    scores: resolved.seqQ * resolved.seqKv,
  };
  const limits = tileLimits(device);
  const sumTile = chooseSumTile(ofTile, limits);
  const rows = (resolved.packed ? 1 : batch) * heads * totalQ;
  const { dCaptures } = resolved;
  const sums = scoreSums(resolved, sumTile);
  const statistics = Math.max(rows, 1) * ROW_FLOATS;
  const sumWords = checkSums(label, device, dCaptures);
  const memory = withSums(
    device,
    label,
    operandsOf(device, problem, resolved, {
      asked: [...backwardTensors(problem, resolved), ...askedOf(dCaptures)],
      workspace: [
        statistics + Math.max(0, ...sums.map(({ elements, shares }) => elements * shares)),
      ],
    }),
    sumWords,
  );
  const operands = new Map(memory.operands);
  const owned = [...memory.owned];
  const own = (name: string, elements: number) => {
    // Kernels bind vec4s, also of nothing.
    const made = tensor(device, [Math.max(4, elements)], { label: `${label} ${name}` });
    owned.push(made);
    checkBindingLimit(label, name, device, made);
    operands.set(name, { spec: made, base: 0, fallback: made, written: true });
  };
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
    const tile = chooseBackwardTile(ofTile, limits, canAddQueries(device, operands, slots));
    const planned = { device, resolved, operands, slots, tile, places: memory.places, own };
    const ofCaptures = await differentiableSlots(
      problem.scoreFunction,
      dCaptures.map(({ name }) => name),
    );
    const backward = stagesOf(slots.similarity?.kind)(planned);
    const stages = [
      ...norms,
      ...clearStages(planned),
      ...backward,
      ...sums.flatMap((sum) => scoreStages(sum, planned, statistics)),
      ...captureStages(resolved, operands, {
        backward,
        tile: sumTile,
        ...ofCaptures,
      }),
    ];
    for (const { source } of stages) checkBindings(device, label, source.bindings);
    const compiled = await Promise.all(stages.map(({ source }) => compileKernel(device, source)));
    const laid = layUniforms(device, resolved, { ...memory, operands }, stages);
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
            uniformBytes: PARAMS.bytes,
            compiled: compiled[index],
            dispatches: laid.dispatches[index],
          }),
        ),
      ],
      params,
      numbers: laid.numbers,
      owned,
      hooks: {
        // What is owned since then is nobody's to bind.
        ...captureHooks(
          label,
          dCaptures,
          attentionHooks(label, memory.operands, undefined) as Hooks,
        ),
        kernel: `backward ${tile.name}`,
        workspaceBytes: scratchBytes(operands, memory.operands),
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
    ...Object.entries(resolved.similarityGradients).map(([name, spec]) => ({
      name,
      spec,
      given: problem[name as SimilarityGradient],
      written: true,
    })),
    ...resolved.scoreGradients.map(({ name, spec }) => ({
      name,
      spec,
      given: problem[name],
      written: true,
    })),
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
      ...addresses("d_q", "m", operandIn(operands, "dQ"), true, resolved),
      ...rowAddresses("d_lse", operands.get("dLse")),
      batch: resolved.batch,
      ...captureParams(resolved.dCaptures, resolved),
    },
    shared,
  );
  // 0 says that entries are packed, and nothing else of entries without queries.
  const { packed, heads, totalQ } = resolved;
  const rows = { rows_per_batch: packed ? 0 : Math.max(1, heads * totalQ) };
  const chunks = [shared];
  let offset = UNIFORM_STRIDE;
  const dispatches = stages.map(({ source, grid, slots, views, places: own, problem }) => {
    const inputs = {
      device,
      problem: problem ?? resolved,
      operands: new Map([...operands, ...Object.entries(views)]),
      places: { ...places, ...own, ...rows },
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
