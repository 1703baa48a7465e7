// Work is cut into dispatches that do all of it once. No dispatch is over its share of the
// operations, and no grid over the limit.

import { describe, expect, it } from "vitest";
import { cutGroups, cutWork } from "../../src/plan/work.ts";

const device = (limit: number) =>
  ({ limits: { maxComputeWorkgroupsPerDimension: limit } }) as GPUDevice;

describe("cutWork", () => {
  it.each([
    [10, 3, 10, 65535],
    [10, 3, 11, 65535],
    [10, 3, 2, 65535],
    [1000, 1, 1e9, 7],
    [100, 1, 37, 5],
    [1, 1, 1, 1],
    [0, 5, 5, 8],
  ])(
    "of %d workgroups of %d operations each, at most %d in a dispatch, in grids of up to %d",
    (total, each, most, limit) => {
      let next = 0;
      for (const { x, y, grid_x, first_workgroup, end_workgroup } of cutWork(
        device(limit),
        total,
        each,
        most,
      )) {
        expect(first_workgroup).toBe(next);
        expect(end_workgroup).toBeGreaterThan(first_workgroup);
        const count = end_workgroup - first_workgroup;
        if (count > 1) expect(count * each).toBeLessThanOrEqual(most);
        expect(grid_x).toBe(x);
        expect(Math.max(x, y)).toBeLessThanOrEqual(limit);
        expect(x * y).toBeGreaterThanOrEqual(count);
        next = end_workgroup;
      }
      expect(next).toBe(total);
    },
  );

  it.each([
    [12, 1, 100, 4],
    [12, 3, 9, 4],
    [10, 1, 100, 4],
    [7, 1, 2, 1],
    [0, 1, 2, 3],
  ])(
    "of %d workgroups of %d operations, at most %d in a dispatch, lets no two groups of %d meet",
    (total, each, most, together) => {
      let next = 0;
      const cut = cutGroups(together);
      for (const { first_workgroup, end_workgroup } of cut(device(65535), total, each, most)) {
        expect(first_workgroup).toBe(next);
        expect(Math.floor(first_workgroup / together)).toBe(
          Math.floor((end_workgroup - 1) / together),
        );
        const count = end_workgroup - first_workgroup;
        expect(count).toBeGreaterThan(0);
        if (count > 1) expect(count * each).toBeLessThanOrEqual(most);
        next = end_workgroup;
      }
      expect(next).toBe(total);
    },
  );
});
