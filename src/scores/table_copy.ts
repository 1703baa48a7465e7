// The kernel that copies tables which a caller keeps on the GPU to the others, in every run. Plans
// load it if they have such tables.

import { compileKernel } from "../gpu/pipelines.ts";
import { COPY, copyValues, tablesKernel, tablesWorkgroups } from "../kernels/tables.ts";
import type { Operand } from "../plan/operand.ts";
import type { Dispatch } from "../plan/work.ts";

/** The kernel that copies a tensor into the tables. */
export async function compileTableCopy(device: GPUDevice) {
  const source = tablesKernel();
  return { source, compiled: await compileKernel(device, source), uniformBytes: COPY.bytes };
}

/** The dispatch that copies a tensor into the tables, to word `at`. */
export function copyDispatch({ spec, base }: Operand, at: number, offset: number) {
  const bytes = new ArrayBuffer(COPY.stride);
  COPY.pack(copyValues(spec, base, at), bytes);
  const elements = spec.shape.reduce((product, size) => product * size, 1);
  const dispatches: Dispatch[] = [{ x: tablesWorkgroups(elements), y: 1, paramsOffset: offset }];
  return { dispatches, bytes };
}
