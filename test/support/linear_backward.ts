// Problems of linear attention's gradients as tests and fuzzing describe them: those of the
// attention, run on the GPU and compared with the reference.

import {
  type LinearAttentionBackwardOptions,
  type LinearAttentionBackwardProblem,
  type LinearGradient,
  linearAttentionBackward,
  planLinearAttentionBackward,
  Tensor,
  tensor,
} from "../../src/index.ts";
import { BOUNDS } from "../../src/reference/bounds.ts";
import { largest } from "../../src/reference/compare.ts";
import { linearAttentionBackward as reference } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { type Float, product, ROUND } from "./cases.ts";
import { expectClose } from "./closeness.ts";
import { dataOf, type LinearCase, settingsOf } from "./linear.ts";

export interface LinearBackwardCase extends Omit<LinearCase, "variant" | "keeps" | "extremes"> {
  /** Whether there are gradients of the state after. */
  readonly dState?: boolean;
  readonly gradients?: readonly LinearGradient[];
  /** Standard deviation of the gradient of the output. Default 1. */
  readonly dSpread?: number;
  /** Whether inputs and gradients are views with other strides. */
  readonly strided?: boolean;
  /** How the gradients are stored. Default as what they belong to. */
  readonly dDtype?: Float;
}

/** Runs a case into poisoned gradients and compares them with the reference. */
export async function runLinearBackwardCase(
  device: GPUDevice,
  problem: LinearBackwardCase,
): Promise<void> {
  const data = dataOf(problem);
  const { B, Hkv, D, Dv } = data.sizes;
  const { layout = "bhmd", seed = 1, dSpread = 1, strided = false } = problem;
  const normalized = problem.normalized ?? problem.updateRule === undefined;
  const used: Tensor[] = [];
  const put = (
    shape: readonly number[],
    values: ArrayLike<number>,
    dtype: Tensor["dtype"] = "f32",
  ) => {
    const made = tensor(device, shape, { data: Float64Array.from(values), dtype });
    used.push(made);
    return made;
  };
  /** The same, in memory that holds one element more in each row. */
  const place = (shape: readonly number[], values: ArrayLike<number>, dtype: Float) => {
    if (!strided) return put(shape, values, dtype);
    const width = shape[3];
    const wide = Float64Array.from({ length: product(shape.slice(0, 3)) * (width + 1) }, (_, i) =>
      i % (width + 1) === width
        ? Number.NaN
        : values[Math.floor(i / (width + 1)) * width + (i % (width + 1))],
    );
    return put([...shape.slice(0, 3), width + 1], wide, dtype).slice(3, 0, width);
  };
  const nans = (shape: readonly number[]) => new Float64Array(product(shape)).fill(Number.NaN);
  try {
    const inputs = Object.fromEntries(
      data.tensors.map(([name, { shape, values, dtype }]) => [name, place(shape, values, dtype)]),
    );
    const draw = (what: number, shape: readonly number[], deviation: number) =>
      normal(seed * 16 + what, product(shape), deviation);
    const [, , , , outDtype] = data.dtypes;
    const dOutput = draw(9, data.outputShape, dSpread).map(ROUND[outDtype]);
    const states = { State: [B, Hkv, D, Dv], Normalizer: [B, Hkv, D] };
    const dState = draw(10, states.State, dSpread);
    const dNormalizer = draw(11, states.Normalizer, dSpread);
    const masks = data.keyMask && put(data.keyMask.shape, data.keyMask.values, "u8");
    const lengths =
      problem.kvLengths && problem.onGpu ? put([B], problem.kvLengths, "i32") : problem.kvLengths;

    const [q, k, v, options] = data.reference;
    const given = {
      ...options,
      dOutput: inBhmd(dOutput, data.outputShape, layout),
      ...(problem.dState && { dState }),
      ...(problem.dState && normalized && { dNormalizer }),
    };
    const f64 = reference(q, k, v, given);
    const plain = reference(q, k, v, { ...given, precision: "f32" });
    // With one column, or one key, the output of normalised rows is v whatever q and k are.
    const cancels = normalized && (D === 1 || problem.N === 1);
    const rounding = cancels ? (largest(dOutput) * largest(v.data) * BOUNDS.f32.floor) / 3 : 0;
    const all: readonly (readonly [LinearGradient, readonly number[] | undefined, Float])[] = [
      ...data.tensors.map(
        ([name, { shape, dtype }]) =>
          [`d${name[0].toUpperCase()}${name.slice(1)}` as LinearGradient, shape, dtype] as const,
      ),
      ["dPastState", problem.past ? states.State : undefined, "f32"] as const,
      ["dPastNormalizer", problem.past && normalized ? states.Normalizer : undefined, "f32"],
    ];
    const wanted = all.filter(
      ([name, shape]) => shape && (problem.gradients?.includes(name) ?? true),
    );
    const results = wanted.map(([name, shape = [], dtype]) => {
      const stored = name.startsWith("dPast") ? "f32" : (problem.dDtype ?? dtype);
      const made =
        shape.length === 4 && !name.startsWith("dPast")
          ? place(shape, nans(shape), stored)
          : put(shape, nans(shape));
      return { name, shape, stored, made };
    });
    const memory: Record<string, Tensor> = {
      ...inputs,
      dOutput: place(data.outputShape, dOutput, outDtype),
      ...(masks && { keyMask: masks }),
      ...(problem.past && { pastState: put(states.State, data.past.State) }),
      ...(problem.past &&
        normalized && { pastNormalizer: put(states.Normalizer, data.past.Normalizer) }),
      ...(problem.dState && { dPresentState: put(states.State, dState) }),
      ...(problem.dState &&
        normalized && { dPresentNormalizer: put(states.Normalizer, dNormalizer) }),
      ...Object.fromEntries(results.map(({ name, made }) => [name, made])),
    };
    const settings = {
      ...settingsOf(problem),
      ...(lengths && { kvLengths: lengths }),
      ...(problem.gradients && { gradients: problem.gradients }),
    };
    if (problem.planned) await runPlan(device, settings, memory);
    else {
      const { q: qIn, k: kIn, v: vIn, ...rest } = memory;
      const asked = { ...settings, ...rest } as unknown as LinearAttentionBackwardOptions;
      await linearAttentionBackward(qIn, kIn, vIn, asked);
    }
    for (const { name, shape, stored, made } of results) {
      const rows = shape.length === 4 && !name.startsWith("dPast");
      const bhmd = rows && layout === "bmhd" ? made.permute(0, 2, 1, 3) : made;
      const key = name as keyof typeof f64;
      expectClose(
        name,
        await bhmd.read(),
        { f64: f64[key], plain: plain[key].map((x) => ROUND[stored](x + rounding)) },
        bhmd.shape,
        stored,
      );
    }
  } finally {
    for (const one of used) one.destroy();
  }
}

/** Plans with the looks of the tensors only, and gives the tensors themselves at encode. */
async function runPlan(
  device: GPUDevice,
  settings: object,
  memory: Readonly<Record<string, Tensor>>,
): Promise<void> {
  const looks = Object.entries(memory).map(([name, { shape, strides, offset, dtype }]) => [
    name,
    { shape, strides, offset, dtype },
  ]);
  const plan = await planLinearAttentionBackward(device, {
    ...settings,
    ...Object.fromEntries(looks),
  } as LinearAttentionBackwardProblem);
  const encoder = device.createCommandEncoder();
  const lengths = (settings as { kvLengths?: unknown }).kvLengths;
  plan.encode(encoder, { ...memory, ...(lengths instanceof Tensor && { kvLengths: lengths }) });
  device.queue.submit([encoder.finish()]);
  plan.destroy();
}

/** Rows of heads, whatever the layout. */
function inBhmd(values: ArrayLike<number>, shape: readonly number[], layout: string) {
  if (layout === "bhmd") return values;
  const [, M, H, D] = shape;
  return Float64Array.from({ length: values.length }, (_, i) => {
    const d = i % D;
    const m = Math.floor(i / D) % M;
    const h = Math.floor(i / D / M) % H;
    const b = Math.floor(i / D / M / H);
    return values[((b * M + m) * H + h) * D + d];
  });
}
