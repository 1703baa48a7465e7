// Where plans record: into a compute pass of the caller's, or into one of their own on a command
// encoder.

import { check, show } from "../errors.ts";

/** What `encode` takes. */
export type EncodeTarget = GPUComputePassEncoder | GPUCommandEncoder;

/** Records into a pass. */
export type Recording = (pass: GPUComputePassEncoder) => void;

/**
 * Throws FoveaError("argument") for what takes no compute work; call it before anything is counted.
 * That an encoder is finished, or of another device, WebGPU tells nobody beforehand: it reports
 * that as an error of the device.
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
 * Records into a caller's pass, or into a pass of its own; nothing where there is nothing to
 * compute.
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
