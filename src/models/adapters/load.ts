// Loading of an adapter: the low-rank matrices beside weights of a model.

import { check, FoveaError, show } from "../../errors.ts";
import { decode, named } from "../../files/tensors.ts";
import { settle } from "../../gpu/buffers.ts";
import { tensor } from "../../gpu/make_tensor.ts";
import { BYTES } from "../../gpu/shapes.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import { type CheckpointTensor, readJson, tensorsOf } from "../checkpoint.ts";
import type { Definition } from "../definition.ts";
import type { FileSource } from "../source.ts";
import { STORED, writeBytes } from "../weights.ts";
import { type AdapterConfig, adapterConfig } from "./config.ts";
import { type LinearWeight, linearsOf } from "./linears.ts";

const CONFIG = "adapter_config.json";
const TENSORS = "adapter_model.safetensors";

/** What stands beside a weight, by the names of tensors. */
export interface AdapterModule {
  /** [rank, inputs] */
  readonly a: string;
  /** [outputs, rank] */
  readonly b: string;
  /** [1] */
  readonly scale: string;
  /** Whether the weight is stored as [inputs, outputs]. */
  readonly transposed: boolean;
}

/** An adapter on the GPU. */
export class LoadedAdapter {
  readonly name: string;
  /** By the names of the weights beside which they stand. */
  readonly modules: ReadonlyMap<string, AdapterModule>;
  readonly tensors: ReadonlyMap<string, Tensor>;
  readonly #device: GPUDevice;
  /** The tensors that the products are multiplied by, with the scale of the config. */
  readonly #scales: readonly (readonly [Tensor, number])[];
  #weight = Number.NaN;

  constructor(
    device: GPUDevice,
    name: string,
    modules: ReadonlyMap<string, AdapterModule>,
    tensors: ReadonlyMap<string, Tensor>,
    scales: readonly (readonly [Tensor, number])[],
  ) {
    this.#device = device;
    this.name = name;
    this.modules = modules;
    this.tensors = tensors;
    this.#scales = scales;
  }

  /** Bytes of GPU memory. */
  get bytes(): number {
    return [...this.tensors.values()].reduce((sum, one) => sum + one.size * BYTES[one.dtype], 0);
  }

  /** Sets how much of the adapter counts in what is submitted next. */
  weigh(weight: number): void {
    if (weight === this.#weight) return;
    this.#weight = weight;
    for (const [{ buffer }, scale] of this.#scales)
      this.#device.queue.writeBuffer(buffer, 0, Float32Array.of(weight * scale));
  }

  destroy(): void {
    for (const one of this.tensors.values()) one.destroy();
  }
}

/** A module of an adapter as its files have it. */
interface Found {
  /** The path of the module in the files, after `base_model.model.`. */
  readonly path: string;
  readonly linear: LinearWeight;
  readonly matrices: Partial<Record<"A" | "B", CheckpointTensor>>;
}

/**
 * Loads an adapter. Rejects with FoveaError("file") for a config that is not supported, and for
 * tensors that are missing, extra or of another shape; then nothing is left on the GPU.
 */
export async function loadAdapter(
  device: GPUDevice,
  name: string,
  source: FileSource,
  definition: Definition,
): Promise<LoadedAdapter> {
  const given = await readJson(source, CONFIG);
  check(given !== undefined, "file", () => `${source.label}: there is no ${CONFIG}.`);
  const config = adapterConfig(given);
  const stored = await tensorsOf(source, TENSORS);
  check(stored !== undefined, "file", () => `${source.label}: there is no ${TENSORS}.`);
  const found = modulesOf(source.label, stored, config, definition);
  const tensors = new Map<string, Tensor>();
  const scales = new Map<number, string>();
  const modules = new Map<string, AdapterModule>();
  const made = (own: string, shape: readonly number[], dtype: "f32" | "f16" | "bf16") => {
    const label = `adapters.${name}.${own}`;
    const one = tensor(device, shape, { dtype, label });
    tensors.set(label, one);
    return one;
  };
  try {
    for (const [weight, { path, linear, matrices }] of found) {
      for (const [letter, one] of Object.entries(matrices)) {
        const dtype = STORED[one.dtype] ?? "f32";
        const own = made(`${weight}.lora_${letter}`, one.shape, dtype);
        await own.allocated;
        const read = await one.read();
        if (dtype === STORED[one.dtype]) writeBytes(device, own, read);
        else await own.write(decode(named(`${path}.lora_${letter}.weight`), read));
      }
      const scale = config.scaleOf(path);
      if (!scales.has(scale)) {
        made(`scale.${scale}`, [1], "f32");
        scales.set(scale, `adapters.${name}.scale.${scale}`);
      }
      modules.set(weight, {
        a: `adapters.${name}.${weight}.lora_A`,
        b: `adapters.${name}.${weight}.lora_B`,
        scale: scales.get(scale) as string,
        transposed: linear.transposed,
      });
    }
    await settle([...tensors.values()].map(({ allocated }) => allocated));
  } catch (error) {
    for (const one of tensors.values()) one.destroy();
    throw error;
  }
  const weighed = [...scales].map(([scale, own]) => [tensors.get(own) as Tensor, scale] as const);
  return new LoadedAdapter(device, name, modules, tensors, weighed);
}

/** The modules of an adapter, by the names of the weights beside which they stand. */
function modulesOf(
  label: string,
  stored: ReadonlyMap<string, CheckpointTensor>,
  config: AdapterConfig,
  definition: Definition,
): ReadonlyMap<string, Found> {
  const { family } = definition;
  const linears = linearsOf(definition);
  const found = new Map<string, Found>();
  for (const [inFile, one] of stored) {
    const [, path, letter] = /^base_model\.model\.(.+)\.lora_([AB])\.weight$/.exec(inFile) ?? [];
    const weight = path === undefined ? undefined : definition.nameOf(`${path}.weight`);
    const linear = weight === undefined ? undefined : linears.get(weight);
    if (!linear || weight === undefined) {
      throw new FoveaError(
        "file",
        `${label}: ${named(inFile)} stands beside no linear layer of this ${family}.`,
      );
    }
    const known = found.get(weight) ?? { path, linear, matrices: {} };
    found.set(weight, known);
    check(
      known.path === path,
      "file",
      () => `${label}: ${named(path)} and ${named(known.path)} are one module under two names.`,
    );
    const rank = config.rankOf(path);
    const shape = letter === "A" ? [rank, linear.inputs] : [linear.outputs, rank];
    check(
      String(one.shape) === String(shape),
      "file",
      () => `${label}: ${named(inFile)} is [${one.shape}]; by the configs it is [${shape}].`,
    );
    known.matrices[letter as "A" | "B"] = one;
  }
  checkWhole(label, found, linears, config);
  return found;
}

/** Throws FoveaError("file") unless the targets of the config, and no others, have A and B. */
function checkWhole(
  label: string,
  found: ReadonlyMap<string, Found>,
  linears: ReadonlyMap<string, LinearWeight>,
  { isTarget }: AdapterConfig,
): void {
  check(found.size > 0, "file", () => `${label}: ${TENSORS} has no tensors.`);
  const isHead = (name: string) => name === "lm_head";
  // What stands before the names of this model in the files.
  const prefixes = new Set([""]);
  for (const [weight, { path, matrices }] of found) {
    for (const letter of ["A", "B"] as const) {
      check(
        matrices[letter] !== undefined,
        "file",
        () => `${label}: base_model.model.${path}.lora_${letter}.weight is missing.`,
      );
    }
    check(
      isTarget?.([path], isHead(path)) ?? true,
      "file",
      () => `${label}: ${show(path)} has an adapter, and is none of the config's target_modules.`,
    );
    const own = moduleOf(weight);
    if (path.endsWith(own)) prefixes.add(path.slice(0, path.length - own.length));
  }
  for (const weight of isTarget ? linears.keys() : []) {
    const own = moduleOf(weight);
    const names = [...prefixes].map((prefix) => `${prefix}${own}`);
    check(
      found.has(weight) || !isTarget?.(names, isHead(own)),
      "file",
      () =>
        `${label}: ${own} is one of the config's target_modules, and has no lora_A and lora_B in ${TENSORS}.`,
    );
  }
}

const moduleOf = (weight: string) => weight.replace(/\.weight$/, "");
