// A model with its weights on a device, and the programs that run it.

import { check, FoveaError } from "../errors.ts";
import { checkDevice } from "../gpu/buffers.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { Program } from "../training/program.ts";
import { recordProgram } from "../training/record.ts";
import { type AdapterMix, Adapters } from "./adapters/adapters.ts";
import { checkAsked, wantedBy } from "./asked.ts";
import { openCheckpoint } from "./checkpoint.ts";
import { Config } from "./config.ts";
import type { Asked, Definition, ModelInputs, RunSizes } from "./definition.ts";
import { familyOf } from "./families/index.ts";
import { Session } from "./generation/session.ts";
import type { SessionModel } from "./generation/session_model.ts";
import type { SessionOptions } from "./generation/session_options.ts";
import { type KeyScales, measureKeys } from "./generation/smoothing.ts";
import { checkedWeightOptions, type WeightOptions } from "./integers.ts";
import type { FileSource } from "./source.ts";
import { type OnProgress, Weights } from "./weights.ts";

/** Options of {@link Model.load}. */
export interface LoadOptions {
  /** Is told how many bytes of weights are on the GPU, and how many there are. */
  readonly onProgress?: OnProgress;
  /** What weights of projections and embeddings become. Default: they stay as they are stored. */
  readonly weights?: WeightOptions;
}

/** A result of a model, read back. */
export interface ModelResult {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** Programs that are kept: of other sizes, the one that was used longest ago goes. */
const KEPT = 4;

/**
 * A model of Hugging Face's transformers: gpt2, llama, mistral, qwen2, qwen3, gemma2, gemma3, phi3,
 * smollm3, gpt_oss, bert, distilbert, vit, whisper, t5 and mt5. Weights stay on the GPU as they are
 * stored, f32, f16 or bf16, or become int8 or int4; sums are f32.
 *
 * @example
 * const model = await Model.load(device, urlSource("https://example.com/gpt2"));
 * const { logits } = await model.run({ ids: [[464, 3290]] });
 */
export class Model {
  readonly device: GPUDevice;
  readonly family: string;
  /** Layers, whose rows and probabilities `run` may be asked for. */
  readonly layers: number;
  /** The most tokens of an entry. */
  readonly mostTokens: number;
  readonly #definition: Definition;
  readonly #weights: Weights;
  readonly #adapters: Adapters;
  /** By what they were recorded for; the last one used is the last. */
  readonly #programs = new Map<string, Promise<Program>>();
  readonly #sessions = new Set<Session>();
  #keyScales: Promise<KeyScales> | undefined;
  readonly #loaded: readonly [source: FileSource, options: LoadOptions];
  #destroyed = false;

  private constructor(
    device: GPUDevice,
    definition: Definition,
    weights: Weights,
    loaded: readonly [FileSource, LoadOptions],
  ) {
    this.device = device;
    this.#loaded = loaded;
    this.family = definition.family;
    this.layers = definition.layers;
    this.mostTokens = definition.mostRows;
    this.#definition = definition;
    this.#weights = weights;
    this.#adapters = new Adapters(device, definition);
  }

  /**
   * Loads a checkpoint: `config.json`, and `model.safetensors` or its shards, as Hugging Face keeps
   * them. On the CPU there is one tensor at a time.
   *
   * Rejects with FoveaError("file") for a family or an option of the config that is not known, for
   * tensors that are missing, extra or of another shape, and for files that are malformed; nothing
   * is then left on the GPU.
   */
  static async load(
    device: GPUDevice,
    source: FileSource,
    options: LoadOptions = {},
  ): Promise<Model> {
    checkDevice(device);
    const { onProgress } = options;
    const integers = options.weights && checkedWeightOptions(options.weights);
    const checkpoint = await openCheckpoint(source);
    const names = new Set(checkpoint.tensors.keys());
    const definition = familyOf(new Config(checkpoint.config), names);
    const weights = await Weights.load(device, checkpoint, definition, onProgress, integers);
    return new Model(device, definition, weights, [source, options]);
  }

  /** Bytes of GPU memory of the weights, those of adapters included. */
  get bytes(): number {
    return this.#weights.bytes + this.#adapters.bytes;
  }

  /**
   * Loads a LoRA adapter as PEFT saves it: `adapter_config.json` and `adapter_model.safetensors`.
   * It changes nothing before {@link useAdapters} names it, and stays until the model is destroyed.
   *
   * Rejects with FoveaError("file") for an option of its config that is not known or not supported,
   * and for tensors that are missing, extra or of another shape; FoveaError("argument") for a name
   * that there is already. Nothing is then left on the GPU.
   *
   * @example
   * await model.addAdapter("letters", urlSource("https://example.com/letters"));
   * model.useAdapters({ letters: 1 });
   */
  async addAdapter(name: string, source: FileSource): Promise<void> {
    this.parts();
    await this.#adapters.add(name, source);
  }

  /**
   * Says which adapters are used from now on, and how much of each: a weight W becomes
   * W + sum of weight_i * scale_i B_i A_i, with the scale of each adapter's config, alpha / r. `{}`
   * is the model alone. Runs and generations go on with the adapters that they began with; sessions
   * read their texts again with the next ones. Other numbers for the same adapters record nothing
   * anew.
   *
   * Throws FoveaError("argument") for names that were not added, and for what is no finite number.
   */
  useAdapters(weights: Readonly<Record<string, number>>): void {
    this.parts();
    this.#adapters.use(weights);
  }

  /**
   * Runs the model over whole texts, pictures or sounds, and reads its results: `logits` [B, T, vocab]
   * of decoders; `last_hidden_state`, and what the heads of a checkpoint give, of encoders; the
   * encoder's `encoder_last_hidden_state` of models that have both. Of what is asked for there are
   * `hidden.N` [B, T, width] after layer N, and `attention.N` [B, H, T, T]; beside a decoder,
   * `encoder_hidden.N`, `encoder_attention.N`, and `cross_attention.N` [B, H, T, rows of the encoder].
   * Rows of padding mean nothing. The first run of a size compiles.
   *
   * Rejects with FoveaError("argument") for inputs that the model does not take.
   */
  async run(
    inputs: ModelInputs,
    asked: Asked = {},
  ): Promise<Readonly<Record<string, ModelResult>>> {
    this.parts();
    checkAsked(this.#definition, asked);
    const { sizes, batch } = this.#definition.prepare(inputs);
    const { mix } = this.#adapters;
    const program = await this.#program(sizes, asked, mix);
    return program.inTurn(async () => {
      await program.write(batch);
      const encoder = this.device.createCommandEncoder({ label: this.family });
      mix.weigh();
      program.encode(encoder);
      this.device.queue.submit([encoder.finish()]);
      const read = Object.entries(program.outputs).map(async ([name, one]: [string, Tensor]) => {
        const data = (await one.read()) as Float32Array;
        return [name, { shape: one.shape, data }] as const;
      });
      return Object.fromEntries(await Promise.all(read));
    });
  }

  /**
   * Makes a session: texts whose keys and values are kept, which `generate` goes on from. It is the
   * caller's to destroy, and goes with the model.
   *
   * Rejects with FoveaError for a model of whole texts or pictures, and for options that make no
   * sense.
   */
  async session(options: SessionOptions = {}): Promise<Session> {
    return Session.make(this.parts(), options, this.#sessions);
  }

  /**
   * Loads the same checkpoint again, from the source that this model came from, on another device:
   * after a loss, with which all that was on the GPU is gone. This model is destroyed; its sessions
   * still know their tokens, which `session({ resume })` of the new one reads again. Adapters are
   * loaded again, too, and used as they were.
   *
   * @example
   * const again = await model.recover(await requestFoveaDevice());
   * const session = await again.session({ resume: lost });
   */
  async recover(device: GPUDevice): Promise<Model> {
    this.destroy();
    const model = await Model.load(device, ...this.#loaded);
    try {
      await model.#adapters.take(this.#adapters);
      return model;
    } catch (error) {
      model.destroy();
      throw error;
    }
  }

  /** @internal What sessions need. Throws FoveaError("destroyed"). */
  parts(): SessionModel {
    check(!this.#destroyed, "destroyed", () => `${this.family}: the model was destroyed.`);
    const { device } = this;
    const definition = this.#definition;
    const weights = this.#weights;
    const keyScales = () => {
      this.#keyScales ??= measureKeys(device, definition, weights);
      return this.#keyScales;
    };
    return { device, definition, weights, keyScales, adapters: this.#adapters };
  }

  /** Frees the weights, all programs, and all sessions. */
  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    for (const session of [...this.#sessions]) session.destroy();
    this.#keyScales
      ?.then((scales) => {
        for (const one of scales.values()) one.destroy();
      })
      .catch(() => undefined);
    for (const one of this.#programs.values()) release(one);
    this.#weights.destroy();
    this.#adapters.destroy();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  /** The program for these sizes, recorded when it is first needed. */
  #program(sizes: RunSizes, asked: Asked, mix: AdapterMix): Promise<Program> {
    const key = JSON.stringify([sizes, ...wantedBy(asked), mix.names]);
    const known = this.#programs.get(key);
    this.#programs.delete(key);
    const program = known ?? this.#record(sizes, asked, mix);
    this.#programs.set(key, program);
    program.catch(() => this.#programs.delete(key));
    const [[oldest, first]] = this.#programs;
    if (this.#programs.size > KEPT) {
      this.#programs.delete(oldest);
      release(first);
    }
    return program;
  }

  #record(sizes: RunSizes, asked: Asked, mix: AdapterMix): Promise<Program> {
    return recordProgram(
      this.device,
      (graph) => {
        const weight = mix.over(graph, this.#weights.of(graph));
        return { outputs: this.#definition.define(graph, weight, sizes, asked) };
      },
      { parameters: mix.with(this.#weights.tensors), label: this.family },
    );
  }
}

/** Destroys a program once its runs are read. */
function release(recorded: Promise<Program>): void {
  recorded
    .then((program) => program.inTurn(async () => program.destroy()))
    .catch((error: unknown) => {
      if (!(error instanceof FoveaError)) throw error;
    });
}
