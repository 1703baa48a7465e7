// The step of the small GPT by tfjs: its gradients of variables, and its Adam.

import type * as tfjs from "@tensorflow/tfjs-core";
import { joined } from "./arrays.ts";
import type { Contestant } from "./contest.ts";
import { ADAM, COMPARED, GPT_STEP, type GptStep } from "./gpt.ts";
import { openTfjs, submitted } from "./tfjs.ts";

const { batch, positions, vocab, width, heads, layers, eps } = GPT_STEP;

export async function gptInTfjs({ parameters, ids, targets }: GptStep): Promise<Contestant> {
  const tf = await openTfjs();
  const learned = new Map(
    parameters.map(({ name, shape, data }) => [
      name,
      tf.tidy(() => tf.variable(tf.tensor(data, [...shape]), true)),
    ]),
  );
  const rows = (data: Int32Array) =>
    tf.tidy(
      () => tf.cast(tf.oneHot(tf.tensor1d(data, "int32"), vocab), "float32") as tfjs.Tensor2D,
    );
  const words = rows(ids);
  const next = rows(targets);
  const later = new Float32Array(positions * positions);
  for (let row = 0; row < positions; row++)
    later.fill(-1e9, row * positions + row + 1, (row + 1) * positions);
  const mask = tf.tensor(later, [positions, positions]);
  const of = (name: string) => learned.get(name) as tfjs.Variable;
  const norm = (x: tfjs.Tensor, name: string) => {
    const { mean, variance } = tf.moments(x, -1, true);
    const normed = tf.mul(tf.sub(x, mean), tf.rsqrt(tf.add(variance, eps)));
    return tf.add(tf.mul(normed, of(`${name}.weight`)), of(`${name}.bias`));
  };
  // Matrices of rows: tfjs multiplies these fastest.
  const linear = (x: tfjs.Tensor, name: string) =>
    tf.add(tf.matMul(x, of(`${name}.weight`), false, true), of(`${name}.bias`));
  const gelu = (x: tfjs.Tensor) => {
    const inner = tf.mul(
      tf.add(x, tf.mul(0.044715, tf.mul(x, tf.square(x)))),
      Math.sqrt(2 / Math.PI),
    );
    return tf.mul(tf.mul(0.5, x), tf.add(1, tf.tanh(inner)));
  };
  const loss = (): tfjs.Scalar => {
    const embedded = tf.matMul(words, of("wte.weight") as unknown as tfjs.Tensor2D);
    const positioned = tf.add(tf.reshape(embedded, [batch, positions, width]), of("wpe.weight"));
    let x: tfjs.Tensor = tf.reshape(positioned, [batch * positions, width]);
    for (let layer = 0; layer < layers; layer++) {
      const at = `blocks.${layer}`;
      const qkv = tf.reshape(linear(norm(x, `${at}.ln_1`), `${at}.qkv`), [
        batch,
        positions,
        3 * heads,
        width / heads,
      ]);
      const [q, k, v] = tf.split(tf.transpose(qkv, [0, 2, 1, 3]), 3, 1);
      const scores = tf.mul(tf.matMul(q, k, false, true), 1 / Math.sqrt(width / heads));
      const seen = tf.matMul(tf.softmax(tf.add(scores, mask)), v);
      const together = tf.reshape(tf.transpose(seen, [0, 2, 1, 3]), [batch * positions, width]);
      x = tf.add(x, linear(together, `${at}.proj`));
      x = tf.add(x, linear(gelu(linear(norm(x, `${at}.ln_2`), `${at}.fc`)), `${at}.out`));
    }
    const logits = tf.matMul(norm(x, "ln_f"), of("wte.weight"), false, true);
    const sum = tf.sum(tf.mul(tf.logSoftmax(logits), next));
    return tf.mul(sum, -1 / (batch * positions)) as tfjs.Scalar;
  };
  const [beta1, beta2] = ADAM.betas;
  const optimizer = tf.train.adam(ADAM.lr, beta1, beta2, ADAM.eps);
  return {
    kernel: `tfjs ${tf.version_core}`,
    workspaceBytes: Number.NaN,
    async run() {
      optimizer.minimize(loss, false, [...learned.values()])?.dispose();
      await submitted(tf);
    },
    async read() {
      for (const { name, shape, data } of parameters)
        tf.tidy(() => of(name).assign(tf.tensor(data, [...shape])));
      const { value, grads } = tf.variableGrads(loss, [...learned.values()]);
      const results = [value, ...COMPARED.map((name) => grads[of(name).name])];
      const values = await Promise.all(results.map((one) => one.data()));
      for (const one of [value, ...Object.values(grads)]) one.dispose();
      return joined(values as Float32Array[]);
    },
    destroy() {
      optimizer.dispose();
      for (const one of [...learned.values(), words, next, mask]) one.dispose();
    },
  };
}
