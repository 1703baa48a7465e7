// What a decoder sees of an encoder: keys and values of the encoder's rows, computed once for a
// session and its forks.

import { check, FoveaError } from "../../errors.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import type { Graph } from "../../training/graph.ts";
import type { Batch, Program } from "../../training/program.ts";
import { recordProgram } from "../../training/record.ts";
import type { Value } from "../../training/value.ts";
import type { ModelInputs, RunSizes, SeenSource } from "../definition.ts";
import type { SessionModel } from "./session_model.ts";

const nameOf = (layer: number, kind: "k" | "v") => `source ${kind} ${layer}`;
const MASK = "source_mask";

/** Keys and values of all layers of a decoder. */
export class SourceRows {
  /** Sizes of the encoder's run. */
  readonly sizes: RunSizes;
  /** By the names of parameters of the decoder's programs. */
  readonly tensors: ReadonlyMap<string, Tensor>;
  /** Inputs of the decoder's programs that never change. */
  readonly inputs: Batch;
  readonly #program: Program;
  #users = 1;

  private constructor(program: Program, sizes: RunSizes, inputs: Batch) {
    this.#program = program;
    this.sizes = sizes;
    this.inputs = inputs;
    this.tensors = new Map(Object.entries(program.outputs));
  }

  /**
   * Runs the encoder. Throws FoveaError("argument") if the model has an encoder and there is nothing
   * for it, or the other way round.
   */
  static async of(
    { device, definition, weights }: SessionModel,
    given: ModelInputs | undefined,
    entries: number,
  ): Promise<SourceRows | undefined> {
    const { family } = definition;
    check(
      (definition.source === undefined) === (given === undefined),
      "argument",
      () =>
        `${family} session: ${given ? `a ${family} has no encoder: leave source out` : `source is missing, what the encoder reads`}.`,
    );
    if (!given) return undefined;
    if (given.decoderIds)
      throw new FoveaError(
        "argument",
        `${family} session: decoderIds are its texts, not its source.`,
      );
    const { sizes, batch } = definition.prepare(given);
    check(
      sizes.batch === entries,
      "argument",
      () => `${family} session: the source has ${sizes.batch} entries for ${entries} texts.`,
    );
    const program = await recordProgram(
      device,
      (graph) => {
        const layers = definition.source?.(graph, weights.of(graph), sizes) ?? [];
        // [B, N, H, D], whose elements lie one after the other
        const stored = (rows: Value) => rows.permute(0, 2, 1, 3);
        const outputs = layers.flatMap(({ k, v }, layer) => [
          [nameOf(layer, "k"), stored(k)] as const,
          [nameOf(layer, "v"), stored(v)] as const,
        ]);
        return { outputs: Object.fromEntries(outputs) };
      },
      { parameters: weights.tensors, label: `${family} encoder` },
    );
    try {
      const needed = [...program.inputs.keys()].map((name) => [name, batch[name]] as const);
      await program.write(Object.fromEntries(needed));
      const encoder = device.createCommandEncoder({ label: family });
      program.encode(encoder);
      device.queue.submit([encoder.finish()]);
      return new SourceRows(program, sizes, batch.mask ? { [MASK]: batch.mask } : {});
    } catch (error) {
      program.destroy();
      throw error;
    }
  }

  /** What a program of the decoder sees of the encoder. */
  seenIn(graph: Graph): SeenSource {
    const rows = (layer: number, kind: "k" | "v") => {
      const name = nameOf(layer, kind);
      const { shape } = this.tensors.get(name) as Tensor;
      return graph.parameter(name, shape, undefined, { frozen: true }).permute(0, 2, 1, 3);
    };
    const { batch, rows: count } = this.sizes;
    const mask = this.inputs[MASK] && graph.input(MASK, [batch, 1, 1, count], "u8");
    return {
      rows: (layer) => ({ k: rows(layer, "k"), v: rows(layer, "v") }),
      mask: mask || undefined,
    };
  }

  /** For another session, which releases it, too. */
  share(): SourceRows {
    this.#users++;
    return this;
  }

  release(): void {
    this.#users--;
    if (this.#users === 0) this.#program.destroy();
  }
}
