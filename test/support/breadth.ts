// Sweeps that `npm test` runs in part, and `npm run test:breadth` in full: more kernels with the
// same assertions. One kernel that is run stands for the others until a release.

import { inject } from "vitest";

declare module "vitest" {
  interface ProvidedContext {
    /** Whether sweeps run in full. */
    readonly breadth: boolean;
  }
}

/** Returns these members of a sweep if it is run in full, and none of them otherwise. */
export const breadth = <Member>(...members: readonly Member[]): readonly Member[] =>
  inject("breadth") ? members : [];
