// Errors are part of the API: tests compare code and whole message.

import { expect } from "vitest";
import { FoveaError, type FoveaErrorCode } from "../../src/index.ts";

/**
 * Expects `work` to throw, or to reject with, a FoveaError of this code whose message is or
 * contains `message`.
 */
export async function expectError(
  work: () => unknown,
  code: FoveaErrorCode,
  message: string | RegExp,
): Promise<FoveaError> {
  let error: unknown;
  try {
    await work();
  } catch (caught) {
    error = caught;
  }
  if (!(error instanceof FoveaError))
    throw new Error(`expected a FoveaError (${code}), got ${error}`);
  if (typeof message === "string") expect(error.message).toBe(message);
  else expect(error.message).toMatch(message);
  expect(error.code).toBe(code);
  return error;
}
