// The suite `linear`: causal linear attention, elu(x) + 1, normalised, from short to long.

import { planLinearAttention, tensor } from "../src/index.ts";
import { linearAttention as reference } from "../src/reference/index.ts";
import { normal } from "../src/reference/random.ts";
import type { Dims } from "./cost.ts";
import type { Contest, Contestant, Input } from "./peers/contest.ts";
import { foveaContestant, upload } from "./peers/fovea.ts";
import { type JaxArray, jaxContestant } from "./peers/jax.ts";
import { tfjsContestant } from "./peers/tfjs.ts";

/** Tokens of a chunk in the libraries' programs. */
const CHUNK = 64;
/** Heads that the check on the CPU computes: the first ones. */
const CHECKED_HEADS = 1;
/**
 * The longest case that the libraries take part in. Their memory holds a state for every chunk, and
 * more.
 */
const LONGEST = 16384;

/** Whether this runs in a page, which the libraries need. */
const inPage = () => typeof document !== "undefined";

type Variant = "chunked" | "recurrent";

export function linearContest(N: number, H: number, D: number, peers: boolean): Contest {
  const dims: Dims = { B: 1, H, Hkv: H, M: N, N, D, Dv: D, causal: true };
  const shape = [1, H, N, D];
  const [q, k, v] = [1, 2, 3].map((seed): Input => ({ data: normal(seed, H * N * D), shape }));
  const fovea = (variant?: Variant) => (device: GPUDevice) =>
    foveaLinear(device, [q, k, v], variant);
  const libraries = peers && inPage() && N <= LONGEST && N % CHUNK === 0;
  return {
    name: `N=${N} H=${H} D=${D} causal`,
    dims,
    // Writing a token to the state and reading it take 2 D Dv operations each, and D more for the
    // sum of the weights.
    flops: 4 * H * N * D * (D + 1),
    bytes: 4 * 4 * H * N * D,
    contestants: {
      fovea: fovea(),
      "fovea:chunked": fovea("chunked"),
      "fovea:recurrent": fovea("recurrent"),
      ...(libraries && {
        tfjs: () => tfjsContestant(chunked([q, k, v]), tfjsLinear),
        "jax-js": () => jaxContestant(chunked([q, k, v]), jaxLinear),
      }),
    },
    expected: () => {
      const heads = Math.min(H, CHECKED_HEADS);
      const some = ({ data }: Input) => ({
        data: data.subarray(0, heads * N * D),
        shape: [1, heads, N, D],
      });
      const result = (precision: "f64" | "f32") =>
        reference(some(q), some(k), some(v), { causal: true, precision }).output;
      const at = Array.from({ length: heads * N * D }, (_, index) => index);
      return { at, f64: result("f64"), plain: result("f32") };
    },
  };
}

async function foveaLinear(
  device: GPUDevice,
  inputs: readonly Input[],
  variant: Variant | undefined,
): Promise<Contestant> {
  const [q, k, v] = upload(device, inputs);
  const output = tensor(device, inputs[0].shape);
  const plan = await planLinearAttention(device, {
    q,
    k,
    v,
    output,
    causal: true,
    ...(variant && { variant }),
  });
  return foveaContestant(device, plan, output, [q, k, v, plan]);
}

/**
 * Returns the inputs of the libraries' programs, which do in whole-array operations what our
 * kernels do: q and k as [H, chunks, CHUNK, D]; v with a column of ones behind it, whose sums are
 * the weights; the causal mask of a chunk; and a matrix that says which chunks come before which. A
 * product with that matrix is the running sum.
 */
function chunked(inputs: readonly Input[]): Input[] {
  const [q, k, v] = inputs;
  const [, H, N, D] = q.shape;
  const ones = new Float32Array(H * N * (D + 1)).fill(1);
  for (let row = 0; row < H * N; row++)
    ones.set(v.data.subarray(row * D, (row + 1) * D), row * (D + 1));
  const mask = Float32Array.from({ length: CHUNK * CHUNK }, (_, at) =>
    Number(at % CHUNK <= Math.floor(at / CHUNK)),
  );
  const count = N / CHUNK;
  const before = Float32Array.from({ length: count * count }, (_, at) =>
    Number(at % count < Math.floor(at / count)),
  );
  const shape = (width: number) => [H, N / CHUNK, CHUNK, width];
  return [
    { data: q.data, shape: shape(D) },
    { data: k.data, shape: shape(D) },
    { data: ones, shape: shape(D + 1) },
    { data: mask, shape: [1, 1, CHUNK, CHUNK] },
    { data: before, shape: [1, N / CHUNK, N / CHUNK] },
  ];
}

const tfjsLinear: Parameters<typeof tfjsContestant>[1] = (tf, q, k, v, mask, earlier) => {
  const phiQ = tf.add(tf.elu(q), 1);
  const phiK = tf.add(tf.elu(k), 1);
  const within = tf.matMul(tf.mul(tf.matMul(phiQ, phiK, false, true), mask), v);
  const added = tf.matMul(phiK, v, true, false);
  const [heads, chunks] = added.shape;
  const before = tf.reshape(
    tf.matMul(tf.tile(earlier, [heads, 1, 1]), tf.reshape(added, [heads, chunks, -1])),
    added.shape,
  );
  const sums = tf.add(within, tf.matMul(phiQ, before));
  const width = (v.shape[3] as number) - 1;
  return tf.div(
    tf.slice(sums, [0, 0, 0, 0], [-1, -1, -1, width]),
    tf.slice(sums, [0, 0, 0, width], [-1, -1, -1, 1]),
  );
};

const jaxLinear: Parameters<typeof jaxContestant>[1] = (jax, q, k, v, mask, earlier) => {
  const { numpy: np, nn } = jax;
  const phiQ = nn.elu(q).add(1);
  const phiK = nn.elu(k).add(1);
  const turned = np.swapaxes(phiK, 2, 3);
  const within = np.matmul(np.matmul(phiQ.ref, turned.ref).mul(mask), v.ref);
  const added = np.matmul(turned, v);
  const { shape } = added;
  const before = np.matmul(earlier, added.reshape([shape[0], shape[1], -1])).reshape(shape);
  const sums: JaxArray = within.add(np.matmul(phiQ, before));
  const width = (v.shape[3] as number) - 1;
  return sums.ref.slice([], [], [], [0, width]).div(sums.slice([], [], [], [width, width + 1]));
};
