// Tables that a caller keeps on the GPU are copied to the others in every run, by a kernel that plans load if they have any.

import { compileKernel } from "../gpu/pipelines.ts";
import { COPY, tablesKernel, tablesWorkgroups } from "../kernels/tables.ts";
import { type Dispatch, UNIFORM_STRIDE } from "./dispatch.ts";
import type { Operand } from "./operands.ts";

/** The kernel that copies a tensor into the tables. */
export async function compileTableCopy(device: GPUDevice) {
  const source = tablesKernel();
  return { source, compiled: await compileKernel(device, source) };
}

/** The dispatch that copies a tensor into the tables, to word `at`. */
export function copyDispatch({ spec, base }: Operand, at: number, offset: number) {
  const shape = spec.shape.length === 2 ? spec.shape : [1, spec.shape[0]];
  const strides = spec.strides.length === 2 ? spec.strides : [0, spec.strides[0]];
  const copy: Record<(typeof COPY)[number], number> = {
    ...{ rows: shape[0], columns: shape[1], base, stride_row: strides[0], stride_column: strides[1], at },
  };
  const bytes = new ArrayBuffer(UNIFORM_STRIDE);
  new Uint32Array(bytes).set(COPY.map((member) => copy[member]));
  const dispatches: Dispatch[] = [{ x: tablesWorkgroups(shape[0] * shape[1]), y: 1, paramsOffset: offset }];
  return { dispatches, bytes };
}
