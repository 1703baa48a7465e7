// A tiny checkpoint that is made in the page, so that something can be seen without one at hand. It
// has learned nothing.

import { bytesSource, type FileSource, type Tokenizer } from "../../src/models/index.ts";
import { drawn, parametersOf, recordProgram, saveParameters } from "../../src/training/index.ts";

const LETTERS = " abcdefghijklmnopqrstuvwxyz.,!?'";
const WIDTH = 32;
const CONFIG = {
  model_type: "gpt2",
  n_embd: WIDTH,
  n_head: 4,
  n_layer: 2,
  n_positions: 256,
  vocab_size: LETTERS.length,
};

/** Letters as ids; others are blanks. */
export const letters: Tokenizer = {
  encode: (text) => [...text.toLowerCase()].map((one) => Math.max(LETTERS.indexOf(one), 0)),
  decode: (ids) => ids.map((id) => LETTERS[id]).join(""),
};

/** The shapes of its tensors. */
function shapesOf(): Map<string, readonly number[]> {
  const shapes = new Map<string, readonly number[]>([
    ["wte.weight", [LETTERS.length, WIDTH]],
    ["wpe.weight", [CONFIG.n_positions, WIDTH]],
  ]);
  const add = (path: string, ...shape: readonly number[]) => {
    shapes.set(`${path}.weight`, shape);
    shapes.set(`${path}.bias`, shape.slice(-1));
  };
  for (let layer = 0; layer < CONFIG.n_layer; layer++) {
    add(`h.${layer}.ln_1`, WIDTH);
    add(`h.${layer}.attn.c_attn`, WIDTH, 3 * WIDTH);
    add(`h.${layer}.attn.c_proj`, WIDTH, WIDTH);
    add(`h.${layer}.ln_2`, WIDTH);
    add(`h.${layer}.mlp.c_fc`, WIDTH, 4 * WIDTH);
    add(`h.${layer}.mlp.c_proj`, 4 * WIDTH, WIDTH);
  }
  add("ln_f", WIDTH);
  return shapes;
}

/** A GPT-2 of two layers with seeded weights. */
export async function smallSource(device: GPUDevice): Promise<FileSource> {
  const program = await recordProgram(device, (graph) => {
    const parameters = parametersOf(graph, drawn(1));
    for (const [name, shape] of shapesOf()) parameters(name, shape, { normal: 0.4 });
    return { outputs: {} };
  });
  try {
    return bytesSource(
      {
        "config.json": new TextEncoder().encode(JSON.stringify(CONFIG)),
        "model.safetensors": await saveParameters(program),
      },
      "a tiny model with random weights, which has learned nothing",
    );
  } finally {
    program.destroy();
  }
}
