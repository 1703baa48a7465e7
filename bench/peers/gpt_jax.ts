// The step of the small GPT by jax-js: `jit` of `valueAndGrad` and of Adam, all in one function.

import { joined } from "./arrays.ts";
import type { Contestant } from "./contest.ts";
import { ADAM, COMPARED, GPT_STEP, type GptStep } from "./gpt.ts";
import { type Jax, type JaxArray, openJax } from "./jax.ts";

const { batch, positions, vocab, width, heads, layers, eps } = GPT_STEP;

/** The loss of parameters and one-hot rows of ids and targets. Operands are used up. */
function lossOf(jax: Jax, parameters: readonly JaxArray[], names: readonly string[]) {
  const { numpy: np, nn } = jax;
  // A parameter that is used several times is kept for the other uses.
  const of = (name: string) => parameters[names.indexOf(name)].ref;
  const norm = (x: JaxArray, name: string) =>
    nn
      .standardize(x, -1, { epsilon: eps })
      .mul(of(`${name}.weight`))
      .add(of(`${name}.bias`));
  const linear = (x: JaxArray, name: string) =>
    np.matmul(x, np.transpose(of(`${name}.weight`))).add(of(`${name}.bias`));
  return (ids: JaxArray, targets: JaxArray) => {
    let x = np.matmul(ids, of("wte.weight")).add(of("wpe.weight"));
    for (let layer = 0; layer < layers; layer++) {
      const at = `blocks.${layer}`;
      const qkv = linear(norm(x.ref, `${at}.ln_1`), `${at}.qkv`);
      const [q, k, v] = np
        .split(qkv, 3, -1)
        .map((one) => one.reshape([batch, positions, heads, width / heads]));
      const seen = nn.dotProductAttention(q, k, v, { isCausal: true });
      x = x.add(linear(seen.reshape([batch, positions, width]), `${at}.proj`));
      const inner = nn.gelu(linear(norm(x.ref, `${at}.ln_2`), `${at}.fc`));
      x = x.add(linear(inner, `${at}.out`));
    }
    const logits = np.matmul(norm(x, "ln_f"), np.transpose(of("wte.weight")));
    return np.sum(nn.logSoftmax(logits, -1).mul(targets)).mul(-1 / (batch * positions));
  };
}

export async function gptInJax({ parameters, ids, targets }: GptStep): Promise<Contestant> {
  const jax = await openJax("webgpu");
  const { numpy: np, nn } = jax;
  const names = parameters.map(({ name }) => name);
  const rows = (data: Int32Array<ArrayBuffer>) =>
    nn.oneHot(np.array(data, { shape: [batch, positions] }), vocab);
  const given = [rows(ids), rows(targets)];
  const fresh = () => parameters.map(({ data, shape }) => np.array(data, { shape: [...shape] }));
  let learned = fresh();
  const zeros = () => parameters.map(({ shape }) => np.zeros([...shape]));
  let moments = zeros();
  let squares = zeros();
  const gradientsOf = (all: JaxArray[], words: JaxArray, next: JaxArray) =>
    jax.valueAndGrad((some: JaxArray[], a: JaxArray, b: JaxArray) =>
      lossOf(jax, some, names)(a, b),
    )(all, words, next) as [JaxArray, JaxArray[]];
  const { lr, betas, eps: least } = ADAM;
  const [beta1, beta2] = betas;
  /** Adam's update, of the bias corrections' factors [1] as operands: a step is compiled once. */
  const update = (
    all: JaxArray[],
    first: JaxArray[],
    second: JaxArray[],
    rate: JaxArray,
    root: JaxArray,
    ...batchOf: [JaxArray, JaxArray]
  ) => {
    const [loss, gradients] = gradientsOf(
      all.map((one) => one.ref),
      ...batchOf,
    );
    const results: JaxArray[][] = [[], [], []];
    for (const [at, gradient] of gradients.entries()) {
      const m = first[at].mul(beta1).add(gradient.ref.mul(1 - beta1));
      const v = second[at].mul(beta2).add(np.square(gradient).mul(1 - beta2));
      const step = m.ref.mul(rate.ref).div(np.sqrt(v.ref).mul(root.ref).add(least));
      results[0].push(all[at].sub(step));
      results[1].push(m);
      results[2].push(v);
    }
    return [loss, ...results];
  };
  const compiled = jax.jit(update as never) as unknown as (
    ...all: (JaxArray | JaxArray[])[]
  ) => [JaxArray, JaxArray[], JaxArray[], JaxArray[]];
  const compiledGradients = jax.jit(gradientsOf as never) as unknown as (
    ...all: (JaxArray | JaxArray[])[]
  ) => [JaxArray, JaxArray[]];
  const kept = (all: readonly JaxArray[]) => all.map((one) => one.ref);
  let steps = 0;
  return {
    kernel: "jax-js webgpu",
    workspaceBytes: Number.NaN,
    async run() {
      jax.defaultDevice("webgpu");
      steps++;
      const rate = np.array([lr / (1 - beta1 ** steps)]);
      const root = np.array([1 / Math.sqrt(1 - beta2 ** steps)]);
      const [loss, ...next] = compiled(learned, moments, squares, rate, root, ...kept(given));
      [learned, moments, squares] = next;
      await jax.blockUntilReady([loss, ...learned]);
      loss.dispose();
    },
    async read() {
      jax.defaultDevice("webgpu");
      const [loss, gradients] = compiledGradients(fresh(), ...kept(given));
      const results = [loss, ...COMPARED.map((name) => gradients[names.indexOf(name)].ref)];
      for (const gradient of gradients) gradient.dispose();
      return joined(await Promise.all(results.map((one) => one.data() as Promise<Float32Array>)));
    },
    destroy() {
      for (const one of [...learned, ...moments, ...squares, ...given]) one.dispose();
    },
  };
}
