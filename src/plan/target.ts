// The targets that plans record into: a compute pass of the caller's, or a command encoder, on
// which they begin a pass of their own.

import { check, show } from "../errors.ts";

/** The targets that `encode` takes. */
export type EncodeTarget = GPUComputePassEncoder | GPUCommandEncoder;

/** Records into a pass. */
export type Recording = (pass: GPUComputePassEncoder) => void;

/**
 * Throws FoveaError("argument") if the target isn't a compute pass or a command encoder; call it
 * before anything is counted. It does not find an encoder that is finished or of another device:
 * WebGPU reports those only afterwards, as errors of the device.
 */
export function checkTarget(label: string, target: unknown): asserts target is EncodeTarget {
  check(
    hasMethods(target, ["setPipeline", "setBindGroup", "dispatchWorkgroups"]) ||
      hasMethods(target, ["beginComputePass"]),
    "argument",
    () =>
      `${label}: encode takes a GPUComputePassEncoder or a GPUCommandEncoder, got ${show(target)}.`,
  );
}

function hasMethods(target: unknown, names: readonly string[]): boolean {
  try {
    return names.every((name) => typeof (target as Record<string, unknown>)[name] === "function");
  } catch {
    return false;
  }
}

/**
 * Records into a caller's pass, or into a new pass on a caller's encoder. Without a recording there
 * is nothing to compute, and it does nothing.
 */
export function recordInto(
  target: EncodeTarget,
  label: string,
  recording: Recording | undefined,
): void {
  if (!recording) return;
  if ("dispatchWorkgroups" in target) {
    recording(target);
  } else {
    const pass = target.beginComputePass({ label });
    recording(pass);
    pass.end();
  }
}
