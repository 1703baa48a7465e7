// NaN in q, k or v of a case: the rows that see it become NaN, and all others are as if it weren't
// there.

import { type AttentionOptions, attention, type Tensor, tensor } from "../../src/index.ts";
import { type ReferenceOptions, attention as reference } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { type Case, type Float, product, ROUND } from "./cases.ts";
import { expectClose } from "./closeness.ts";
import { defined, featuresOf } from "./features.ts";

/** Where a NaN is put: an element of a query of the last head, or of a key or its value. */
export type Tainted = "q" | "k" | "v";

/**
 * Runs a case with a NaN in q, in k and in v, one at a time; `key` says where it stands in k and v.
 */
export async function runTainted(device: GPUDevice, problem: Case, key: number): Promise<void> {
  for (const tainted of ["q", "k", "v"] as const) await runOne(device, problem, tainted, key);
}

async function runOne(
  device: GPUDevice,
  problem: Case,
  tainted: Tainted,
  key: number,
): Promise<void> {
  const { B = 1, H = 1, Hkv = H, M, N, D, Dv = D, seed = 1, dtype = "f32" } = problem;
  const used: Tensor[] = [];
  const keep = (made: Tensor) => {
    used.push(made);
    return made;
  };
  const name = typeof dtype === "string" ? dtype : "f32";
  const make = (what: number, shape: number[]) => {
    const data = normal(seed * 8 + what, product(shape)).map(ROUND[name as Float]);
    const row = what === 0 ? M - 1 : key;
    if ("qkv"[what] === tainted)
      data[(product(shape.slice(0, 2)) - 1) * shape[2] * shape[3] + row * shape[3]] = Number.NaN;
    return { shape, data, gpu: keep(tensor(device, shape, { data, dtype: name })) };
  };
  try {
    const q = make(0, [B, H, M, D]);
    const k = make(1, [B, Hkv, N, D]);
    const v = make(2, [B, Hkv, N, Dv]);
    const poison = (shape: number[]) =>
      keep(tensor(device, shape, { data: new Float32Array(product(shape)).fill(7777) }));
    const half = problem.variant?.endsWith("-f16") ?? false;
    const lse = half ? {} : { lse: poison([B, H, M]) };
    const rowMax = problem.rowMax ? { rowMax: poison([B, H, M]) } : {};
    const output = poison([B, H, M, Dv]);
    const { causal, scale, variant, kvSplits, attentionChunk, sinkTokens, softcap } = problem;
    const shared = defined<ReferenceOptions>({
      causal,
      scale,
      attentionChunk,
      sinkTokens,
      softcap,
    });
    const features = featuresOf(problem, { B, H, M, N, D }, seed);
    const gpu = features.gpu((size, options) => keep(tensor(device, size, options)));
    const settings = {
      ...shared,
      variant,
      kvSplits,
      ...gpu,
      output,
      ...lse,
      ...rowMax,
    } as AttentionOptions;
    await attention(q.gpu, k.gpu, v.gpu, settings);
    const f64 = reference(q, k, v, { ...shared, ...features.cpu });
    const plain = reference(q, k, v, {
      ...shared,
      ...features.cpu,
      precision: "f32",
      ...(half && { store: ROUND.f16 }),
    });
    const expect = async (
      what: string,
      made: Tensor,
      want: Float64Array,
      rounded: Float64Array,
      shape: number[],
    ) => {
      const got = await made.read();
      expectSameNaN(
        `NaN in ${tainted}: ${what}`,
        got as Float32Array,
        want,
        rounded,
        shape,
        half && what === "output",
      );
    };
    await expect("output", output, f64.output, plain.output, [B, H, M, Dv]);
    if (lse.lse) await expect("lse", lse.lse, f64.lse, plain.lse, [B, H, M]);
    if (rowMax.rowMax) await expect("rowMax", rowMax.rowMax, f64.rowMax, plain.rowMax, [B, H, M]);
  } finally {
    for (const one of used) one.destroy();
  }
}

/** Fails unless NaN is where it is expected, and nowhere else, and the rest is close. */
export function expectSameNaN(
  what: string,
  got: ArrayLike<number>,
  want: ArrayLike<number>,
  plain: ArrayLike<number>,
  shape: readonly number[],
  half = false,
): void {
  const wrong = Array.from(want).findIndex((x, i) => Number.isNaN(x) !== Number.isNaN(got[i]));
  if (wrong >= 0)
    throw new Error(
      `${what}: element ${wrong} of [${shape}] is ${got[wrong]}, expected ${want[wrong]}`,
    );
  const finite = (from: ArrayLike<number>) =>
    Array.from(want, (x, i) => (Number.isNaN(x) ? 0 : from[i]));
  const both = { f64: finite(want), plain: finite(plain) };
  expectClose(what, finite(got), both, shape, half ? "f16-products" : "f32");
}
