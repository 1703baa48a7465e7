// Kernels that do nothing and compile at once, for tests of what is chosen, counted, allocated or
// refused: a true kernel takes software adapters up to seconds to compile.

import { overridden } from "./overridden.ts";

/** Returns the device with kernels that bind what they are made to bind, and write nothing. */
export function idle(real: GPUDevice): GPUDevice {
  const code = "@compute @workgroup_size(1) fn main() {}";
  return overridden(real, {
    createShaderModule: ({ label = "" }: GPUShaderModuleDescriptor) =>
      real.createShaderModule({ label, code }),
  });
}
