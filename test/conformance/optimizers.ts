// PyTorch's optimisers as operators of vectors: some steps from given gradients, with what the
// parameters are after some of them, and the state at the end.

import { type Tensor, tensor } from "../../src/index.ts";
import { planOptimizer } from "../../src/training/index.ts";
import type { NamedCall, NamedOperator } from "./named.ts";

/** Gives a tensor of the same elements. */
const copyOf = async (device: GPUDevice, shape: readonly number[], given: Tensor) =>
  tensor(device, shape, { data: await given.read() });

const steps: NamedOperator = async (call: NamedCall) => {
  const { device, vector, own, attributes } = call;
  const { optimizer: settings, schedule, clip, steps: count } = attributes;
  const inputs = new Map(vector.inputs.map((input) => [input?.name ?? "", input]));
  const wanted = new Set(vector.outputs.map((output) => output?.name ?? ""));
  const names = [...inputs.keys()].filter((name) => /^p\d+$/.test(name));
  const parameters = names.map((name) => call.tensor(name));
  const gradients = parameters.map(({ shape }) => own(tensor(device, shape)));
  const plan = await planOptimizer(device, {
    ...settings,
    parameters,
    gradients,
    ...(schedule && { schedule }),
    ...(clip && { clip }),
  });
  const results: Record<string, Tensor> = {};
  const rates: number[] = [];
  const norms: number[] = [];
  try {
    for (let step = 0; step < count; step++) {
      for (const [index, gradient] of gradients.entries()) {
        const { data } = inputs.get(`g${index}`) as NonNullable<(typeof vector.inputs)[number]>;
        await gradient.write(data.subarray(step * gradient.size, (step + 1) * gradient.size));
      }
      const encoder = device.createCommandEncoder();
      plan.encode(encoder);
      device.queue.submit([encoder.finish()]);
      if (wanted.has("lr")) rates.push((await plan.rates.read())[0]);
      if (wanted.has("norm") && plan.norm) norms.push((await plan.norm.read())[0]);
      for (const [index, parameter] of parameters.entries()) {
        const name = `p${index}_after_${step + 1}`;
        if (wanted.has(name)) results[name] = await copyOf(device, parameter.shape, parameter);
      }
    }
    for (const [index, state] of plan.state.entries())
      for (const [name, one] of Object.entries(state))
        results[`${name}${index}_after_${count}`] = await copyOf(device, one.shape, one);
    if (rates.length) results.lr = tensor(device, [count], { data: rates });
    if (norms.length) results.norm = tensor(device, [count], { data: norms });
    return results;
  } finally {
    plan.destroy();
  }
};

export const optimizers: Readonly<Record<string, NamedOperator>> = {
  SGD: steps,
  Adam: steps,
  AdamW: steps,
};
