// The files of a checkpoint: its config, and where each tensor lies, in one file or in several.

import { check, FoveaError, show } from "../errors.ts";
import { headerEnd, LENGTH_BYTES, safetensorsPlaces } from "../files/safetensors.ts";
import { named, type StoredTensor } from "../files/tensors.ts";
import type { FileSource } from "./source.ts";

const CONFIG = "config.json";
const SINGLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";

/** The longest JSON that is read of a checkpoint. */
const MOST_JSON = 2 ** 26;

/** A tensor of a checkpoint, which is read when it is asked for. */
export interface CheckpointTensor {
  readonly shape: readonly number[];
  /** By the names of safetensors: F32, F16, BF16, ... */
  readonly dtype: string;
  readonly bytes: number;
  read(): Promise<StoredTensor>;
}

/** A model's files. */
export interface Checkpoint {
  readonly label: string;
  readonly config: unknown;
  readonly tensors: ReadonlyMap<string, CheckpointTensor>;
}

/**
 * Finds all tensors of a checkpoint: `config.json`, and `model.safetensors` or the files that
 * `model.safetensors.index.json` names. Of tensors it reads no bytes.
 *
 * Rejects with FoveaError("file") for files that are missing or malformed, and for an index that
 * does not fit them.
 */
export async function openCheckpoint(source: FileSource): Promise<Checkpoint> {
  const config = await readJson(source, CONFIG);
  check(config !== undefined, "file", () => `${source.label}: there is no ${CONFIG}.`);
  const index = await readJson(source, INDEX);
  if (index === undefined) {
    const tensors = await tensorsOf(source, SINGLE);
    check(
      tensors !== undefined,
      "file",
      () => `${source.label}: there is neither ${SINGLE} nor ${INDEX}.`,
    );
    return { label: source.label, config, tensors };
  }
  return { label: source.label, config, tensors: await shards(source, index) };
}

async function shards(source: FileSource, index: unknown) {
  const { weight_map: map } = (index ?? {}) as { readonly weight_map?: unknown };
  check(
    typeof map === "object" &&
      map !== null &&
      Object.values(map).every((file) => typeof file === "string" && !/[\\/]/.test(file)),
    "file",
    () => `${INDEX}: weight_map must tell a file of the folder for each tensor, got ${show(map)}.`,
  );
  const places = Object.entries(map as Record<string, string>);
  const tensors = new Map<string, CheckpointTensor>();
  for (const file of new Set(places.map(([, name]) => name))) {
    const found = await tensorsOf(source, file);
    check(
      found !== undefined,
      "file",
      () => `${source.label}: ${INDEX} names ${named(file)}, which is not there.`,
    );
    for (const [name, own] of places) {
      if (own !== file) continue;
      const tensor = found.get(name);
      check(
        tensor !== undefined,
        "file",
        () => `${file}: there is no ${named(name)}, which ${INDEX} says is in it.`,
      );
      tensors.set(name, tensor);
    }
    const extra = [...found.keys()].find((name) => !Object.hasOwn(map as object, name));
    check(
      extra === undefined,
      "file",
      () => `${file} has ${named(extra as string)}, which ${INDEX} does not know.`,
    );
  }
  return tensors;
}

/** The tensors of a file; undefined if there is none of this name. It reads no elements. */
export async function tensorsOf(source: FileSource, file: string) {
  const length = await source.size(file);
  if (length === undefined) return undefined;
  const read = async (begin: number, end: number) => {
    const bytes = await source.read(file, begin, end);
    if (bytes.length === end - begin) return bytes;
    throw new FoveaError(
      "file",
      `${file}: asked for bytes ${begin} to ${end}, got ${bytes.length} bytes.`,
    );
  };
  const first = await read(0, Math.min(LENGTH_BYTES, length));
  const head = await read(0, headerEnd(file, first, length));
  const places = safetensorsPlaces(file, head, length);
  return new Map(
    [...places].map(([name, { begin, end, shape, dtype }]) => {
      const tensor: CheckpointTensor = {
        shape,
        dtype,
        bytes: end - begin,
        read: async () => ({ shape, dtype, bytes: await read(begin, end) }),
      };
      return [name, tensor] as const;
    }),
  );
}

/** What a JSON file says; undefined if there is none of this name. */
export async function readJson(source: FileSource, file: string): Promise<unknown> {
  const length = await source.size(file);
  if (length === undefined) return undefined;
  check(length <= MOST_JSON, "file", () => `${file} is too long: ${length} bytes.`);
  const bytes = await source.read(file, 0, length);
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new FoveaError("file", `${file} is no JSON.`, { cause });
  }
}
