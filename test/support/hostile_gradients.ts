// Calls of attention's gradients, for hostile values.

import {
  type AttentionBackwardOptions,
  type AttentionBackwardProblem,
  attentionBackward,
  type MultiplicativeBackwardOptions,
  multiplicativeAttentionBackward,
  planAttentionBackward,
  Tensor,
  tensor,
} from "../../src/index.ts";
import {
  attention as attention64,
  multiplicativeAttention as multiplicative64,
  type ReferenceOptions,
  attentionBackward as reference,
} from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { type Call, type Given, taken, withBindings } from "./hostile.ts";

const SHAPE = { q: [2, 2, 3, 8], k: [2, 2, 5, 8], v: [2, 2, 5, 8] } as const;

/**
 * Options that leave the log-sum-exp of the good call one that fits: no other scores than those
 * that it has, but fewer of them.
 */
const KNOWN64 = ["causal", "window", "attentionChunk", "sinkTokens"];
const GIVEN = ["output", "lse", "dOutput", "dLse", "dQ", "dK", "dV"];
const ASKED = [
  "dBias",
  "dAlibiSlopes",
  "dRelativeBias",
  "dSinks",
  "dTemperature",
  "dLogTemperature",
  "dQWeights",
  "dKWeights",
  "dVector",
  "dInnerBias",
  "dInnerScale",
  "dGain",
  "dCaptures",
];
const OTHERS = ["cache", "variant", "maxDispatchFlops", "label", "encoder"];

export function gradientCalls(device: GPUDevice): Call[] {
  const make = (shape: readonly number[], seed: number) => {
    const data = normal(
      seed,
      shape.reduce((a, b) => a * b, 1),
    );
    return { shape, data, gpu: tensor(device, shape, { data }) };
  };
  const [q, k, v] = (["q", "k", "v"] as const).map((name, seed) => make(SHAPE[name], seed + 1));
  const dOutput = make(SHAPE.q, 4);
  const forward = attention64(q, k, v);
  const output = tensor(device, SHAPE.q, { data: forward.output });
  const lse = tensor(device, [2, 2, 3], { data: forward.lse });
  const tensors = { q: q.gpu, k: k.gpu, v: v.gpu };
  const good = { output, lse, dOutput: dOutput.gpu, variant: "8x32" };
  const weight = make([8, 8], 5);
  const through = multiplicative64(q, k, v, { weight });
  const goodThrough = {
    ...good,
    output: tensor(device, SHAPE.q, { data: through.output }),
    lse: tensor(device, [2, 2, 3], { data: through.lse }),
  };
  const right = (_: Given, options: Given) => {
    const some = Object.entries(options).filter(
      ([name, value]) => KNOWN64.includes(name) && value !== undefined,
    );
    const given: ReferenceOptions = Object.fromEntries(some);
    // In f32 delta is that of the output which is given.
    return reference(q, k, v, {
      ...given,
      dOutput: dOutput.data,
      output: forward.output,
      precision: "f32",
    }).dQ;
  };
  return [
    {
      name: "attentionBackward",
      args: tensors,
      options: good,
      names: [...KNOWN64, ...GIVEN, ...ASKED, ...OTHERS],
      run: async ([q, k, v], options) => {
        const asked = options as AttentionBackwardOptions;
        const made = await attentionBackward(q as Tensor, k as Tensor, v as Tensor, asked);
        return gradientOf(made.dQ, made, options);
      },
      right,
    },
    {
      name: "planAttentionBackward and encode",
      args: { device, bindings: {} },
      options: { ...tensors, variant: "8x32" },
      names: [...GIVEN.filter((name) => name !== "dLse"), ...ASKED, ...OTHERS],
      run: async ([device, bindings], options) => {
        const plan = await planAttentionBackward(
          device as GPUDevice,
          options as AttentionBackwardProblem,
        );
        const nans = new Float32Array(160).fill(Number.NaN);
        const into = (["q", "k", "v"] as const).map((name) => {
          const shape = SHAPE[name];
          return tensor(q.gpu.device, shape, { data: nans.subarray(0, name === "q" ? 96 : 160) });
        });
        const [dQ, dK, dV] = into;
        try {
          const encoder = q.gpu.device.createCommandEncoder();
          const { variant, ...given } = good;
          plan.encode(encoder, withBindings(bindings, { ...given, dQ, dK, dV }));
          q.gpu.device.queue.submit([encoder.finish()]);
          return Float32Array.from(await dQ.read());
        } finally {
          for (const one of [...into, plan]) one.destroy();
        }
      },
    },
    {
      name: "multiplicativeAttentionBackward",
      args: { ...tensors, weight: weight.gpu },
      options: goodThrough,
      names: ["dWeight", "dQ", "label", "encoder"],
      run: async ([q, k, v, weight], options) => {
        const given = [q, k, v, weight] as [Tensor, Tensor, Tensor, Tensor];
        const asked = options as MultiplicativeBackwardOptions;
        const made = await multiplicativeAttentionBackward(...given, asked);
        return gradientOf(made.dQ, made, options);
      },
    },
  ];
}

/** Reads a gradient, and destroys all that the caller did not give. */
async function gradientOf(one: Tensor, all: object, options: unknown) {
  const given = Object.values((options ?? {}) as Given);
  const values = await taken(one, ...given);
  for (const other of Object.values(all))
    if (other instanceof Tensor && other !== one && !given.includes(other)) other.destroy();
  return values;
}
