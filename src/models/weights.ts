// The weights of a model on the GPU, as they are stored.

import { check, FoveaError } from "../errors.ts";
import { decode, named, type StoredTensor } from "../files/tensors.ts";
import { settle } from "../gpu/buffers.ts";
import { tensor } from "../gpu/make_tensor.ts";
import { BYTES } from "../gpu/shapes.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { Graph } from "../training/graph.ts";
import type { Value } from "../training/value.ts";
import type { FloatDtype } from "../types.ts";
import type { Checkpoint, CheckpointTensor } from "./checkpoint.ts";
import type { Definition, RunSizes, Weight } from "./definition.ts";
import {
  integerPlaces,
  shapeOfWords,
  storeIntegers,
  type WeightOptions,
  type WeightPlace,
} from "./integers.ts";

/** Dtypes of files that go to the GPU as they are. */
export const STORED: Readonly<Record<string, FloatDtype>> = {
  F32: "f32",
  F16: "f16",
  BF16: "bf16",
};

/** A weight that a definition asks for, and where it is. */
interface Needed {
  readonly stored: CheckpointTensor;
  readonly plus: number;
  readonly dtype: FloatDtype;
}

/** What is loaded of a checkpoint, and what of it becomes integers. */
interface Wanted {
  readonly needed: ReadonlyMap<string, Needed>;
  readonly places: ReadonlyMap<string, WeightPlace>;
}

/** Is told how many bytes are loaded, and how many there are. */
export type OnProgress = (loaded: number, total: number) => unknown;

/** The weights of a model. */
export class Weights {
  readonly tensors: ReadonlyMap<string, Tensor>;
  /** Bytes of GPU memory. */
  readonly bytes: number;

  readonly #places: ReadonlyMap<string, WeightPlace>;

  private constructor(
    tensors: ReadonlyMap<string, Tensor>,
    places: ReadonlyMap<string, WeightPlace>,
  ) {
    this.tensors = tensors;
    this.#places = places;
    this.bytes = [...tensors.values()].reduce(
      (sum, { size, dtype }) => sum + size * BYTES[dtype],
      0,
    );
  }

  /**
   * Loads what a definition asks for, a tensor after the other; with `options`, matrices as
   * integers. Rejects with FoveaError("file") for
   * tensors that are missing, that nobody asks for, or that have another shape, with what was
   * expected; then nothing is left on the GPU.
   */
  static async load(
    device: GPUDevice,
    checkpoint: Checkpoint,
    definition: Definition,
    onProgress: OnProgress = () => undefined,
    options?: WeightOptions,
  ): Promise<Weights> {
    const { needed, places } = wantedOf(checkpoint, definition, options);
    const total = [...needed.values()].reduce((sum, { stored }) => sum + stored.bytes, 0);
    const tensors = new Map<string, Tensor>();
    let loaded = 0;
    try {
      for (const [name, one] of needed) {
        const { stored, dtype } = one;
        const place = places.get(name);
        const made = place
          ? tensor(device, shapeOfWords(place), { dtype: "u32", label: name })
          : tensor(device, stored.shape, { dtype, label: name });
        tensors.set(name, made);
        await made.allocated;
        if (place) await loadIntegers(made, name, one, place);
        else await fill(made, name, one);
        loaded += stored.bytes;
        onProgress(loaded, total);
      }
      await settle([...tensors.values()].map(({ allocated }) => allocated));
    } catch (error) {
      for (const one of tensors.values()) one.destroy();
      throw error;
    }
    return new Weights(tensors, places);
  }

  /** The weights as parameters of a graph. */
  of(graph: Graph): Weight {
    return (name) => {
      const place = this.#places.get(name);
      const value = graph.parameters.get(name)?.value ?? this.#parameter(graph, name, place);
      return place?.turned ? value.permute(1, 0) : value;
    };
  }

  #parameter(graph: Graph, name: string, place: WeightPlace | undefined): Value {
    const frozen = { frozen: true };
    if (place)
      return graph.parameter(name, place.shape, undefined, { ...frozen, ...place.quantised });
    const { shape, dtype } = this.tensors.get(name) as Tensor;
    return graph.parameter(name, shape, undefined, { ...frozen, dtype: dtype as FloatDtype });
  }

  destroy(): void {
    for (const one of this.tensors.values()) one.destroy();
  }
}

/** Gives a tensor the elements of a weight. */
async function fill(made: Tensor, name: string, { stored, plus, dtype }: Needed): Promise<void> {
  const read = await stored.read();
  if (plus || dtype !== STORED[stored.dtype])
    await made.write(decode(named(name), read).map((x) => x + plus));
  else writeBytes(made.device, made, read);
}

/** Gives a tensor the integers of a weight, which is on the GPU as a whole for that long. */
async function loadIntegers(
  made: Tensor,
  name: string,
  one: Needed,
  place: WeightPlace,
): Promise<void> {
  const floats = tensor(made.device, one.stored.shape, { dtype: one.dtype, label: name });
  try {
    await floats.allocated;
    await fill(floats, name, one);
    await storeIntegers(floats, made, place);
  } finally {
    floats.destroy();
  }
}

/** Bytes as they are in the file, whose elements are little-endian, too. */
export function writeBytes(device: GPUDevice, { buffer }: Tensor, { bytes }: StoredTensor): void {
  const whole = bytes.length % 4 === 0;
  const padded = whole ? bytes : new Uint8Array(Math.ceil(bytes.length / 4) * 4);
  if (!whole) padded.set(bytes);
  device.queue.writeBuffer(buffer, 0, padded as Uint8Array<ArrayBuffer>);
}

/** Sizes that ask for all weights of a model. */
export const LEAST: RunSizes = { batch: 1, rows: 1, masked: false };

/** What a definition asks for, from the names of a checkpoint. */
function wantedOf(
  checkpoint: Checkpoint,
  definition: Definition,
  options: WeightOptions | undefined,
): Wanted {
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
  return { needed, places: options ? integerPlaces(graph, options) : new Map() };
}
