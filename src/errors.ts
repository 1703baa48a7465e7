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
  | "not-finite" // a loss or gradients of a training program are not finite
  | "file"; // a file is malformed or does not hold what was asked for

/**
 * The one error class of Fovea. All that Fovea throws or rejects with is one of these; the message
 * names the argument, what was expected, what came, and what to do.
 */
export class FoveaError extends Error {
  override readonly name = "FoveaError";
  readonly code: FoveaErrorCode;

  constructor(code: FoveaErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

/**
 * Throws a FoveaError unless `condition` holds. The message is a function so that a passing check
 * costs nothing.
 */
export function check(
  condition: boolean,
  code: FoveaErrorCode,
  message: () => string,
): asserts condition {
  if (!condition) throw new FoveaError(code, message());
}

/**
 * Runs `read`, which reads a caller's values. Their getters, traps and conversions may throw
 * anything, which becomes a FoveaError("argument") that says that `what` cannot be read.
 */
export function reading<Value>(what: string, read: () => Value): Value {
  try {
    return read();
  } catch (cause) {
    if (cause instanceof FoveaError) throw cause;
    throw new FoveaError("argument", `${what} cannot be read: it throws an error.`, { cause });
  }
}

/** The most characters of a value in a message. */
const SHOWN = 100;

/**
 * A value as messages name it: short, on one line, and without running code that could throw. Use
 * it for whatever a caller gave, but for numbers and strings that were checked before.
 */
export function show(value: unknown): string {
  let text: string;
  try {
    if (typeof value === "string") text = JSON.stringify(value);
    else if (typeof value === "bigint") text = `${value}n`;
    else if (typeof value === "function") text = "a JavaScript function";
    else if (Array.isArray(value))
      text = `[${value
        .slice(0, SHOWN)
        .map((item) => (Array.isArray(item) ? "[...]" : show(item)))
        .join(", ")}]`;
    else if (ArrayBuffer.isView(value))
      text = `${value.constructor.name} of ${value.byteLength} bytes`;
    else if (typeof value === "object" && value !== null) text = shownObject(value);
    else text = String(value);
  } catch {
    text = "a value that cannot be read";
  }
  // Characters that would move the cursor of a terminal are escaped.
  text = text.replace(
    /[\p{Cc}\u2028\u2029]/gu,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
  return text.length > SHOWN ? `${text.slice(0, SHOWN)}...` : text;
}

/** Plain objects by their names, all others by their class. */
function shownObject(value: object): string {
  const prototype = Object.getPrototypeOf(value);
  const name = prototype?.constructor?.name;
  return prototype === null || prototype === Object.prototype
    ? `{ ${Object.keys(value).join(", ")} }`
    : `${/^[AEIOU]/.test(name) ? "an" : "a"} ${name}`;
}
