// What runs on another WebGPU implementation (wgpu with naga, in Deno) and another driver (lavapipe): the kernels with
// shader-f16, which Chromium's software adapter lacks, and one case of everything else. A program of its own: it prints
// a line of JSON for the device, one for each kernel that is not valid there, then one for each case.

import { requestFoveaDevice } from "../../src/index.ts";
import { link } from "../../src/shader/link.ts";
import { type Case, runCase, title } from "../support/cases.ts";
import { KERNEL_VARIANTS } from "../support/kernels.ts";

const CASES: readonly Case[] = [
  { H: 2, M: 70, N: 100, D: 64, dtype: "f16" },
  { H: 2, M: 70, N: 100, D: 64, dtype: "f16", causal: true },
  { H: 4, Hkv: 2, M: 37, N: 45, D: 128, Dv: 40, dtype: "f16", causal: true },
  { B: 2, H: 2, M: 33, N: 70, D: 80, dtype: "f16", layout: "bmhd", kvLengths: [70, 31] },
  { H: 2, M: 37, N: 70, D: 16, dtype: ["f16", "f16", "f16", "f32"], sinks: true, softcap: 5, causal: true },
  { H: 2, M: 37, N: 70, D: 16, dtype: ["f32", "f16", "bf16", "f16"], window: [9, 3], alibi: "H" },
  { H: 2, M: 37, N: 70, D: 16, dtype: "f16", spread: 5, variant: "64x32" },
  { H: 2, M: 37, N: 70, D: 16, dtype: "f16", spread: 1e-4, variant: "32x32" },
  { H: 2, M: 70, N: 100, D: 64, dtype: "f16", causal: true, variant: "64x4" },
  { H: 2, M: 1, N: 509, D: 32, dtype: "f16" },
  { H: 4, Hkv: 2, M: 2, N: 300, D: 32, dtype: "f16", causal: true, variant: "decode-64" },
  { H: 2, M: 37, N: 70, D: 5, Dv: 7, dtype: "f16", causal: true }, // odd rows take the form without shader-f16
  { H: 2, M: 37, N: 70, D: 16, dtype: "bf16" },
  { H: 2, M: 61, N: 90, D: 8, dtype: "f16", cuSeqlensQ: [0, 17, 61], cuSeqlensKv: [0, 50, 90], causal: true },
  { H: 2, M: 37, N: 70, D: 64, causal: true },
  { H: 2, M: 37, N: 70, D: 8, mask: { axes: "HMN" }, bias: { axes: "MN", blocked: 0.2 }, rowMax: true },
  { H: 2, M: 37, N: 70, D: 8, relativeBias: { buckets: 8 }, dropout: { p: 0.2, seed: 4 }, onGpu: true },
  { H: 2, M: 130, N: 200, D: 8, scoreFunction: "sloped", maskFunction: "window", blockSize: [64, 64] },
];

/** What a line says. */
export type Line = { readonly features: readonly string[] } | { readonly name: string; readonly error?: string };

/** Naga, as Deno has it, does not know the feature subgroups; the quads of software adapters are for Chromium's. */
const isForAny = ({ root, modules }: (typeof KERNEL_VARIANTS)[number]) =>
  !link(root, modules).code.includes("enable subgroups;");

// biome-ignore lint/suspicious/noConsole: what a program says
const say = (line: Line) => console.log(JSON.stringify(line));

const device = await requestFoveaDevice();
say({ features: [...device.features] });
for (const { name, root, modules } of KERNEL_VARIANTS.filter(isForAny)) {
  device.pushErrorScope("validation");
  device.createShaderModule({ code: link(root, modules).code });
  const invalid = await device.popErrorScope();
  if (invalid) say({ name, error: invalid.message });
}
for (const problem of CASES) {
  try {
    // The smallest tile compiles fastest. The first case takes what the tile table says.
    await runCase(device, problem === CASES[0] ? problem : { variant: "32x32", ...problem });
    say({ name: title(problem) });
  } catch (error) {
    say({ name: title(problem), error: String(error) });
  }
}
