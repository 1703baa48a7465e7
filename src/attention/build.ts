// From a checked problem to a plan: which modules fill the slots, the kernels compiled, the
// uniforms laid out.

import { paramsBuffer, settle } from "../gpu/buffers.ts";
import { checkBindings, compileKernel } from "../gpu/pipelines.ts";
import type { Access } from "../kernels/access.ts";
import { PARAMS } from "../kernels/params.ts";
import type { SlotChoice } from "../kernels/slots.ts";
import { accessOf } from "../plan/access.ts";
import type { Operand, Operands } from "../plan/operand.ts";
import { memoryOf } from "../plan/operand_checks.ts";
import { type CompiledStage, Plan } from "../plan/plan.ts";
import { attentionHooks } from "./bindings.ts";
import type { PlanMemory } from "./memory.ts";
import { isLargeScale } from "./resolve.ts";
import type { ResolvedScores } from "./resolved.ts";
import { dispatchesOf, type Stage } from "./uniform.ts";

/**
 * Compiles the stages of a plan and lays out their uniforms. Whatever fails, the memory that the
 * plan owns is freed.
 */
export async function buildPlan(
  device: GPUDevice,
  resolved: ResolvedScores,
  memory: PlanMemory,
  stagesOf: (slots: SlotChoice) => readonly Stage[] | Promise<readonly Stage[]>,
) {
  const { label } = resolved;
  const { operands, owned, places, copies } = memory;
  try {
    const slots = slotChoice(device, resolved, operands);
    const stages: CompiledStage[] = [];
    const chunks: ArrayBuffer[] = [];
    let offset = 0;
    const copier = copies.length ? import("../scores/table_copy.ts") : undefined;
    const chosen = Promise.resolve(slots).then(stagesOf);
    const [norms, main, copying] = await Promise.all([normStages(resolved, slots), chosen, copier]);
    const planned = [...norms, ...main];
    for (const { source } of planned) checkBindings(device, label, source.bindings);
    const [copyStage, compiled] = await Promise.all([
      copying?.compileTableCopy(device),
      Promise.all(planned.map(({ source }) => compileKernel(device, source))),
    ]);
    const add = (
      stage: Omit<CompiledStage, "dispatches">,
      laid: ReturnType<typeof dispatchesOf>,
    ) => {
      stages.push({ ...stage, dispatches: laid.dispatches });
      chunks.push(laid.bytes);
      offset += laid.bytes.byteLength;
    };
    if (copying && copyStage) {
      for (const { from, at } of copies) {
        const laid = copying.copyDispatch(operands.get(from) as Operand, at, offset);
        add({ ...copyStage, names: { source: from } }, laid);
      }
    }
    const inputs = { device, problem: resolved, operands, places, slots };
    for (const [index, { source, grid, names }] of planned.entries()) {
      const laid = dispatchesOf(inputs, { source, grid }, offset);
      const { bytes: uniformBytes } = PARAMS;
      add({ source, compiled: compiled[index], uniformBytes, ...(names && { names }) }, laid);
    }
    const numbers = new Map<string, number>();
    for (const [name, bytes] of memory.numbers) {
      numbers.set(name, offset);
      chunks.push(bytes);
      offset += bytes.byteLength;
    }
    const { value: params, done } = paramsBuffer(device, label, chunks);
    const plan = Plan.make({
      device,
      label,
      operands,
      stages,
      params,
      numbers,
      owned,
      hooks: attentionHooks(label, operands, resolved.cache),
    });
    const allocated = settle([done, ...memoryOf(operands)]);
    allocated.catch(() => plan.destroy());
    return { plan, allocated, owned };
  } catch (error) {
    for (const tensor of owned) tensor.destroy();
    throw error;
  }
}

/** The stages that compute norms of rows, for kernels that look these up. */
export async function normStages(
  { batch, q, k, cache, headDim }: ResolvedScores,
  slots: SlotChoice,
): Promise<Stage[]> {
  if (slots.similarity?.kind !== "normalized") return [];
  const { rowNormsKernel, rowNormsWorkgroups } = await import("../kernels/row_norms.ts");
  const rows = [q, cache?.k ?? k].reduce(
    (total, { shape }) => total + shape[0] * shape[1] * shape[2],
    0,
  );
  const qTiles = Math.ceil(rowNormsWorkgroups(rows) / Math.max(batch, 1));
  const grid = { qTile: 1, qTiles, vSplits: 1, heads: 1, flops: 16 * headDim };
  return [{ source: rowNormsKernel(headDim, slots), names: {}, grid }];
}

/** Which modules fill the slots of a plan's kernels. */
export function slotChoice(
  device: GPUDevice,
  problem: ResolvedScores,
  operands: Operands,
): SlotChoice {
  // Without an operand any access will do, because no kernel of the plan reads or writes it.
  const access = (name: string): Access => {
    const operand = operands.get(name);
    if (!operand) return "dense";
    if ((name === "k" || name === "v") && problem.cache?.access.quantised) return "words";
    return accessOf(device, operand);
  };
  return {
    q: access("q"),
    k: access("k"),
    v: access("v"),
    o: access("output"),
    ...(problem.cache && { cache: problem.cache.access }),
    tables: operands.has("tables"),
    lse: operands.has("lse"),
    rowMax: operands.has("rowMax"),
    largeScale: isLargeScale(problem),
    ...Object.assign({}, ...problem.options.map((option) => option.slots)),
  };
}
