// Why a kernel does not compile, in terms of the files that it was linked from. Loaded when a
// kernel does not compile.

import type { KernelSource } from "../types.ts";

/**
 * Describes what is wrong with a kernel whose pipeline could not be made, in at least one line and
 * none of them twice.
 *
 * @param reason What the pipeline's promise rejected with
 * @param scope What validation said of the layouts and the module
 */
export async function compileErrors(
  { locate }: KernelSource,
  module: GPUShaderModule,
  reason: unknown,
  scope: Promise<GPUError | null>,
): Promise<string[]> {
  const [compiler, invalid] = await Promise.allSettled([module.getCompilationInfo(), scope]);
  const messages = compiler.status === "fulfilled" ? compiler.value.messages : [];
  const errors = messages.filter((message) => message.type === "error");
  // Copies of an unrolled line fail alike, and are reported once.
  const details = errors.map(({ lineNum, linePos, message }) => {
    const { module: file, line, rewritten } = locate(lineNum);
    return `${file}:${line}${rewritten ? "" : `:${linePos}`}: ${message}`;
  });
  if (!details.length && invalid.status === "fulfilled" && invalid.value)
    details.push(invalid.value.message);
  if (!details.length) details.push(String((reason as Error)?.message ?? reason));
  return [...new Set(details)];
}
