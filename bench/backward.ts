// The gradients of attention, beside those of other libraries: their automatic differentiation of
// attention as their operations build it.

import { planAttention, planAttentionBackward, type Tensor, tensor } from "../src/index.ts";
import { attentionBackward, attention as reference } from "../src/reference/index.ts";
import { normal } from "../src/reference/random.ts";
import { type Dims, flopsOf } from "./cost.ts";
import { joined, once, product, swapped } from "./peers/arrays.ts";
import type { Contest, Contestant, Expected, Input, Ratio } from "./peers/contest.ts";
import { foveaContestant, upload } from "./peers/fovea.ts";
import { type Jax, type JaxArray, jaxContestant } from "./peers/jax.ts";
import { tfjsContestant } from "./peers/tfjs.ts";

export interface BackwardContestOptions {
  /** Whether other libraries take part. Default true. */
  readonly libraries?: boolean;
  /** The word that it shares with the contest that it takes turns with. Default none. */
  readonly together?: string;
  /** The contest of `together` without a mask, if this one has a causal mask. */
  readonly full?: string;
  /** Rounds that are enough. Default any number. */
  readonly mostRounds?: number;
}

/** Multiplications of rows in the gradients, and in attention itself, for each score. */
const PRODUCTS = { forward: 2, backward: 5 } as const;

/** What the gradients are asked to be, in times. Wide rows are harder for kernels of tiles. */
const ASKED = (D: number) => ({
  overForward: 3.5,
  causal: 0.6,
  jax: D > 64 ? 2 : 2.5,
  tfjs: D > 64 ? 8 : 10,
});

/** Which part of a step of training one of our contestants computes. */
type Part = "forward" | "backward" | "both";

/**
 * The gradients of q, k and v, [B, H, S, D] each, for a given gradient of the output. `fovea` and
 * the libraries compute attention and its gradients, `fovea:forward` and `fovea:backward` one of
 * the two.
 */
export function backwardContest(
  name: string,
  dims: Dims,
  { libraries = true, together, full, ...options }: BackwardContestOptions = {},
): Contest {
  const problem = problemOf(dims);
  const contestants: Contest["contestants"] = {
    fovea: (device) => foveaGradients(device, problem, "both"),
    "fovea:forward": (device) => foveaGradients(device, problem, "forward"),
    "fovea:backward": (device) => foveaGradients(device, problem, "backward"),
    ...(libraries && typeof document !== "undefined" && peers(problem)),
  };
  const asked = ASKED(dims.D);
  const slower = (of: string, atLeast: number): Ratio => ({
    name: `${of} / fovea`,
    of,
    over: "fovea",
    atLeast,
  });
  const ratios: Ratio[] = [
    {
      name: "backward / forward",
      of: "fovea:backward",
      over: "fovea:forward",
      atMost: asked.overForward,
    },
    ...(full === undefined
      ? []
      : [
          {
            name: "causal / full",
            of: "fovea:backward",
            over: "fovea:backward",
            overCase: full,
            atMost: asked.causal,
          },
        ]),
    slower("jax-js", asked.jax),
    slower("jax-js:nn", asked.jax),
    slower("tfjs", asked.tfjs),
  ];
  return {
    name,
    ...gradientWork(dims, "both"),
    dims,
    contestants,
    expected: problem.gradients,
    ratios,
    ...(together !== undefined && { together }),
    ...options,
  };
}

/** Different queries of a long problem: a prime number, so that they don't repeat with tiles. */
const DISTINCT = 251;

/** Our gradients alone, for lengths whose scores nobody keeps. */
export function longBackwardContest(name: string, dims: Dims, mostRounds: number): Contest {
  const problem = problemOf(dims, Math.min(DISTINCT, dims.M));
  return {
    name,
    ...gradientWork(dims, "backward"),
    dims,
    mostRounds,
    contestants: { fovea: (device) => foveaGradients(device, problem, "backward") },
    expected: problem.gradients,
  };
}

/** Operations, and bytes of inputs and results. */
export function gradientWork(dims: Dims, part: Part): Readonly<Record<"flops" | "bytes", number>> {
  const { B, H, M, D } = dims;
  const row = 4 * B * H * M;
  const forward = flopsOf(dims);
  const backward = (forward * PRODUCTS.backward) / PRODUCTS.forward;
  return {
    forward: { flops: forward, bytes: row * (4 * D + 1) }, // q, k, v; output and lse
    backward: { flops: backward, bytes: row * (8 * D + 1) }, // and all of these and dO; dQ, dK, dV
    both: { flops: forward + backward, bytes: row * 7 * D },
  }[part];
}

/** A problem with its inputs, and what has to come out. */
export interface GradientProblem {
  readonly dims: Dims;
  /** q, k, v and the gradient of the output. */
  readonly inputs: () => readonly Input[];
  /** Of the output. */
  readonly output: () => readonly Expected[];
  /** Of the gradients of q, k and v, one after the other. */
  readonly gradients: () => readonly Expected[];
}

/** Heads that are checked, of the first entry: no head's results depend on another head. */
const checkedHeads = (H: number) => [...new Set([0, H - 1])];

/**
 * @param distinct Queries that are different, with the gradients of their outputs; the others
 * repeat them, which makes the check on the CPU cheap, since gradients of keys are sums over
 * queries. Default all. Only without a causal mask.
 */
export function problemOf(dims: Dims, distinct = dims.M): GradientProblem {
  const { B, H, M, D, causal } = dims;
  const inputs = once(() => {
    const numbers = (seed: number, rows: number): Input => ({
      data: repeated(normal(seed, B * H * rows * D, 1), { from: rows, to: M, width: D }),
      shape: [B, H, M, D],
    });
    return [numbers(1, distinct), numbers(2, M), numbers(3, M), numbers(4, distinct)];
  });
  const heads = checkedHeads(H);
  /** How often each of the different queries is there. */
  const counts = Array.from({ length: distinct }, (_, row) => Math.ceil((M - row) / distinct));
  /** The different rows of the checked heads, each times its factor. */
  const checked = ({ data }: Input, rows: number, factors?: readonly number[]) => {
    const size = rows * D;
    const some = new Float64Array(heads.length * size);
    for (const [index, head] of heads.entries()) {
      for (let at = 0; at < size; at++)
        some[index * size + at] = data[head * M * D + at] * (factors?.[Math.floor(at / D)] ?? 1);
    }
    return { data: some, shape: [1, heads.length, rows, D] };
  };
  /** Places of the checked heads in a result's tensor. */
  const placesIn = (tensor: number) =>
    heads.flatMap((head) =>
      Array.from({ length: M * D }, (_, at) => (tensor * B * H + head) * M * D + at),
    );
  const rows = { from: distinct, to: M, width: D };
  return {
    dims,
    inputs,
    output: once(() => {
      const [q, k, v] = inputs();
      const result = (precision: "f64" | "f32") =>
        reference(checked(q, distinct), checked(k, M), checked(v, M), { causal, precision }).output;
      const [f64, plain] = [result("f64"), result("f32")].map((one) => repeated(one, rows));
      return [{ at: placesIn(0), f64, plain }];
    }),
    gradients: once(() => {
      const [q, k, v, dOutput] = inputs();
      const result = (precision: "f64" | "f32") => {
        const { dQ, dK, dV } = attentionBackward(
          checked(q, distinct),
          checked(k, M),
          checked(v, M),
          {
            causal,
            precision,
            // Gradients are linear in it: a query that is there n times gives n times as much.
            dOutput: checked(dOutput, distinct, counts).data,
          },
        );
        const ofOne = dQ.map((value, at) => value / counts[Math.floor(at / D) % distinct]);
        return [repeated(ofOne, rows), dK, dV];
      };
      const f64 = result("f64");
      const plain = result("f32");
      return f64.map((values, index) => ({
        at: placesIn(index),
        f64: values,
        plain: plain[index],
      }));
    }),
  };
}

/** Makes `to` rows of each `from` by repeating them. */
function repeated<Numbers extends Float32Array<ArrayBuffer> | Float64Array>(
  values: Numbers,
  { from, to, width }: Readonly<Record<"from" | "to" | "width", number>>,
): Numbers {
  if (from === to) return values;
  const heads = values.length / (from * width);
  const made = values.constructor as new (length: number) => Numbers;
  const all = new made(heads * to * width);
  for (let row = 0; row < heads * to; row++) {
    const source = Math.floor(row / to) * from + ((row % to) % from);
    all.set(values.subarray(source * width, (source + 1) * width), row * width);
  }
  return all;
}

/** Our kernels, with what attention gave before. */
export async function foveaGradients(
  device: GPUDevice,
  { inputs, output: ofOutput, gradients, dims }: GradientProblem,
  part: Part,
): Promise<Contestant> {
  const [q, k, v, dOutput] = upload(device, inputs());
  const { causal } = dims;
  const empty = (shape: readonly number[]) =>
    tensor(device, shape, { data: new Float32Array(product(shape)).fill(Number.NaN) });
  const output = empty(q.shape);
  const lse = empty(q.shape.slice(0, 3));
  const [dQ, dK, dV] = [q, k, v].map(({ shape }) => empty(shape));
  const forward = await planAttention(device, { q, k, v, output, lse, causal });
  const backward = await planAttentionBackward(device, {
    q,
    k,
    v,
    output,
    lse,
    dOutput,
    dQ,
    dK,
    dV,
    causal,
  });
  if (part === "backward") {
    const encoder = device.createCommandEncoder();
    forward.encode(encoder);
    device.queue.submit([encoder.finish()]);
  }
  const plans = { forward: [forward], backward: [backward], both: [forward, backward] }[part];
  const sum = (of: (plan: (typeof plans)[number]) => number) =>
    plans.reduce((total, plan) => total + of(plan), 0);
  const results: readonly Tensor[] = part === "forward" ? [output] : [dQ, dK, dV];
  const all: readonly Tensor[] = [q, k, v, dOutput, output, lse, dQ, dK, dV];
  const recorded = {
    kernel: plans.map(({ kernel }) => kernel).join(", "),
    workspaceBytes: sum(({ workspaceBytes }) => workspaceBytes),
    dispatchCount: sum(({ dispatchCount }) => dispatchCount),
    encode: (pass: GPUComputePassEncoder) => {
      for (const plan of plans) plan.encode(pass);
    },
  };
  const made = [...all.filter((one) => !results.includes(one)), forward, backward];
  const one = foveaContestant(device, recorded, results, made);
  if (part === "both") return one;
  const expected = part === "forward" ? ofOutput : gradients;
  return { ...one, part: { ...gradientWork(dims, part), expected } };
}

/** Attention by the operations of jax-js, of [B, H, rows, D]. */
function jaxAttention({ numpy: np, nn, DType }: Jax, rows: readonly JaxArray[], causal: boolean) {
  const [q, k, v] = rows;
  const [, , length, width] = q.shape;
  const scores = np.matmul(q, np.swapaxes(k, 2, 3)).mul(1 / Math.sqrt(width));
  const seen = causal
    ? np.where(np.tri(length, length, 0, { dtype: DType.Bool }), scores, Number.NEGATIVE_INFINITY)
    : scores;
  return np.matmul(nn.softmax(seen, -1), v);
}

/** Gradients by jax-js: those of sum(output * dOutput), and the sum itself behind them. */
const jaxGradients =
  (attend: (jax: Jax, q: JaxArray, k: JaxArray, v: JaxArray) => JaxArray) =>
  (jax: Jax, ...given: JaxArray[]): JaxArray[] => {
    const loss = (q: JaxArray, k: JaxArray, v: JaxArray, dOutput: JaxArray) =>
      jax.numpy.sum(attend(jax, q, k, v).mul(dOutput));
    const [q, k, v, dOutput] = given;
    const [value, gradients] = jax.valueAndGrad(loss, { argnums: [0, 1, 2] })(q, k, v, dOutput);
    return [...(gradients as JaxArray[]), value];
  };

/**
 * The libraries' own gradients of attention. jax-js differentiates attention of its operations
 * (`jax-js`) and its built-in one (`jax-js:nn`), which takes [B, rows, H, D]; both by jit.
 */
function peers({ inputs, dims }: GradientProblem): Contest["contestants"] {
  const { B, H, M, D, causal } = dims;
  const builtIn = async (): Promise<Contestant> => {
    const byRow = inputs().map(
      ({ data }): Input => ({ data: swapped(data, B, H, M, D), shape: [B, M, H, D] }),
    );
    const attend = jaxGradients(({ nn }, q, k, v) =>
      nn.dotProductAttention(q, k, v, { isCausal: causal }),
    );
    const one = await jaxContestant(byRow, attend);
    const size = B * H * M * D;
    const read = async () => {
      const all = Array.from(await one.read());
      const tensors = [0, 1, 2].map((at) => all.slice(at * size, (at + 1) * size));
      return joined(tensors.map((values) => swapped(values, B, M, H, D)));
    };
    return { ...one, read };
  };
  const later = { data: laterKeys(M), shape: [M, M] };
  return {
    "jax-js": () =>
      jaxContestant(
        inputs(),
        jaxGradients((jax, ...rows) => jaxAttention(jax, rows, causal)),
      ),
    "jax-js:nn": builtIn,
    tfjs: () =>
      tfjsContestant(causal ? [...inputs(), later] : inputs(), (tf, ...given) => {
        const [dOutput, mask] = given.slice(3);
        const attend: Parameters<typeof tf.grads>[0] = (q, k, v) => {
          const scores = tf.mul(tf.matMul(q, k, false, true), 1 / Math.sqrt(D));
          return tf.matMul(tf.softmax(mask ? tf.add(scores, mask) : scores), v);
        };
        return tf.grads(attend)(given.slice(0, 3), dOutput);
      }),
  };
}

/** What a causal mask adds to scores, [M, M]: so much below them that the softmax gives 0. */
function laterKeys(M: number): Float32Array<ArrayBuffer> {
  const mask = new Float32Array(M * M);
  for (let row = 0; row < M; row++) mask.fill(-1e9, row * M + row + 1, (row + 1) * M);
  return mask;
}
