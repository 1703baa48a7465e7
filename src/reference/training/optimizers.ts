// Optimisers in float64: the formulas of torch.optim's SGD, Adam and AdamW, of Lion
// (arXiv:2302.06675, algorithm 2) and of Muon (torch.optim.Muon, after Jordan et al. 2024).

import { type ReferenceSchedule, rateFactor } from "./schedules.ts";

/** The settings of an algorithm. Names and defaults are those of `planOptimizer`. */
export interface ReferenceOptimizerOptions {
  readonly kind: "SGD" | "Adam" | "AdamW" | "Lion" | "Muon";
  readonly lr?: number;
  readonly betas?: readonly [number, number];
  readonly eps?: number;
  readonly weightDecay?: number;
  readonly amsgrad?: boolean;
  readonly momentum?: number;
  readonly dampening?: number;
  readonly nesterov?: boolean;
  readonly nsSteps?: number;
  readonly nsCoefficients?: readonly [number, number, number];
  readonly adjustLr?: "original" | "match_rms_adamw";
  readonly adamw?: Omit<ReferenceOptimizerOptions, "kind">;
}

/** What an optimiser is made for. Parameters are flat, and are updated where they are. */
export interface ReferenceOptimizerProblem extends ReferenceOptimizerOptions {
  readonly parameters: readonly {
    readonly data: Float64Array;
    readonly shape: readonly number[];
  }[];
  readonly groups?: readonly (Partial<ReferenceOptimizerOptions> & {
    readonly parameters: readonly number[];
  })[];
  readonly clip?: { readonly maxNorm: number };
  readonly schedule?: ReferenceSchedule;
}

/** What an update was: the norm of all gradients before clipping, and the schedule's factor. */
export interface ReferenceUpdate {
  readonly norm: number;
  readonly factor: number;
}

/** An optimiser, with the state of each parameter by PyTorch's names. */
export interface ReferenceOptimizer {
  readonly state: readonly Record<string, Float64Array>[];
  /** Updates the parameters by a gradient for each. */
  update(gradients: readonly ArrayLike<number>[]): ReferenceUpdate;
}

/** One parameter at one update, counted from 1. */
interface Turn {
  readonly p: Float64Array;
  readonly g: Float64Array;
  readonly shape: readonly number[];
  readonly rate: number;
  readonly count: number;
  /** A tensor of the state, which begins with zeros. */
  kept(name: string): Float64Array;
}

type Settings = Omit<ReferenceOptimizerOptions, "kind">;

/** Makes an optimiser. */
export function optimizer(problem: ReferenceOptimizerProblem): ReferenceOptimizer {
  const { parameters, groups = [], clip, schedule } = problem;
  const state: Record<string, Float64Array>[] = parameters.map(() => ({}));
  let count = 0;
  return {
    state,
    update(given) {
      const norm = Math.sqrt(
        given.reduce((sum, one) => Array.from(one).reduce((all, x) => all + x * x, sum), 0),
      );
      const clipped = clip ? Math.min(1, clip.maxNorm / (norm + 1e-6)) : 1;
      const factor = rateFactor(schedule, count);
      count++;
      for (const [index, { data: p, shape }] of parameters.entries()) {
        const g = Float64Array.from(given[index], (x) => x * clipped);
        const group = groups.find(({ parameters: members }) => members.includes(index));
        const isLike = (group?.kind ?? problem.kind) === problem.kind;
        const own = { ...(isLike && problem), ...group } as ReferenceOptimizerOptions;
        const isRest = own.kind === "Muon" && shape.length !== 2;
        const kind = isRest ? "AdamW" : own.kind;
        const settings = isRest ? (own.adamw ?? {}) : own;
        const kept = (name: string) => {
          state[index][name] ??= new Float64Array(p.length);
          return state[index][name];
        };
        const rate = (settings.lr ?? (kind === "Lion" ? 1e-4 : 1e-3)) * factor;
        UPDATES[kind]({ p, g, shape, rate, count, kept }, settings);
      }
      return { norm, factor };
    },
  };
}

const UPDATES: Readonly<
  Record<ReferenceOptimizerOptions["kind"], (turn: Turn, settings: Settings) => void>
> = {
  SGD({ p, g, rate, count, kept }, settings) {
    const { momentum = 0, dampening = 0, nesterov = false, weightDecay = 0 } = settings;
    for (let i = 0; i < p.length; i++) {
      let step = g[i] + weightDecay * p[i];
      if (momentum) {
        const buffer = kept("momentum");
        buffer[i] = count === 1 ? step : momentum * buffer[i] + (1 - dampening) * step;
        step = nesterov ? step + momentum * buffer[i] : buffer[i];
      }
      p[i] -= rate * step;
    }
  },
  Adam(turn, settings) {
    const { weightDecay = 0 } = settings;
    adam(turn, settings, weightDecay);
  },
  AdamW(turn, settings) {
    shrink(turn, settings.weightDecay ?? 0.01);
    adam(turn, settings, 0);
  },
  Lion(turn, { betas = [0.9, 0.99], weightDecay = 0 }) {
    const { p, g, rate, kept } = turn;
    const momentum = kept("momentum");
    shrink(turn, weightDecay);
    for (let i = 0; i < p.length; i++) {
      p[i] -= rate * Math.sign(betas[0] * momentum[i] + (1 - betas[0]) * g[i]);
      momentum[i] = betas[1] * momentum[i] + (1 - betas[1]) * g[i];
    }
  },
  Muon(turn, settings) {
    const { p, g, shape, rate, kept } = turn;
    const { momentum: beta = 0.95, nesterov = true, weightDecay = 0.1 } = settings;
    const [rows, columns] = shape;
    const momentum = kept("momentum");
    shrink(turn, weightDecay);
    const mixed = g.map((x, i) => {
      momentum[i] = beta * momentum[i] + (1 - beta) * x;
      return nesterov ? beta * momentum[i] + (1 - beta) * x : momentum[i];
    });
    const scale =
      settings.adjustLr === "match_rms_adamw"
        ? 0.2 * Math.sqrt(Math.max(rows, columns))
        : Math.sqrt(Math.max(1, rows / columns));
    const x = orthogonalised(mixed, rows, columns, settings);
    for (let i = 0; i < p.length; i++) p[i] -= rate * scale * x[i];
  },
};

/** Weight decay that is apart from the gradient. */
function shrink({ p, rate }: Turn, weightDecay: number): void {
  for (let i = 0; i < p.length; i++) p[i] *= 1 - rate * weightDecay;
}

function adam({ p, g, rate, count, kept }: Turn, settings: Settings, l2: number): void {
  const { betas = [0.9, 0.999], eps = 1e-8, amsgrad = false } = settings;
  const m = kept("first_moment");
  const v = kept("second_moment");
  for (let i = 0; i < p.length; i++) {
    const gradient = g[i] + l2 * p[i];
    m[i] = betas[0] * m[i] + (1 - betas[0]) * gradient;
    v[i] = betas[1] * v[i] + (1 - betas[1]) * gradient ** 2;
    let counted = v[i];
    if (amsgrad) {
      const largest = kept("max_second_moment");
      largest[i] = Math.max(largest[i], v[i]);
      counted = largest[i];
    }
    const root = Math.sqrt(counted) / Math.sqrt(1 - betas[1] ** count);
    p[i] -= ((rate / (1 - betas[0] ** count)) * m[i]) / (root + eps);
  }
}

/** The Newton-Schulz steps of Muon: X = (a I + b A + c A^2) X with A = X X^T. */
export function orthogonalised(
  matrix: ArrayLike<number>,
  rows: number,
  columns: number,
  settings: Pick<ReferenceOptimizerOptions, "eps" | "nsSteps" | "nsCoefficients"> = {},
): Float64Array {
  const { eps = 1e-7, nsSteps = 5, nsCoefficients = [3.4445, -4.775, 2.0315] } = settings;
  const isTall = rows > columns;
  const side = Math.min(rows, columns);
  const inner = Math.max(rows, columns);
  const given = Float64Array.from(matrix);
  const norm = Math.max(Math.sqrt(given.reduce((sum, x) => sum + x * x, 0)), eps);
  const place = (i: number, j: number) => (isTall ? j * columns + i : i * columns + j);
  let x = table(side, inner, (i, j) => given[place(i, j)] / norm);
  const [a, b, c] = nsCoefficients;
  for (let step = 0; step < nsSteps; step++) {
    const before = x;
    const product = table(side, side, (i, j) => sum(inner, (k) => before[i][k] * before[j][k]));
    const polynomial = table(side, side, (i, j) => {
      const square = sum(side, (k) => product[i][k] * product[k][j]);
      return (i === j ? a : 0) + b * product[i][j] + c * square;
    });
    x = table(side, inner, (i, j) => sum(side, (k) => polynomial[i][k] * before[k][j]));
  }
  const result = new Float64Array(rows * columns);
  for (let i = 0; i < side; i++) for (let j = 0; j < inner; j++) result[place(i, j)] = x[i][j];
  return result;
}

const table = (rows: number, columns: number, at: (i: number, j: number) => number): number[][] =>
  Array.from({ length: rows }, (_, i) => Array.from({ length: columns }, (_, j) => at(i, j)));

function sum(count: number, term: (k: number) => number): number {
  let total = 0;
  for (let k = 0; k < count; k++) total += term(k);
  return total;
}
