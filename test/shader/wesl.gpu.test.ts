// Every root and variant compiles in the browser's compiler, linked by our linker with and without
// loop expansion, and linked by npm `wesl`, the reference implementation of the import syntax.

import { describe, expect, it } from "vitest";
import { link as weslLink } from "wesl/core";
import { link, type ModuleMap } from "../../src/shader/link.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { KERNEL_VARIANTS } from "../support/kernels.ts";

failOnGpuErrors();

async function expectCompiles(code: string): Promise<void> {
  const device = await testDevice();
  device.pushErrorScope("validation");
  const { messages } = await device.createShaderModule({ code }).getCompilationInfo();
  await device.popErrorScope();
  const errors = messages.filter(({ type }) => type === "error");
  expect(errors.map(({ lineNum, message }) => `${lineNum}: ${message}`)).toEqual([]);
}

const texts = (modules: ModuleMap): Record<string, string> =>
  Object.fromEntries(
    Object.entries(modules).map(([path, source]) => [
      path,
      typeof source === "string" ? source : source.text,
    ]),
  );

// Variants with shader-f16 compile on devices that have it: in test/portability, and in Dawn for
// the instruction report.
const HERE = KERNEL_VARIANTS.filter(
  ({ root, modules }) => !link(root, modules, { unroll: false }).code.includes("enable f16;"),
);

describe.each(HERE)("$name", ({ root, modules }) => {
  it("compiles as we link it", () => expectCompiles(link(root, modules).code));
  it("compiles as written", () => expectCompiles(link(root, modules, { unroll: false }).code));
  it("compiles as wesl links it", async () => {
    const linked = await weslLink({ weslSrc: texts(modules), rootModuleName: root });
    await expectCompiles(linked.dest);
  });
});
