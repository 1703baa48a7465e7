/** What went wrong, as a word that code can branch on. The message is for people. */
export type FoveaErrorCode =
  | "argument" // a wrong shape, stride, dtype, option or combination of options
  | "limit" // the problem is larger than the device's limits
  | "device" // tensors of different devices, or no WebGPU, or no adapter
  | "destroyed" // a tensor or plan is used after destroy()
  | "overlap" // an output shares memory with an input or with itself
  | "shader" // a shader does not link or does not compile
  | "device-lost" // the device was lost, before or during the call
  | "out-of-memory" // the GPU refused an allocation
  | "validation" // the GPU rejected a command that passed our own checks
  | "file"; // a file is malformed or does not hold what was asked for

/**
 * The one error class of Fovea. Whatever is thrown or rejected with is one of these; the message names the
 * argument, what was expected, what came, and what to do.
 */
export class FoveaError extends Error {
  override readonly name = "FoveaError";
  readonly code: FoveaErrorCode;

  constructor(code: FoveaErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

/** Throws a FoveaError unless `condition` holds. The message is a function so that a passing check costs nothing. */
export function check(condition: boolean, code: FoveaErrorCode, message: () => string): asserts condition {
  if (!condition) throw new FoveaError(code, message());
}
