// Sweeps that `npm test` runs in part, and `npm run test:breadth` in full: more kernels of the same
// assertions, where one that is run stands for the others until a release.

import { inject } from "vitest";

declare module "vitest" {
  interface ProvidedContext {
    /** Sweeps run in full. */
    readonly breadth: boolean;
  }
}

/** Some members of a sweep if it is run in full; none of them otherwise. */
export const breadth = <Member>(...members: readonly Member[]): readonly Member[] =>
  inject("breadth") ? members : [];
