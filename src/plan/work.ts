// The dispatches that a kernel's work is cut into.

import { check } from "../errors.ts";

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
 */
export function cutWork(device: GPUDevice, total: number, flopsEach: number, maxFlops: number) {
  const perDimension = device.limits.maxComputeWorkgroupsPerDimension;
  const share = Math.max(1, Math.min(Math.floor(maxFlops / flopsEach), perDimension ** 2));
  const count = Math.ceil(total / share);
  checkDispatches(count);
  return Array.from({ length: count }, (_, index) => {
    const first = index * share;
    const end = Math.min(first + share, total);
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

/**
 * `cutWork` of workgroups in groups of `size`, one after the other: no two groups are in one
 * dispatch, so that what a group writes is there for the next one.
 */
export const cutGroups =
  (size: number): typeof cutWork =>
  (device, total, flopsEach, maxFlops) => {
    const ofGroup = cutWork(device, Math.min(size, total), flopsEach, maxFlops);
    const groups = Math.ceil(total / Math.max(1, size));
    checkDispatches(groups * ofGroup.length);
    return Array.from({ length: groups }, (_, group) =>
      ofGroup.map((part) => ({
        ...part,
        first_workgroup: group * size + part.first_workgroup,
        end_workgroup: Math.min(group * size + part.end_workgroup, total),
      })),
    ).flat();
  };

/** All workgroups in one dispatch, for kernels that can't tell which share of the work is theirs. */
export function wholeGrid(device: GPUDevice, total: number) {
  const x = Math.min(total, device.limits.maxComputeWorkgroupsPerDimension);
  return total === 0 ? [] : [{ x, y: Math.ceil(total / x), grid_x: x }];
}
