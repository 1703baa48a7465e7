// A step of training a small GPT: ours as a recorded program, and as jax-js and tfjs have it. A step
// is the loss, all gradients, and Adam's update of all parameters.

import { gpt } from "../demo/systems/gpt/model.ts";
import type { Tensor } from "../src/index.ts";
import {
  crossEntropy,
  drawn,
  type Graph,
  type Parameters,
  parametersOf,
  recordProgram,
  seeded,
} from "../src/training/index.ts";
import { joined } from "./peers/arrays.ts";
import type { Contest, Contestant, Expected } from "./peers/contest.ts";
import { ADAM, COMPARED, GPT_STEP, type GptStep } from "./peers/gpt.ts";
import { gptInJax } from "./peers/gpt_jax.ts";
import golden from "./peers/gpt_step.json" with { type: "json" };
import { gptInTfjs } from "./peers/gpt_tfjs.ts";

const { batch, positions, vocab, width, layers, feedForward } = GPT_STEP;

/** Where the first parameters and the batch come from. */
const SEED = 1;

const ids = (seed: number) => {
  const random = seeded(seed);
  return Int32Array.from({ length: batch * positions }, () => Math.floor(random() * vocab));
};

/** Records the model. */
export function defineStep(graph: Graph, parameters: Parameters) {
  const logits = gpt(graph.input("ids", [batch, positions], "i32"), parameters, GPT_STEP);
  return { loss: crossEntropy(logits, graph.input("targets", [batch, positions], "i32")) };
}

/** Our step: a program whose run is one submission. */
async function ours(device: GPUDevice, { ids, targets, parameters }: GptStep): Promise<Contestant> {
  const program = await recordProgram(
    device,
    (graph) => defineStep(graph, parametersOf(graph, first)),
    {
      optimizer: { kind: "Adam", ...ADAM },
    },
  );
  const given = { ids, targets };
  const { bytes, dispatchCount } = program;
  return {
    kernel: "recorded program",
    workspaceBytes: bytes.workspace + bytes.computed,
    dispatches: dispatchCount,
    run: () => program.run(given),
    async read() {
      for (const { name, data } of parameters)
        await (program.parameters.get(name) as Tensor).write(data);
      const loss = (await program.run(given, { update: false })) as number;
      const gradients = COMPARED.map((name) => (program.gradients.get(name) as Tensor).read());
      return joined([[loss], ...(await Promise.all(gradients))] as Float32Array[]);
    },
    destroy: () => program.destroy(),
  };
}

const first = drawn(SEED);

/** The parameters that the model asks for, in that order, and a batch. */
export async function gptStep(device: GPUDevice): Promise<GptStep> {
  const parameters: GptStep["parameters"][number][] = [];
  const asked = await recordProgram(device, (graph) => {
    const all = parametersOf(graph, (name, shape, initial) => {
      const data = first(name, shape, initial) as Float32Array<ArrayBuffer>;
      parameters.push({ name, shape, data });
      return data;
    });
    return defineStep(graph, all);
  });
  asked.destroy();
  return { parameters, ids: ids(SEED), targets: ids(SEED + 1) };
}

/** Multiply-adds of all matrices and of causal attention for a token, forward and backward. */
function operations(): number {
  const matrices = layers * (4 * width * width + 2 * width * feedForward) + vocab * width;
  const attention = layers * 2 * width * (positions / 2);
  return 6 * batch * positions * (matrices + attention);
}

/**
 * A step of a GPT with 4 layers, width 128, 4 heads, on 8 rows of 128 tokens. What is compared was
 * computed by PyTorch in float64, and in f32, from the same parameters and ids: see
 * test/torch/gpt_step.py.
 */
export function trainingContest(): Contest {
  const slower = (of: string, atLeast: number) => ({
    name: `${of} / fovea`,
    of,
    over: "fovea",
    atLeast,
  });
  const made = (device: GPUDevice, of: (step: GptStep) => Promise<Contestant>) =>
    gptStep(device).then(of);
  return {
    name: "GPT, 4 layers, width 128, 8 x 128 tokens",
    dims: {
      B: batch,
      H: GPT_STEP.heads,
      Hkv: GPT_STEP.heads,
      M: positions,
      N: positions,
      D: width / GPT_STEP.heads,
      Dv: width / GPT_STEP.heads,
      causal: true,
    },
    flops: operations(),
    bytes: 0,
    contestants: {
      fovea: (device) => made(device, (step) => ours(device, step)),
      ...(typeof document !== "undefined" && {
        "jax-js": (device: GPUDevice) => made(device, gptInJax),
        tfjs: (device: GPUDevice) => made(device, gptInTfjs),
      }),
    },
    ratios: [slower("jax-js", 2.5), slower("tfjs", 10)],
    expected: () => golden satisfies readonly Expected[],
  };
}
