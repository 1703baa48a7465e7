// Compiles WGSL for a real GPU, which need not be there: Dawn and Tint make SPIR-V of it, Mesa's
// RADV makes code for RDNA2. What comes out is the same on every machine with the same Mesa.

import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { FoveaError } from "../../src/errors.ts";
import { type IsaReport, parseReport } from "./disassembly.ts";

/** The GPU that is compiled for, as RADV calls it: RDNA2, AMD Radeon RX 6800 XT. */
const FAMILY = "navi21";

export interface IsaKernel {
  readonly name: string;
  readonly code: string;
}

/** Compiles each kernel for RDNA2. Throws FoveaError("shader") for one that does not compile. */
export function compileForRdna2(kernels: readonly IsaKernel[]): IsaReport[] {
  const here = dirname(fileURLToPath(import.meta.url));
  const folder = mkdtempSync(join(tmpdir(), "fovea-isa-"));
  try {
    const list = join(folder, "kernels.json");
    writeFileSync(list, JSON.stringify(kernels));
    const driver = builtDriver(join(here, "driver.c"));
    const { stderr, status } = spawnSync(process.execPath, [join(here, "compile.mjs"), list], {
      encoding: "utf8",
      maxBuffer: 2 ** 29,
      env: {
        ...process.env,
        VK_ICD_FILENAMES: driver,
        VK_DRIVER_FILES: driver,
        XDG_RUNTIME_DIR: tmpdir(),
        RADV_FORCE_FAMILY: FAMILY,
        RADV_DEBUG: "shaders,shaderstats,nocache",
        MESA_SHADER_CACHE_DISABLE: "true",
      },
    });
    if (status !== 0)
      throw new FoveaError("device", `the compiler ended with ${status}: ${stderr.slice(-500)}`);
    return kernels.map(({ name }) => {
      const text = stderr.split(`##begin ${name}\n`)[1]?.split(`##end ${name}\n`)[0] ?? "";
      const error = /^##error (.*)$/m.exec(text)?.[1];
      if (error) throw new FoveaError("shader", `${name} does not compile: ${error}`);
      return parseReport(name, text);
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Builds the driver unless it is there, and gives the path of its manifest. */
function builtDriver(source: string): string {
  const folder = join(dirname(source), "../../node_modules/.cache/fovea/isa");
  const library = join(folder, "driver.so");
  const manifest = join(folder, "driver.json");
  if (!existsSync(library) || statSync(library).mtimeMs < statSync(source).mtimeMs) {
    mkdirSync(folder, { recursive: true });
    const flags = ["-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-o", library, source, "-ldl"];
    const { status, stderr } = spawnSync("gcc", flags, { encoding: "utf8" });
    if (status !== 0) throw new FoveaError("file", `driver.c does not build: ${stderr}`);
  }
  const text = JSON.stringify({
    file_format_version: "1.0.0",
    ICD: { library_path: library, api_version: "1.3.230" },
  });
  if (!existsSync(manifest) || readFileSync(manifest, "utf8") !== text)
    writeFileSync(manifest, text);
  return manifest;
}
