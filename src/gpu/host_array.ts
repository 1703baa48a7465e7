// Arrays on the CPU whose size depends on sizes that a caller gives.

import { FoveaError } from "../errors.ts";

/**
 * Makes an array whose size depends on sizes that a caller gives. Throws FoveaError("limit") if
 * JavaScript can't make it.
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
