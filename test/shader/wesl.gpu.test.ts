// Every root and variant compiles in the browser's compiler as our linker links it, and each text
// without loop expansion, and linked by npm `wesl`, the reference implementation of the import
// syntax. Texts that differ in numbers only are one, but in tests of breadth.

import { describe, expect, it } from "vitest";
import { link as weslLink } from "wesl/core";
import { link, type ModuleMap, renamed } from "../../src/shader/link.ts";
import { breadth } from "../support/breadth.ts";
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
    Object.entries(modules).map(([path, source]) => {
      if (typeof source === "string") return [path, source];
      const { name, text, rename } = source;
      return [path, rename ? renamed(name, text, rename) : text];
    }),
  );

/** The texts of variants without expansion. */
const written = KERNEL_VARIANTS.map((variant) => {
  const { code } = link(variant.root, variant.modules, { unroll: false });
  return { ...variant, code, form: code.replace(/^const (\w+) = \d+u;$/gm, "const $1;") };
});
// Those with shader-f16 compile where there is one: test/portability, and in Dawn for the
// instruction report.
const HERE = written.filter(({ code }) => !code.includes("enable f16;"));
const FORMS = [...new Map(HERE.map((variant) => [variant.form, variant])).values()];

describe.each(HERE)("$name", ({ root, modules }) => {
  it("compiles as we link it", () => expectCompiles(link(root, modules).code));
});

it("some variants differ in numbers only", () => {
  expect(FORMS.length).toBeGreaterThan(200);
  expect(FORMS.length).toBeLessThan(HERE.length);
});

describe.each([...FORMS, ...breadth(...HERE.filter((variant) => !FORMS.includes(variant)))])(
  "$name",
  ({ root, modules, code }) => {
    it("compiles as written", () => expectCompiles(code));
    it("compiles as wesl links it", async () => {
      const linked = await weslLink({ weslSrc: texts(modules), rootModuleName: root });
      await expectCompiles(linked.dest);
    });
  },
);
