// The weights of a model on the GPU, as they are stored.

import { check, FoveaError } from "../errors.ts";
import { decode, named, type StoredTensor } from "../files/tensors.ts";
import { settle } from "../gpu/buffers.ts";
import { tensor } from "../gpu/make_tensor.ts";
import { BYTES } from "../gpu/shapes.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { Graph } from "../training/graph.ts";
import type { FloatDtype } from "../types.ts";
import type { Checkpoint, CheckpointTensor } from "./checkpoint.ts";
import type { Definition, RunSizes, Weight } from "./definition.ts";

/** Dtypes of files that go to the GPU as they are. */
const STORED: Readonly<Record<string, FloatDtype>> = { F32: "f32", F16: "f16", BF16: "bf16" };

/** A weight that a definition asks for, and where it is. */
interface Needed {
  readonly stored: CheckpointTensor;
  readonly plus: number;
  readonly dtype: FloatDtype;
}

/** Is told how many bytes are loaded, and how many there are. */
export type OnProgress = (loaded: number, total: number) => unknown;

/** The weights of a model. */
export class Weights {
  readonly tensors: ReadonlyMap<string, Tensor>;
  /** Bytes of GPU memory. */
  readonly bytes: number;

  private constructor(tensors: ReadonlyMap<string, Tensor>) {
    this.tensors = tensors;
    this.bytes = [...tensors.values()].reduce(
      (sum, { size, dtype }) => sum + size * BYTES[dtype],
      0,
    );
  }

  /**
   * Loads what a definition asks for, a tensor after the other. Rejects with FoveaError("file") for
   * tensors that are missing, that nobody asks for, or that have another shape, with what was
   * expected; then nothing is left on the GPU.
   */
  static async load(
    device: GPUDevice,
    checkpoint: Checkpoint,
    definition: Definition,
    onProgress: OnProgress = () => undefined,
  ): Promise<Weights> {
    const needed = neededOf(checkpoint, definition);
    const total = [...needed.values()].reduce((sum, { stored }) => sum + stored.bytes, 0);
    const tensors = new Map<string, Tensor>();
    let loaded = 0;
    try {
      for (const [name, { stored, plus, dtype }] of needed) {
        const made = tensor(device, stored.shape, { dtype, label: name });
        tensors.set(name, made);
        await made.allocated;
        const read = await stored.read();
        if (plus || dtype !== STORED[stored.dtype])
          await made.write(decode(named(name), read).map((x) => x + plus));
        else writeBytes(device, made, read);
        loaded += stored.bytes;
        onProgress(loaded, total);
      }
      await settle([...tensors.values()].map(({ allocated }) => allocated));
    } catch (error) {
      for (const one of tensors.values()) one.destroy();
      throw error;
    }
    return new Weights(tensors);
  }

  /** The weights as parameters of a graph. */
  of(graph: Graph): Weight {
    return (name) => {
      const known = graph.parameters.get(name);
      if (known) return known.value;
      const { shape, dtype } = this.tensors.get(name) as Tensor;
      const settings = { frozen: true, dtype: dtype as FloatDtype };
      return graph.parameter(name, shape, undefined, settings);
    };
  }

  destroy(): void {
    for (const one of this.tensors.values()) one.destroy();
  }
}

/** Bytes as they are in the file, whose elements are little-endian, too. */
function writeBytes(device: GPUDevice, { buffer }: Tensor, { bytes }: StoredTensor): void {
  const whole = bytes.length % 4 === 0;
  const padded = whole ? bytes : new Uint8Array(Math.ceil(bytes.length / 4) * 4);
  if (!whole) padded.set(bytes);
  device.queue.writeBuffer(buffer, 0, padded as Uint8Array<ArrayBuffer>);
}

/** Sizes that ask for all weights of a model. */
const LEAST: RunSizes = { batch: 1, rows: 1, masked: false };

/** What a definition asks for, from the names of a checkpoint. */
function neededOf(checkpoint: Checkpoint, definition: Definition): Map<string, Needed> {
  const { label, tensors } = checkpoint;
  const found = new Map<string, CheckpointTensor>();
  for (const [inFile, stored] of tensors) {
    const name = definition.nameOf(inFile);
    if (name === undefined) continue;
    check(!found.has(name), "file", () => `${label}: ${named(inFile)} is there under two names.`);
    found.set(name, stored);
  }
  const needed = new Map<string, Needed>();
  const graph = new Graph();
  const weight: Weight = (name, shape, plus = 0) => {
    const known = graph.parameters.get(name);
    if (known) return known.value;
    const stored = found.get(name);
    if (!stored) {
      throw new FoveaError(
        "file",
        `${label}: ${name} [${shape}] is missing, which a ${definition.family} of this config has.`,
      );
    }
    check(
      String(stored.shape) === String(shape),
      "file",
      () => `${label}: ${name} is [${stored.shape}]; by the config it is [${shape}].`,
    );
    const dtype = plus ? "f32" : (STORED[stored.dtype] ?? "f32");
    needed.set(name, { stored, plus, dtype });
    return graph.parameter(name, shape, undefined, { frozen: true, dtype });
  };
  definition.define(graph, weight, LEAST, {});
  const extra = [...found.keys()].filter((name) => !needed.has(name));
  check(
    extra.length === 0,
    "file",
    () =>
      `${label}: a ${definition.family} of this config has no ${extra.slice(0, 3).map(named).join(", ")}${extra.length > 3 ? ` and ${extra.length - 3} more` : ""}.`,
  );
  return needed;
}
