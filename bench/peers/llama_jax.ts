// The decoders by jax-js: a step is one function that jit compiles, over caches of fixed size. What
// chooses the token runs on the GPU, too.

import { type Decoder, decodingContestant, type Task } from "../models/decoding.ts";
import { EPSILON, type LlamaSizes } from "../models/llama.ts";
import type { KeptRows } from "../models/reference.ts";
import type { Contestant } from "./contest.ts";
import { type Jax, type JaxArray, openJax } from "./jax.ts";
import { rotaryTables } from "./llama_onnx.ts";

/** Keys and values of all layers, in turn, [1, capacity, kvHeads, headDim]. */
type Caches = JaxArray[];

/** What a function of the decoder is given: operands that it uses up. */
interface Given {
  readonly weights: JaxArray[];
  readonly cos: JaxArray;
  readonly sin: JaxArray;
  /** [T] */
  readonly ids: JaxArray;
  /** [T] */
  readonly positions: JaxArray;
}

/**
 * Reads rows behind those of the caches, and gives the logits of the last one and all caches.
 *
 * @param T Rows. Several are a text from its beginning, and one is behind others
 */
function forward(
  jax: Jax,
  sizes: LlamaSizes,
  names: readonly string[],
  T: number,
  caches: Caches | undefined,
  { weights, cos, sin, ids, positions }: Given,
): [logits: JaxArray, caches: Caches] {
  const { numpy: np, nn } = jax;
  const { width, heads, kvHeads, headDim, positions: capacity } = sizes;
  const half = headDim / 2;
  const of = (name: string) => weights[names.indexOf(`${name}.weight`)].ref;
  const linear = (x: JaxArray, name: string) => np.matmul(x, np.transpose(of(name)));
  const norm = (x: JaxArray, name: string) => {
    const mean = np.mean(np.square(x.ref), -1, { keepdims: true });
    return x.mul(np.reciprocal(np.sqrt(mean.add(EPSILON)))).mul(of(name));
  };
  const turns = [cos, sin].map((table) =>
    np.take(table, positions.ref, 0).reshape([1, T, 1, half]),
  );
  const turned = (x: JaxArray, count: number) => {
    const [a, b] = np.split(x.reshape([1, T, count, headDim]), 2, -1);
    const [c, s] = turns.map((one) => one.ref);
    const first = a.ref.mul(c.ref).sub(b.ref.mul(s.ref));
    return np.concatenate([first, b.mul(c).add(a.mul(s))], -1);
  };
  const rest = [
    [0, 0],
    [0, capacity - T],
    [0, 0],
    [0, 0],
  ] as [number, number][];
  const isHere =
    T === 1
      ? np
          .arange(capacity)
          .reshape([1, capacity, 1, 1])
          .equal(positions.ref.reshape([1, 1, 1, 1]))
      : undefined;
  const kept: JaxArray[] = [];
  /** Takes rows into a cache. */
  const keep = (rows: JaxArray, cache: JaxArray | undefined) => {
    const all = cache && isHere ? np.where(isHere.ref, rows, cache) : np.pad(rows, rest);
    kept.push(all.ref);
    return all;
  };
  let x = np.take(of("model.embed_tokens"), ids, 0).reshape([1, T, width]);
  for (let layer = 0; layer < sizes.layers; layer++) {
    const at = `model.layers.${layer}`;
    const normed = norm(x.ref, `${at}.input_layernorm`);
    const projected = (name: string) => linear(normed.ref, `${at}.self_attn.${name}_proj`);
    const q = turned(projected("q"), heads);
    const own = [
      turned(projected("k"), kvHeads),
      linear(normed, `${at}.self_attn.v_proj`).reshape([1, T, kvHeads, headDim]),
    ];
    const whole = T === 1 ? undefined : own.map((one) => one.ref);
    const [k, v] = own.map((rows, kind) => keep(rows, caches?.[2 * layer + kind]));
    const seen = whole
      ? nn.dotProductAttention(q, whole[0], whole[1], { isCausal: true })
      : nn.dotProductAttention(q, k.ref, v.ref, { keyValueSeqLengths: positions.ref.add(1) });
    k.dispose();
    v.dispose();
    x = x.add(linear(seen.reshape([1, T, heads * headDim]), `${at}.self_attn.o_proj`));
    const inner = norm(x.ref, `${at}.post_attention_layernorm`);
    const gate = nn.silu(linear(inner.ref, `${at}.mlp.gate_proj`));
    x = x.add(linear(gate.mul(linear(inner, `${at}.mlp.up_proj`)), `${at}.mlp.down_proj`));
  }
  const last = T === 1 ? x.reshape([1, width]) : np.split(x.reshape([T, width]), [T - 1], 0)[1];
  for (const one of turns) one.dispose();
  isHere?.dispose();
  positions.dispose();
  return [linear(norm(last, "model.norm"), "lm_head"), kept];
}

/** The library with the weights of a decoder on its device. */
async function opened({ llama }: Task) {
  const jax = await openJax("webgpu");
  const { numpy: np } = jax;
  const names = [...llama.weights.keys()];
  const array = ({ data, shape }: { data: Float32Array<ArrayBuffer>; shape: readonly number[] }) =>
    np.array(data, { shape: [...shape] });
  const weights = [...llama.weights.values()].map(array);
  const { shape, cos, sin } = rotaryTables(llama.sizes);
  const tables = [array({ data: cos, shape }), array({ data: sin, shape })];
  const whole = (values: readonly number[]) =>
    np.array(Int32Array.from(values), { shape: [values.length], dtype: np.int32 });
  /** A step of T rows, and the token that comes next. */
  const compiled = (T: number) =>
    jax.jit(((
      all: JaxArray[],
      turns: JaxArray[],
      caches: JaxArray[],
      ids: JaxArray,
      positions: JaxArray,
    ) => {
      const [cosines, sines] = turns;
      const given = { weights: all, cos: cosines, sin: sines, ids, positions };
      const given_ = T === 1 ? caches : undefined;
      const [logits, kept] = forward(jax, llama.sizes, names, T, given_, given);
      return [np.argmax(logits.ref, -1).astype(np.int32), logits, kept];
    }) as never) as unknown as (
      ...operands: (JaxArray | JaxArray[])[]
    ) => [token: JaxArray, logits: JaxArray, caches: JaxArray[]];
  const refs = (all: readonly JaxArray[]) => all.map((one) => one.ref);
  const operands = () => [refs(weights), refs(tables)];
  const destroy = () => {
    for (const one of [...weights, ...tables]) one.dispose();
  };
  return { jax, whole, compiled, operands, refs, destroy, array };
}

/** Goes on with a text, of whose keys and values it is given the right ones. */
export async function jaxDecoding(task: Task): Promise<Contestant> {
  const { llama, ids, golden } = task;
  const { jax, whole, compiled, operands, refs, destroy, array } = await opened(task);
  const { kvHeads, headDim, positions: capacity } = llama.sizes;
  const at = ids.length - 1;
  const upload = (rows: KeptRows["keys"]) => {
    const data = new Float32Array(capacity * kvHeads * headDim);
    for (const [t, row] of rows.entries()) data.set(row, t * row.length);
    return array({ data, shape: [1, capacity, kvHeads, headDim] });
  };
  const first = golden.kept.flatMap(({ keys, values }) => [upload(keys), upload(values)]);
  const step = compiled(1);
  let caches = refs(first);
  let token = whole([ids[at]]);
  let logits = whole([0]);
  let length = at;
  const drop = (all: readonly JaxArray[]) => {
    for (const one of all) one.dispose();
  };
  const restart = async () => {
    jax.defaultDevice("webgpu");
    drop([...caches, token]);
    caches = refs(first);
    token = whole([ids[at]]);
    length = at;
  };
  const next = async () => {
    jax.defaultDevice("webgpu");
    const results = step(...operands(), caches, token, whole([length]));
    logits.dispose();
    [token, logits, caches] = results;
    length++;
    return (await token.ref.data())[0];
  };
  const decoder: Decoder = {
    kernel: "jax-js webgpu",
    workspaceBytes: Number.NaN,
    restart,
    next,
    idle: () => jax.blockUntilReady(caches.map((one) => one.ref)).then(drop),
    async logits() {
      await next();
      return (await logits.ref.data()) as Float32Array;
    },
    destroy() {
      drop([...caches, ...first, token, logits]);
      destroy();
    },
  };
  return decodingContestant(decoder, task);
}

/** Reads a text, and tells the first token after it. */
export async function jaxPrompt(task: Task): Promise<Contestant> {
  const { ids } = task;
  const { jax, whole, compiled, operands, destroy } = await opened(task);
  const step = compiled(ids.length);
  const run = async () => {
    jax.defaultDevice("webgpu");
    const places = ids.map((_, index) => index);
    const [token, logits, caches] = step(...operands(), [], whole(ids), whole(places));
    const [first] = await token.data();
    await jax.blockUntilReady(caches);
    for (const one of caches) one.dispose();
    return { first, logits };
  };
  return {
    kernel: "jax-js webgpu",
    workspaceBytes: Number.NaN,
    async run() {
      const { logits } = await run();
      logits.dispose();
    },
    async read() {
      const { first, logits } = await run();
      return [...((await logits.data()) as Float32Array), first];
    },
    destroy,
  };
}
