// Gradients of what the options of scores hold, as tests describe them: run on the GPU and compared
// with the reference. Attention's output and log-sum-exp come from the reference, so that nothing
// but the gradients is compiled.

import {
  type AttentionBackwardOptions,
  attentionBackward,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import {
  type ReferenceBackwardOptions,
  attention as reference,
  attentionBackward as referenceBackward,
} from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { type Float, ROUND } from "./cases.ts";
import { expectClose } from "./closeness.ts";
import { defined, type Features, featuresOf } from "./features.ts";
import { poisonRows, unusedRows } from "./padding.ts";

/** The gradients, and the option that each is of. */
const OPTIONS = {
  dBias: "bias",
  dAlibiSlopes: "alibiSlopes",
  dRelativeBias: "relativeBias",
  dSinks: "sinks",
  dTemperature: "temperature",
  dLogTemperature: "logTemperature",
} as const;
type Name = keyof typeof OPTIONS;

export interface ScoreGradientCase
  extends Omit<Features, "scoreFunction" | "rowMax" | "extremes" | "blockSize">,
    Pick<
      AttentionBackwardOptions,
      | "causal"
      | "scale"
      | "softcap"
      | "variant"
      | "maxDispatchFlops"
      | "layout"
      | "sinkTokens"
      | "attentionChunk"
    > {
  readonly B?: number;
  readonly H?: number;
  readonly Hkv?: number;
  readonly M: number;
  readonly N: number;
  readonly D?: number;
  readonly Dv?: number;
  readonly dtype?: Float;
  /** Standard deviations of q and k, of v, and of dOutput and dLse. Default 1. */
  readonly spread?: number;
  readonly valueSpread?: number;
  readonly gradientSpread?: number;
  readonly seed?: number;
  /** Options that are given as they are, as numbers. */
  readonly given?: Pick<ReferenceBackwardOptions, "temperature" | "logTemperature">;
  /** Whether each gradient has every second element of its memory. */
  readonly strided?: boolean;
  /** Whether rows past the used lengths hold NaN. */
  readonly poison?: boolean;
  /** Changes the numbers of q, k, v and dOutput. */
  readonly change?: (data: Record<"q" | "k" | "v" | "dOutput", Float32Array>) => void;
}

/** A problem on the GPU and for the reference. */
export function makeScoreGradients(device: GPUDevice, problem: ScoreGradientCase) {
  const { B = 1, H = 1, Hkv = H, M, N, D = 8, Dv = D, seed = 1, dtype = "f32" } = problem;
  const { spread = 1, valueSpread = 1, gradientSpread = 1, layout = "bhmd" } = problem;
  const used: Tensor[] = [];
  const make = (shape: readonly number[], options: Parameters<typeof tensor>[2]) => {
    const made = tensor(device, shape, options);
    used.push(made);
    return made;
  };
  const size = (b: number, h: number, m: number, d: number) =>
    layout === "bhmd" ? [b, h, m, d] : [b, m, h, d];
  const shapes = {
    q: size(B, H, M, D),
    k: size(B, Hkv, N, D),
    v: size(B, Hkv, N, Dv),
    dOutput: size(B, H, M, Dv),
  };
  const numbers = (what: number, shape: readonly number[], deviation: number) =>
    normal(
      seed * 16 + what,
      shape.reduce((all, one) => all * one, 1),
      deviation,
    ).map(ROUND[dtype]);
  const data = {
    q: numbers(0, shapes.q, spread),
    k: numbers(1, shapes.k, spread),
    v: numbers(2, shapes.v, valueSpread),
    dOutput: numbers(3, shapes.dOutput, gradientSpread),
  };
  if (problem.poison) {
    const { qLengths, kvLengths, cuSeqlensQ, cuSeqlensKv } = problem;
    const queries = unusedRows(B, M, qLengths, cuSeqlensQ);
    const keys = unusedRows(B, N, kvLengths, cuSeqlensKv);
    for (const name of ["q", "dOutput"] as const)
      poisonRows(data[name], [...shapes[name]], layout, queries);
    for (const name of ["k", "v"] as const) poisonRows(data[name], [...shapes[name]], layout, keys);
  }
  problem.change?.(data);
  const dLse = normal(seed * 16 + 4, B * H * M, gradientSpread);
  const { causal, scale, softcap, variant, maxDispatchFlops, sinkTokens, attentionChunk } = problem;
  const shared = defined({ causal, scale, softcap, layout, sinkTokens, attentionChunk });
  const features = featuresOf(problem, { B, H, M, N, D }, seed);
  const of = (name: keyof typeof data) => ({ data: data[name], shape: shapes[name] });
  const cpu: ReferenceBackwardOptions = { ...shared, ...features.cpu, ...problem.given };
  const forward = reference(of("q"), of("k"), of("v"), cpu);
  const stored = (name: keyof typeof data) => make(shapes[name], { data: data[name], dtype });
  // The reference has the axes in the order of heads first.
  const output = make([B, H, M, Dv], { data: Float32Array.from(forward.output) });
  const options = {
    ...shared,
    ...defined({ variant, maxDispatchFlops }),
    ...features.gpu(make),
    ...problem.given,
    output: layout === "bhmd" ? output : output.permute(0, 2, 1, 3),
    lse: make([B, H, M], { data: Float32Array.from(forward.lse) }),
    dLse: make([B, H, M], { data: dLse }),
    dOutput: stored("dOutput"),
  } as AttentionBackwardOptions;
  const names = (Object.keys(OPTIONS) as Name[]).filter((name) => OPTIONS[name] in options);
  const headsFirst = Float32Array.from({ length: data.dOutput.length }, (_, at) => {
    const d = at % Dv;
    const m = Math.floor(at / Dv) % M;
    const h = Math.floor(at / (Dv * M)) % H;
    const b = Math.floor(at / (Dv * M * H));
    return data.dOutput[layout === "bhmd" ? at : ((b * M + m) * H + h) * Dv + d];
  });
  const gradientsOf = (precision: "f64" | "f32") =>
    referenceBackward(of("q"), of("k"), of("v"), { ...cpu, dOutput: headsFirst, dLse, precision });
  /** A poisoned tensor for a gradient. */
  const result = (name: Name): Tensor => {
    const shape = features.gradients.options[name] ?? [H]; // of numbers that are given
    const room = problem.strided ? [...shape, 2] : shape;
    const count = room.reduce((all, one) => all * one, 1);
    const made = make(room, { data: new Float32Array(count).fill(Number.NaN) });
    if (!problem.strided) return made;
    return made.view({ shape, strides: made.strides.slice(0, -1), offset: count ? 1 : 0 });
  };
  return {
    names,
    options,
    results: Object.fromEntries(names.map((name) => [name, result(name)])),
    q: stored("q"),
    k: stored("k"),
    v: stored("v"),
    gradientsOf,
    destroy: () => {
      for (const one of used) one.destroy();
    },
  };
}

/** Runs the gradients of a problem's options into poisoned tensors, and compares them. */
export async function runScoreGradients(
  device: GPUDevice,
  problem: ScoreGradientCase,
): Promise<Readonly<Record<string, Float32Array>>> {
  const made = makeScoreGradients(device, problem);
  const { names, options, results, q, k, v } = made;
  try {
    const found = await attentionBackward(q, k, v, { ...options, ...results });
    const f64 = made.gradientsOf("f64");
    const plain = made.gradientsOf("f32");
    const values: Record<string, Float32Array> = {};
    for (const name of names) {
      const { shape } = results[name];
      values[name] = (await results[name].read()) as Float32Array;
      const precise = heads(f64[name], shape);
      expectClose(name, values[name], { f64: precise, plain: heads(plain[name], shape) }, shape);
    }
    for (const name of ["dQ", "dK", "dV"] as const) found[name].destroy();
    return values;
  } finally {
    made.destroy();
  }
}

/** The reference has one sum for an option that is one number; tests give numbers for each head. */
function heads(values: ArrayLike<number>, shape: readonly number[]): ArrayLike<number> {
  const count = shape.reduce((all, one) => all * one, 1);
  if (values.length !== count) throw new Error(`${values.length} gradients for [${shape}]`);
  return values;
}
