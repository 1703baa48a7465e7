// Training runs as operators of vectors: the models of demo/systems, twenty steps each.

import { attentionModel } from "../../demo/systems/attention_model/model.ts";
import { encoderClassifier } from "../../demo/systems/encoder_classifier/model.ts";
import { gpt } from "../../demo/systems/gpt/model.ts";
import { textClassifier } from "../../demo/systems/text_classifier/model.ts";
import { translator } from "../../demo/systems/translation/model.ts";
import { vit } from "../../demo/systems/vit/model.ts";
import { type Tensor, tensor } from "../../src/index.ts";
import {
  crossEntropy,
  type Graph,
  type Parameters,
  type ProgramOptimizer,
  parametersOf,
  recordProgram,
  type Value,
} from "../../src/training/index.ts";
import type { NamedCall, NamedOperator } from "./named.ts";
import type { VectorTensor } from "./vector.ts";

/** A model as its runs need it: the loss, and what is compared after the first step. */
interface Recorded {
  readonly loss: Value;
  readonly outputs: Readonly<Record<string, Value>>;
}

/** The inputs of all steps, [steps, ...]. */
type Steps = Readonly<Record<string, VectorTensor>>;

interface System {
  /** Makes the inputs of the program from those of the vector. Default: they are the same. */
  inputs?(given: Steps): Steps;
  record(
    at: (name: string) => Value | undefined,
    parameters: Parameters,
    // biome-ignore lint/suspicious/noExplicitAny: JSON of the operator's attributes
    attributes: any,
  ): Recorded;
}

const INITIAL = "initial.";

/** The loss of logits [..., classes] and targets [...]. */
function classified(logits: Value, targets: Value, ignoreIndex?: number): Value {
  return crossEntropy(logits, targets, ignoreIndex === undefined ? {} : { ignoreIndex });
}

/** Rows [steps, B, T] without the first or the last of T. */
function rowsOf({ dtype, shape, data }: VectorTensor, skipped: "first" | "last"): VectorTensor {
  const T = shape[shape.length - 1];
  const gone = skipped === "first" ? 0 : T - 1;
  return {
    dtype,
    shape: [...shape.slice(0, -1), T - 1],
    data: data.filter((_, at) => at % T !== gone),
  };
}

const needed = (value: Value | undefined): Value => {
  if (!value) throw new Error("the vector lacks an input of the system");
  return value;
};

const SYSTEMS: Readonly<Record<string, System>> = {
  EmbeddingAttention: {
    record(at, parameters, attributes) {
      const { logits } = attentionModel(needed(at("ids")), parameters, attributes);
      return { loss: classified(logits, needed(at("targets"))), outputs: { logits } };
    },
  },
  TextClassifier: {
    record(at, parameters, attributes) {
      const given = { ids: needed(at("ids")), lengths: at("lengths") };
      const { logits, weights } = textClassifier(given, parameters, attributes);
      return { loss: classified(logits, needed(at("targets"))), outputs: { logits, weights } };
    },
  },
  Translator: {
    inputs: ({ target, ...others }) => ({
      ...others,
      before: rowsOf(target, "last"),
      next: rowsOf(target, "first"),
    }),
    record(at, parameters, attributes) {
      const [source, lengths, before] = ["source", "lengths", "before"].map((name) =>
        needed(at(name)),
      );
      const given = { source, lengths, before };
      const { logits, alignments } = translator(given, parameters, attributes);
      const loss = classified(logits, needed(at("next")), attributes.padding);
      return { loss, outputs: { logits, alignments } };
    },
  },
  EncoderClassifier: {
    record(at, parameters, attributes) {
      const given = { ids: needed(at("ids")), lengths: at("lengths") };
      const logits = encoderClassifier(given, parameters, attributes);
      return { loss: classified(logits, needed(at("targets"))), outputs: { logits } };
    },
  },
  Gpt: {
    inputs: ({ ids }) => ({ before: rowsOf(ids, "last"), next: rowsOf(ids, "first") }),
    record(at, parameters, attributes) {
      const logits = gpt(needed(at("before")), parameters, attributes);
      return { loss: classified(logits, needed(at("next"))), outputs: { logits } };
    },
  },
  Vit: {
    record(at, parameters, attributes) {
      const logits = vit(needed(at("images")), parameters, attributes);
      return { loss: classified(logits, needed(at("targets"))), outputs: { logits } };
    },
  },
};

/** The elements of one step. */
const stepOf = ({ shape, data }: VectorTensor, step: number) => {
  const size = data.length / shape[0];
  return data.slice(step * size, (step + 1) * size);
};

function inputsOf({ vector }: NamedCall, { inputs }: System): Steps {
  const given: Record<string, VectorTensor> = {};
  for (const input of vector.inputs)
    if (input?.name && !input.name.startsWith(INITIAL)) given[input.name] = input;
  return inputs ? inputs(given) : given;
}

/** The optimiser that the attributes tell. */
function optimizerOf({ optimizer, schedule, clipNorm }: NamedCall["attributes"]): ProgramOptimizer {
  const { decay, ...shared } = optimizer;
  const isOther = (_: string, shape: readonly number[]) => shape.length !== 2;
  return {
    ...shared,
    ...(decay === "matrices" && { groups: [{ parameters: isOther, weightDecay: 0 }] }),
    ...(schedule && { schedule }),
    ...(clipNorm !== undefined && { clip: { maxNorm: clipNorm } }),
  };
}

/** Runs all steps of a system, and gives what a vector may have of it. */
async function train(call: NamedCall, system: System): Promise<Record<string, Tensor>> {
  const { device, vector, attributes } = call;
  const steps = inputsOf(call, system);
  const initial = new Map(
    vector.inputs.flatMap((input) =>
      input?.name?.startsWith(INITIAL) ? [[input.name.slice(INITIAL.length), input.data]] : [],
    ),
  );
  const define = (graph: Graph) => {
    const values = new Map(
      Object.entries(steps).map(([name, { shape, dtype }]) => [
        name,
        graph.input(name, shape.slice(1), dtype === "float32" ? "f32" : "i32"),
      ]),
    );
    const parameters = parametersOf(graph, (name) => {
      const data = initial.get(name);
      if (!data) throw new Error(`the vector has no ${INITIAL}${name}`);
      return data;
    });
    return system.record((name) => values.get(name), parameters, attributes);
  };
  const program = await recordProgram(device, define, { optimizer: optimizerOf(attributes) });
  try {
    const results: Record<string, Tensor> = {};
    const keep = async (name: string, from: Tensor) => {
      results[name] = tensor(device, from.shape, { data: await from.read() });
    };
    const losses: number[] = [];
    const normed: number[] = [];
    const count = Object.values(steps)[0].shape[0];
    for (let step = 0; step < count; step++) {
      const batch = Object.entries(steps).map(([name, all]) => [name, stepOf(all, step)] as const);
      losses.push((await program.run(Object.fromEntries(batch))) as number);
      const norm = attributes.clipNorm !== undefined && (await program.optimizer?.norm?.read());
      if (norm) normed.push(norm[0]);
      if (step > 0) continue;
      for (const [name, output] of Object.entries(program.outputs)) await keep(`${name}_0`, output);
      for (const [name, gradient] of program.gradients) await keep(`gradient_0.${name}`, gradient);
    }
    for (const [name, parameter] of program.parameters) await keep(`final.${name}`, parameter);
    results.losses = tensor(device, [count], { data: losses });
    if (normed.length) results.norms = tensor(device, [count], { data: normed });
    return results;
  } finally {
    program.destroy();
  }
}

export const systems: Readonly<Record<string, NamedOperator>> = Object.fromEntries(
  Object.entries(SYSTEMS).map(([name, system]) => [name, (call) => train(call, system)]),
);
