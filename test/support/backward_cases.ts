// Gradients of attention problems as tests and fuzzing describe them, run on the GPU and compared
// with the reference.

import {
  type AttentionBackwardOptions,
  type AttentionOptions,
  attention,
  attentionBackward,
  createBlockMask,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import {
  attention as attention64,
  type ReferenceBackwardOptions,
  type ReferenceTensor,
  attentionBackward as reference,
} from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { type Case, type Float, product, ROUND } from "./cases.ts";
import { type Extreme, makeExtreme } from "./extremes.ts";
import { defined, featuresOf } from "./features.ts";
import { columnOrder, Evaluations, magnitudes, partOf } from "./gradient_parts.ts";
import { poisonRows, rowsSeen, unusedRows } from "./padding.ts";

export interface BackwardCase extends Omit<Case, "rowMax" | "kvSplits" | "extremes"> {
  /** Whether the log-sum-exp has a gradient, too. */
  readonly dLse?: boolean;
  /** Standard deviation of dOutput. Default 1. */
  readonly gradientSpread?: number;
  /** Gradients of what the options hold, which are compared, too: some, or all that there are. */
  readonly ofOptions?: readonly string[] | true;
  /** Whether queries that see no key, and keys that no query sees, hold NaN. */
  readonly hidden?: boolean;
  /**
   * Whether the output and the log-sum-exp are the reference's, so that no kernel of attention is
   * compiled.
   */
  readonly given?: boolean;
  /** Hostile values among the ordinary ones. */
  readonly extremes?: readonly BackwardExtreme[];
}

export type BackwardExtreme = Exclude<Extreme, `nan${string}` | `huge${string}` | "farBias">;

interface Made extends ReferenceTensor {
  readonly data: Float32Array;
  readonly dtype: Float;
}

/**
 * Runs attention and its gradients into poisoned tensors, and compares dQ, dK, dV and what else the
 * case asks for with the reference.
 */
export async function runBackwardCase(device: GPUDevice, problem: BackwardCase): Promise<void> {
  const { B = 1, H = 1, M, N, D, layout = "bhmd", seed = 1 } = problem;
  const { gradientSpread = 1, ofOptions = [] } = problem;
  const used: { destroy(): void }[] = [];
  const keep = <T extends { destroy(): void }>(made: T): T => {
    used.push(made);
    return made;
  };
  const put = ({ shape, data, dtype }: Made) => keep(tensor(device, shape, { data, dtype }));
  const poisoned = (shape: readonly number[], dtype: Float = "f32") =>
    put({ shape, dtype, data: new Float32Array(product(shape)).fill(Number.NaN) });
  try {
    const { causal, scale, variant, maxDispatchFlops, attentionChunk, sinkTokens, softcap } =
      problem;
    const shared = defined({ causal, scale, attentionChunk, sinkTokens, softcap, layout });
    const features = featuresOf(problem, { B, H, M, N, D }, seed);
    const gpu = features.gpu((size, options) => keep(tensor(device, size, options)));
    const blockMask = features.blockMask && {
      blockMask: keep(await createBlockMask(device, ...features.blockMask)),
      maskFunction: undefined,
    };
    const settings = { ...shared, ...gpu, ...blockMask } as AttentionOptions;
    const dLseData = normal(seed * 16 + 4, B * H * M, problem.given ? gradientSpread : 1);
    const options: ReferenceBackwardOptions = { ...shared, ...features.cpu };
    const { q, k, v, dOutput } = numbersOf(problem, options, dLseData);
    const [qGpu, kGpu, vGpu, dOutputGpu] = [q, k, v, dOutput].map(put);

    // Rows that belong to no entry stay as they were.
    const none = new Float32Array(B * H * M).fill(Number.NEGATIVE_INFINITY);
    const lse = put({ shape: [B, H, M], data: none, dtype: "f32" });
    const output = keep(tensor(device, dOutput.shape, { dtype: dOutput.dtype }));
    const byHeads = layout === "bhmd" ? [0, 1, 2, 3] : [0, 2, 1, 3];
    if (problem.given) {
      const right = attention64(q, k, v, options);
      await lse.write(right.lse);
      await output.permute(...byHeads).write(right.output);
    } else {
      await attention(qGpu, kGpu, vGpu, { ...settings, output, lse });
    }
    const wanted = (name: string) => ofOptions === true || ofOptions.includes(name);
    const held = Object.entries(features.gradients.options).filter(([name]) => wanted(name));
    const captures = Object.entries(features.gradients.captures).filter(() => wanted("dCaptures"));
    const poisonedAll = (shapes: readonly (readonly [string, readonly number[]])[]) =>
      Object.fromEntries(shapes.map(([name, shape]) => [name, poisoned(shape)]));
    const rows = { dQ: q, dK: k, dV: v };
    const results: Record<string, Tensor> = poisonedAll(held);
    for (const [name, { shape, dtype }] of Object.entries(rows))
      results[name] = poisoned(shape, dtype);
    const dCaptures: Record<string, Tensor> = poisonedAll(captures);
    const dLse = { shape: [B, H, M], data: dLseData, dtype: "f32" } as const;
    await attentionBackward(qGpu, kGpu, vGpu, {
      ...settings,
      ...defined({ variant, maxDispatchFlops }),
      ...results,
      ...(captures.length && { dCaptures }),
      ...(problem.dLse && { dLse: put(dLse) }),
      output,
      lse,
      dOutput: dOutputGpu,
    } as AttentionBackwardOptions);

    // Gradients can be no better than the output that they are given.
    const given = Float64Array.from(await output.permute(...byHeads).read());
    const dO = rowsFirst(dOutput, layout);
    const uncancelled = () => {
      const nothing = new Float64Array(given.length);
      const absolute = { dOutput: magnitudes(dO), precision: "f32", output: nothing } as const;
      const asked = { ...options, ...absolute };
      const values = { ...v, data: magnitudes(v.data) };
      const { dCaptures, ...found } = reference(q, k, values, asked);
      return { ...found, ...dCaptures };
    };
    // Numbers for each column of a similarity keep their order, so columns keep theirs.
    const isFree = typeof problem.similarity !== "object";
    const width = v.shape[3];
    const evaluations = new Evaluations(
      (precision, part, order = 0) => {
        const columns = columnOrder(isFree ? order : 0);
        const { dCaptures, ...found } = reference(columns.of(q), columns.of(k), columns.of(v), {
          ...options,
          dOutput: columns.in(partOf(dO, part), width),
          ...(problem.dLse && !part?.index && { dLse: dLseData }),
          ...(precision === "f32" && { precision, output: columns.in(given, width) }),
        });
        const ordered = {
          dQ: columns.back(found.dQ, D),
          dK: columns.back(found.dK, D),
          dV: columns.back(found.dV, width),
        };
        return { ...found, ...ordered, ...dCaptures };
      },
      { uncancelled },
    );
    for (const [name, { dtype }] of Object.entries(rows)) {
      const result = results[name].permute(...byHeads);
      evaluations.expectClose(name, await result.read(), result.shape, dtype);
    }
    for (const [name, shape] of held)
      evaluations.expectClose(name, await results[name].read(), shape);
    for (const [name, shape] of captures)
      evaluations.expectClose(name, await dCaptures[name].read(), shape);
  } finally {
    for (const one of used) one.destroy();
  }
}

/** Draws q, k, v and dOutput, with NaN where nothing may read; in dLse, too. */
function numbersOf(
  problem: BackwardCase,
  options: ReferenceBackwardOptions,
  dLse: Float32Array,
): Readonly<Record<"q" | "k" | "v" | "dOutput", Made>> {
  const { B = 1, H = 1, Hkv = H, M, N, D, Dv = D, layout = "bhmd", seed = 1 } = problem;
  const { spread = 1, valueSpread = 1, gradientSpread = 1 } = problem;
  const dtypes: readonly Float[] = Array.isArray(problem.dtype)
    ? problem.dtype
    : new Array(4).fill(problem.dtype ?? "f32");
  const { qLengths, kvLengths, cuSeqlensQ, cuSeqlensKv } = problem;
  const make = (what: number, h: number, rows: number, d: number, deviation: number): Made => {
    const dtype = dtypes[what];
    const shape = layout === "bhmd" ? [B, h, rows, d] : [B, rows, h, d];
    const drawn = normal(seed * 16 + what, product(shape), deviation);
    if (what < 3) {
      const of = (["Q", "K", "V"] as const)[what];
      const extreme = { of, seed, ...defined({ extremes: problem.extremes }) };
      makeExtreme(drawn, d, { ...extreme, f16: dtypes.includes("f16") });
    }
    return { shape, data: drawn.map(ROUND[dtype]), dtype };
  };
  const made = {
    q: make(0, H, M, D, spread),
    k: make(1, Hkv, N, D, spread),
    v: make(2, Hkv, N, Dv, valueSpread),
    dOutput: make(3, H, M, Dv, gradientSpread),
  };
  const poison = (of: Made, unused: ReturnType<typeof unusedRows>, heads?: readonly number[]) =>
    poisonRows(of.data, [...of.shape], layout, unused, heads);
  if (problem.hidden) {
    const seen = rowsSeen(made.q, made.k, options);
    const sides = [
      { of: [made.q, made.dOutput], heads: H, rows: M, some: seen.queries },
      { of: [made.k, made.v], heads: Hkv, rows: N, some: seen.keys },
    ];
    for (const { of, heads, rows, some } of sides) {
      for (let row = 0; row < B * heads * rows; row++) {
        if (some.has(row)) continue;
        const place = [Math.floor(row / (heads * rows)), row % rows] as const;
        for (const one of of) poison(one, [place], [Math.floor(row / rows) % heads]);
      }
    }
    if (!options.sinks)
      for (let row = 0; row < dLse.length; row++)
        if (!seen.queries.has(row)) dLse[row] = Number.NaN;
  }
  if (problem.poison) {
    const queries = unusedRows(B, M, qLengths, cuSeqlensQ);
    const keys = unusedRows(B, N, kvLengths, cuSeqlensKv);
    for (const one of [made.q, made.dOutput]) poison(one, queries);
    for (const one of [made.k, made.v]) poison(one, keys);
  }
  return made;
}

/** The elements of a tensor in BHMD order. */
function rowsFirst({ shape, data }: Made, layout: Case["layout"]): Float32Array {
  if (layout !== "bmhd") return data;
  const [, M, H, D] = shape;
  return Float32Array.from(data, (_, index) => {
    const d = index % D;
    const m = Math.floor(index / D) % M;
    const h = Math.floor(index / (D * M)) % H;
    const b = Math.floor(index / (D * M * H));
    return data[((b * M + m) * H + h) * D + d];
  });
}
