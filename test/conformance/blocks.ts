// Fixtures of parts of models that are no family of transformers: attention blocks of PP-OCRv4's
// recogniser and of the Universal Sentence Encoder, recorded as programs.

import {
  activate,
  add,
  attention,
  type Batch,
  fromSafetensors,
  type Graph,
  layerNorm,
  linear,
  type Program,
  recordProgram,
  type Value,
} from "../../src/training/index.ts";
import type { Comparison, Ids, Stored } from "./golden.ts";
import { isStored, queriesOfMask, rowsOfMask } from "./golden.ts";

/** Runs a fixture's block, and compares with its golden results. */
type Block = (
  device: GPUDevice,
  files: Readonly<Record<string, Uint8Array>>,
  golden: object,
  comparison: Comparison,
) => Promise<void>;

type Config = Readonly<Record<string, number>>;

/** A weight, a norm and a projection of a file, by their names. */
function layersOf(graph: Graph, file: Uint8Array) {
  const tensors = fromSafetensors(file);
  const weight = (name: string, shape: readonly number[]) =>
    graph.parameter(name, shape, tensors(name, shape), { frozen: true });
  return {
    norm(x: Value, path: string, epsilon: number) {
      const W = [x.shape[x.shape.length - 1]];
      return layerNorm(x, weight(`${path}.weight`, W), weight(`${path}.bias`, W), { epsilon });
    },
    project(x: Value, path: string, outputs: number) {
      const inputs = x.shape[x.shape.length - 1];
      const bias = weight(`${path}.bias`, [outputs]);
      return linear(x, weight(`${path}.weight`, [outputs, inputs]), bias);
    },
  };
}

/** Attention of packed rows [B, T, 3 H D], and its probabilities. */
function attend(qkv: Value, heads: number, mask?: Value) {
  const [B, T, width] = qkv.shape;
  const W = width / 3;
  const [q, k, v] = [0, 1, 2].map((part) =>
    qkv
      .slice(2, part * W, (part + 1) * W)
      .reshape(B, T, heads, W / heads)
      .permute(0, 2, 1, 3),
  );
  const watched: Value[] = [];
  const rows = attention(q, k, v, {
    ...(mask && { mask }),
    watch: (weights) => watched.push(weights),
  });
  return { rows: rows.permute(0, 2, 1, 3).reshape(B, T, W), probs: watched[0] };
}

function configOf(files: Readonly<Record<string, Uint8Array>>): Config {
  return JSON.parse(new TextDecoder().decode(files["config.json"]));
}

/** Two blocks whose norms come first, and a norm after them. */
const recogniser: Block = async (device, files, golden, comparison) => {
  const { num_hidden_layers: layers, num_attention_heads: heads, ...config } = configOf(files);
  const { tokens } = golden as { readonly tokens: Stored };
  const W = config.hidden_size;
  const program = await recordProgram(device, (graph) => {
    const { norm, project } = layersOf(graph, files["model.safetensors"]);
    const outputs: Record<string, Value> = {};
    let x = graph.input("tokens", tokens.shape);
    for (let at = 0; at < layers; at++) {
      const path = `blocks.${at}`;
      const normed = norm(x, `${path}.norm1`, config.layer_norm_eps);
      const qkv = project(normed, `${path}.mixer.qkv`, 3 * W);
      const { rows, probs } = attend(qkv, heads);
      outputs[`qkv${at}`] = qkv;
      outputs[`probs${at}`] = probs;
      x = add(x, project(rows, `${path}.mixer.proj`, W));
      const inner = norm(x, `${path}.norm2`, config.layer_norm_eps);
      const gate = activate(project(inner, `${path}.mlp.fc1`, config.intermediate_size), "silu");
      x = add(x, project(gate, `${path}.mlp.fc2`, W));
      outputs[`block${at}`] = x;
    }
    outputs.out = norm(x, "norm", config.final_layer_norm_eps);
    return { outputs };
  });
  const found = await resultsOf(program, { tokens: comparison.input(tokens) });
  for (const [name, stored] of Object.entries(golden))
    if (isStored(stored) && stored !== tokens) comparison.add(name, found[name], stored);
};

/** One attention block of a padded batch, whose residual is projected. */
const sentenceEncoder: Block = async (device, files, golden, comparison) => {
  const config = configOf(files);
  const given = golden as {
    readonly x: Stored;
    readonly attention_mask: Ids;
    readonly probs: Stored;
    readonly out: Stored;
  };
  const { attention_mask: mask } = given;
  const [B, T] = given.x.shape;
  const program = await recordProgram(device, (graph) => {
    const { norm, project } = layersOf(graph, files["model.safetensors"]);
    const x = graph.input("x", given.x.shape);
    const seen = graph.input("mask", [B, 1, 1, T], "u8");
    const qkv = project(norm(x, "norm", config.layer_norm_eps), "qkv", 3 * config.attention_size);
    const { rows, probs } = attend(qkv, config.num_attention_heads, seen);
    const W = config.hidden_size;
    return { outputs: { probs, out: add(project(rows, "out", W), project(x, "residual", W)) } };
  });
  const found = await resultsOf(program, { x: comparison.input(given.x), mask: mask.flat() });
  comparison.add("probs", found.probs, given.probs, queriesOfMask(mask, given.probs.shape));
  comparison.add("out", found.out, given.out, rowsOfMask(mask, given.out.shape[2]));
};

/** Runs a program once, reads its results, and frees it. */
async function resultsOf(
  program: Program,
  batch: Batch,
): Promise<Readonly<Record<string, Float32Array>>> {
  try {
    await program.run(batch);
    const read = Object.entries(program.outputs).map(async ([name, one]) => {
      return [name, (await one.read()) as Float32Array] as const;
    });
    return Object.fromEntries(await Promise.all(read));
  } finally {
    program.destroy();
  }
}

/** The blocks that there are, by the `model_type` of their configs. */
export const BLOCKS: ReadonlyMap<string, Block> = new Map([
  ["ppocrv4_svtr_neck", recogniser],
  ["use_lite_layer_0_attention", sentenceEncoder],
]);
