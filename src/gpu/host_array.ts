// Arrays on the CPU whose size a caller's sizes give.

import { FoveaError } from "../errors.ts";

/**
 * An array of a size that a caller's sizes give. Throws FoveaError("limit") if there can be none.
 */
export function hostArray<Values>(what: string, make: () => Values): Values {
  try {
    return make();
  } catch (cause) {
    throw new FoveaError(
      "limit",
      `${what}: so many elements do not fit into an array (${cause}). Take parts.`,
      {
        cause,
      },
    );
  }
}
