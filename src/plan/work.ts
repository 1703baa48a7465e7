// The dispatches that a kernel's work is cut into.

import { check } from "../errors.ts";
import { PARAMS } from "../kernels/params.ts";

/**
 * Bytes from one uniform of a plan to the next: WebGPU asks for multiples of at most 256. A device
 * may ask for less, which would save nothing here.
 */
export const UNIFORM_STRIDE = PARAMS.stride;

/**
 * A dispatch: workgroups in two dimensions, and the offset of its params in the plan's uniform
 * buffer.
 */
export interface Dispatch {
  readonly x: number;
  readonly y: number;
  readonly paramsOffset: number;
}

/** The most dispatches that a kernel is cut into: each has its uniforms in memory. */
const MOST_DISPATCHES = 2 ** 18;

/**
 * Throws FoveaError("limit") for more dispatches than `MOST_DISPATCHES`; call it before their
 * uniforms are allocated.
 */
export function checkDispatches(count: number): void {
  check(
    count <= MOST_DISPATCHES,
    "limit",
    () =>
      `${count} dispatches are too many; a kernel is cut into ${MOST_DISPATCHES} at most. Give a larger maxDispatchFlops.`,
  );
}

/**
 * Cuts workgroups into dispatches of at most `maxFlops` each, and folds each into two dimensions.
 *
 * @param together Workgroups that follow each other and may share a dispatch, in groups of so many:
 *   none of another group runs beside them. Default: all.
 */
export function cutWork(
  device: GPUDevice,
  total: number,
  flopsEach: number,
  maxFlops: number,
  together = total,
) {
  const perDimension = device.limits.maxComputeWorkgroupsPerDimension;
  const most = Math.max(1, Math.min(Math.floor(maxFlops / flopsEach), perDimension ** 2));
  const share = Math.min(most, together);
  const ofGroup = Math.ceil(together / share);
  const count = total === 0 ? 0 : ofGroup * Math.ceil(total / together);
  checkDispatches(count);
  return Array.from({ length: count }, (_, index) => {
    const group = Math.floor(index / ofGroup) * together;
    const first = group + (index % ofGroup) * share;
    const end = Math.min(first + share, group + together, total);
    const x = Math.min(end - first, perDimension);
    return {
      x,
      y: Math.ceil((end - first) / x),
      grid_x: x,
      first_workgroup: first,
      end_workgroup: end,
    };
  });
}

/** All workgroups in one dispatch, for kernels that can't tell which share of the work is theirs. */
export function wholeGrid(device: GPUDevice, total: number) {
  const x = Math.min(total, device.limits.maxComputeWorkgroupsPerDimension);
  return total === 0 ? [] : [{ x, y: Math.ceil(total / x), grid_x: x }];
}
