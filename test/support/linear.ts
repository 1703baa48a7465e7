// Problems of linear attention as tests and fuzzing describe them: plain data, run on the GPU,
// compared with the reference.

import {
  type LinearAttentionOptions,
  type LinearAttentionProblem,
  type LinearAttentionSettings,
  linearAttention,
  planLinearAttention,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import {
  type ReferenceLinearOptions,
  linearAttention as reference,
} from "../../src/reference/index.ts";
import { integers, normal } from "../../src/reference/random.ts";
import { type Float, product, ROUND } from "./cases.ts";
import { expectClose } from "./closeness.ts";
import { expectExtremeClose } from "./extreme_bounds.ts";
import { addNans, type Extreme, makeExtreme } from "./extremes.ts";
import { defined } from "./features.ts";
import { poisonRows } from "./padding.ts";

export interface LinearCase extends Omit<LinearAttentionSettings, "kvLengths" | "label"> {
  readonly B?: number;
  readonly H?: number;
  /** Heads of v, default H, and of k, default those of v. */
  readonly Hkv?: number;
  readonly Hk?: number;
  /** Default N. */
  readonly M?: number;
  readonly N: number;
  readonly D: number;
  /** Default D. */
  readonly Dv?: number;
  /** Decays for each row of the state, not for each head. */
  readonly rowDecay?: boolean;
  /** Standard deviation of the logarithm of decays, which are negative. Default 0.3. */
  readonly decaySpread?: number;
  /** Share of the tokens whose decay is -Infinity. */
  readonly forget?: number;
  /** Whether all heads share one beta. */
  readonly sharedBeta?: boolean;
  readonly kvLengths?: readonly number[];
  /** Whether lengths are a tensor, not numbers. */
  readonly onGpu?: boolean;
  /** Share of the keys that a mask keeps, for each entry or for all. */
  readonly keyMask?: { readonly keep: number; readonly shared?: boolean };
  /** Whether keys and values that are not used hold NaN. */
  readonly poison?: boolean;
  /** Whether there is a state before. */
  readonly past?: boolean;
  /** Where the new state goes: nowhere, into other tensors, or in place. */
  readonly keeps?: "present" | "place";
  /** How q, k, v, decay and beta, and the output are stored. Default f32. */
  readonly dtype?: Float | readonly [q: Float, k: Float, v: Float, gates: Float, o: Float];
  /**
   * Standard deviation of q and k. Default 1; with delta rules keys have length 1 whatever it is.
   */
  readonly spread?: number;
  readonly seed?: number;
  /** Hostile values among the ordinary ones. */
  readonly extremes?: readonly Extreme[];
  /** Whether it is made as a plan, with tensors given at encode. */
  readonly planned?: boolean;
}

/**
 * Runs a case into poisoned outputs and compares output, state and normaliser with the reference.
 */
export async function runLinearCase(device: GPUDevice, problem: LinearCase): Promise<void> {
  const data = dataOf(problem);
  const { B, H, M, Dv, D, Hkv } = data.sizes;
  const used: Tensor[] = [];
  const put = (
    shape: readonly number[],
    values: ArrayLike<number>,
    dtype: Tensor["dtype"] = "f32",
    label = "test",
  ) => {
    const made = tensor(device, shape, { data: Float64Array.from(values), dtype, label });
    used.push(made);
    return made;
  };
  const empty = (shape: readonly number[], dtype: Tensor["dtype"] = "f32") =>
    put(shape, new Float64Array(product(shape)).fill(Number.NaN), dtype);
  try {
    const { q, k, v, decay, beta } = Object.fromEntries(
      data.tensors.map(([name, { shape, values, dtype }]) => [
        name,
        put(shape, values, dtype, name),
      ]),
    );
    const output = empty(data.outputShape, data.dtypes[4]);
    const states = statesOf(problem, data, put, empty);
    const mask = data.keyMask && put(data.keyMask.shape, data.keyMask.values, "u8");
    const lengths =
      problem.kvLengths && problem.onGpu ? put([B], problem.kvLengths, "i32") : problem.kvLengths;
    const memory = defined<Record<string, Tensor>>({
      decay,
      beta,
      keyMask: mask,
      output,
      ...states,
    });
    const options = { ...settingsOf(problem), ...(lengths && { kvLengths: lengths }) };
    if (problem.planned) await runPlan(device, { ...options, q, k, v, ...memory });
    else await linearAttention(q, k, v, { ...options, ...memory } as LinearAttentionOptions);

    const bhmd = output.permute(...(problem.layout === "bmhd" ? [0, 2, 1, 3] : [0, 1, 2, 3]));
    const f64 = reference(...data.reference);
    const plain = reference(data.reference[0], data.reference[1], data.reference[2], {
      ...data.reference[3],
      precision: "f32",
    });
    const stored = plain.output.map(ROUND[data.dtypes[4]]);
    const expectRight = problem.extremes ? expectExtremeClose : expectClose;
    expectRight(
      "output",
      await bhmd.read(),
      { f64: f64.output, plain: stored },
      [B, H, M, Dv],
      data.dtypes[4],
    );
    for (const [name, tensorOf] of Object.entries(states)) {
      if (name.startsWith("past")) continue;
      const which = name.endsWith("tate") ? "state" : "normalizer";
      const shape = which === "state" ? [B, Hkv, D, Dv] : [B, Hkv, D];
      expectRight(
        name,
        await (tensorOf as Tensor).read(),
        { f64: f64[which], plain: plain[which] },
        shape,
      );
    }
  } finally {
    for (const one of used) one.destroy();
  }
}

/** Plans with the looks of the tensors only, and gives the tensors themselves at encode. */
async function runPlan(device: GPUDevice, problem: LinearAttentionProblem): Promise<void> {
  const { kvLengths, ...rest } = problem;
  const isTensor = (value: unknown): value is Tensor =>
    typeof value === "object" && value !== null && "buffer" in value;
  const looks = Object.entries(rest).map(([name, value]) => {
    if (!isTensor(value)) return [name, value];
    const { shape, strides, offset, dtype } = value;
    return [name, { shape, strides, offset, dtype }];
  });
  const plan = await planLinearAttention(device, {
    ...Object.fromEntries(looks),
    ...(kvLengths && { kvLengths }),
  });
  const encoder = device.createCommandEncoder();
  plan.encode(
    encoder,
    Object.fromEntries(Object.entries(rest).filter(([, value]) => isTensor(value))),
  );
  device.queue.submit([encoder.finish()]);
  plan.destroy();
}

export const settingsOf = ({
  updateRule,
  causal,
  featureMap,
  normalized,
  scale,
  layout,
  variant,
  maxDispatchFlops,
}: LinearCase) =>
  defined<LinearAttentionSettings>({
    updateRule,
    causal,
    featureMap,
    normalized,
    scale,
    layout,
    variant,
    maxDispatchFlops,
  });

type Data = ReturnType<typeof dataOf>;

/** Makes the tensors of the state that the case asks for. */
function statesOf(
  { past, keeps, updateRule, normalized = updateRule === undefined }: LinearCase,
  data: Data,
  put: (shape: readonly number[], values: ArrayLike<number>) => Tensor,
  empty: (shape: readonly number[]) => Tensor,
): Record<string, Tensor> {
  const { B, Hkv, D, Dv } = data.sizes;
  const shapes = { State: [B, Hkv, D, Dv], Normalizer: [B, Hkv, D] };
  const made: Record<string, Tensor> = {};
  for (const kind of ["State", "Normalizer"] as const) {
    if (kind === "Normalizer" && !normalized) continue;
    const before = data.past[kind];
    if (keeps === "place") made[kind.toLowerCase()] = put(shapes[kind], before);
    else if (past) made[`past${kind}`] = put(shapes[kind], before);
    if (keeps === "present") made[`present${kind}`] = empty(shapes[kind]);
  }
  return made;
}

/** Makes the seeded data of a case, as the GPU and the reference take it. */
export function dataOf(problem: LinearCase) {
  const {
    B = 1,
    H = 1,
    Hkv = H,
    Hk = Hkv,
    N,
    M = N,
    D,
    Dv = D,
    layout = "bhmd",
    seed = 1,
    spread = 1,
  } = problem;
  const { updateRule, decaySpread = 0.3, forget = 0 } = problem;
  const delta = updateRule?.endsWith("delta");
  const dtypes: readonly Float[] = Array.isArray(problem.dtype)
    ? problem.dtype
    : new Array(5).fill(problem.dtype ?? "f32");
  const shape = (h: number, n: number, d: number) =>
    layout === "bhmd" ? [B, h, n, d] : [B, n, h, d];
  const make = (what: number, size: number[], values: ArrayLike<number>) => {
    const dtype: Float = dtypes[what];
    const drawn = Float32Array.from(values);
    const extreme = {
      of: "QKV"[what] as "Q" | "K" | "V",
      seed,
      ...defined({ extremes: problem.extremes }),
    };
    if (what < 3) makeExtreme(drawn, size[3], { ...extreme, f16: true });
    const rounded = drawn.map(ROUND[dtype]);
    if (what < 3) addNans(rounded, size[3], extreme);
    return { shape: size, values: rounded, dtype };
  };
  const draw = (what: number, size: number[], deviation: number) =>
    normal(seed * 16 + what, product(size), deviation);
  const kShape = shape(Hk, N, D);
  const keys = draw(1, kShape, delta ? 1 / Math.sqrt(D) : spread);
  const q = make(0, shape(H, M, D), draw(0, shape(H, M, D), spread));
  const k = make(1, kShape, keys);
  const v = make(2, shape(Hkv, N, Dv), draw(2, shape(Hkv, N, Dv), 1));
  const decayShape = shape(Hkv, N, problem.rowDecay ? D : 1);
  const betaShape = shape(problem.sharedBeta ? 1 : Hkv, N, 1);
  const chance = integers(seed * 16 + 5, product(decayShape), 0, 999);
  const decays = draw(3, decayShape, decaySpread).map((g, i) =>
    chance[i] < 1000 * forget ? Number.NEGATIVE_INFINITY : -Math.abs(g),
  );
  const decay = updateRule?.startsWith("gated") ? make(3, decayShape, decays) : undefined;
  const beta = delta
    ? make(
        3,
        betaShape,
        draw(4, betaShape, 1).map((x) => 1 / (1 + Math.exp(-x))),
      )
    : undefined;
  const keyMask = problem.keyMask && {
    shape: [problem.keyMask.shared ? 1 : B, N],
    values: integers(seed * 16 + 6, (problem.keyMask.shared ? 1 : B) * N, 0, 999).map((x) =>
      Number(x < 1000 * (problem.keyMask?.keep ?? 1)),
    ),
  };
  const sizes = { B, H: Math.max(H, Hkv), Hkv, M, N, D, Dv };
  const before = (what: number, size: number[]) =>
    problem.past
      ? draw(what, size, 1).map((x) => (what === 8 ? Math.abs(x) : x))
      : new Float32Array(product(size));
  const past = { State: before(7, [B, Hkv, D, Dv]), Normalizer: before(8, [B, Hkv, D]) };
  const cpu = (t: typeof q) => ({ data: t.values.slice(), shape: t.shape });
  const options = defined<ReferenceLinearOptions>({
    ...settingsOf(problem),
    decay: decay && cpu(decay),
    beta: beta && cpu(beta),
    kvLengths: problem.kvLengths,
    keyMask: keyMask && { data: keyMask.values, shape: keyMask.shape },
    pastState: past.State,
    pastNormalizer: past.Normalizer,
  });
  const reference = [cpu(q), cpu(k), cpu(v), options] as const;
  if (problem.poison) {
    const masked = (b: number, n: number) =>
      keyMask && !keyMask.values[(keyMask.shape[0] > 1 ? b * N : 0) + n];
    const unused = Array.from(
      { length: B * N },
      (_, at) => [Math.floor(at / N), at % N] as const,
    ).filter(([b, n]) => n >= (problem.kvLengths?.[b] ?? N) || masked(b, n));
    for (const one of [k, v, ...(decay ? [decay] : []), ...(beta ? [beta] : [])]) {
      poisonRows(one.values, one.shape, layout, unused);
    }
  }
  const tensors = Object.entries({ q, k, v, decay, beta }).flatMap(([name, one]) =>
    one ? [[name, one] as const] : [],
  );
  return { sizes, dtypes, tensors, keyMask, past, reference, outputShape: shape(sizes.H, M, Dv) };
}
