// The user's tensors: q, k and v from a safetensors file or from three .npy files, and the
// result into either.

import { readFileSync, writeFileSync } from "node:fs";
import { resolveProblem } from "../src/attention/resolve.ts";
import { FoveaError, show } from "../src/errors.ts";
import { readSafetensors, writeSafetensors } from "../src/files/safetensors.ts";
import { type FileTensor, named } from "../src/files/tensors.ts";
import type { Dims } from "./cost.ts";
import { readNpy, writeNpy } from "./npy.ts";

export interface LoadedInput {
  readonly dims: Dims;
  readonly q: FileTensor;
  readonly k: FileTensor;
  readonly v: FileTensor;
}

/** Names that a file may give its tensors. */
const NAMES = [
  ["q", "query", "queries"],
  ["k", "key", "keys"],
  ["v", "value", "values"],
] as const;

/** The most names of a file that a message lists. */
const LISTED = 20;

/**
 * Loads q, k and v: [B, H, M, D], [H, M, D] or [M, D] each.
 *
 * @param input One .safetensors file, or three .npy files with commas between them.
 * @throws FoveaError for files that are malformed, and shapes that don't go together.
 */
export function loadInput(input: string, causal: boolean): LoadedInput {
  const paths = input.split(",").map((path) => path.trim());
  const [q, k, v] = paths.length === 1 ? loadSafetensors(paths[0]) : loadNpy(paths);
  const qShape = fourAxes("q", q);
  const kShape = fourAxes("k", k);
  const vShape = fourAxes("v", v);
  resolveProblem(
    { q: { shape: qShape }, k: { shape: kShape }, v: { shape: vShape }, label: input },
    undefined,
  );
  const [B, H, M, D] = qShape;
  return { dims: { B, H, Hkv: kShape[1], M, N: kShape[2], D, Dv: vShape[3], causal }, q, k, v };
}

/** Writes the output, shaped like q, and into safetensors also the log-sum-exp. */
export function saveOutput(
  path: string,
  { q, v }: LoadedInput,
  output: Float32Array,
  lse: Float32Array,
): void {
  const rows = q.shape.slice(0, -1);
  const shape = [...rows, v.shape[v.shape.length - 1]];
  const bytes = path.endsWith(".npy")
    ? writeNpy(output, shape)
    : writeSafetensors({ output: { shape, data: output }, lse: { shape: rows, data: lse } });
  try {
    writeFileSync(path, bytes);
  } catch (cause) {
    throw new FoveaError("file", `can't write ${path}: ${(cause as Error).message}`, { cause });
  }
}

function loadSafetensors(path: string): FileTensor[] {
  if (!path.endsWith(".safetensors")) {
    throw new FoveaError(
      "file",
      `${path}: give one .safetensors file, or three .npy files as q.npy,k.npy,v.npy.`,
    );
  }
  const tensors = readSafetensors(path, readBytes(path));
  return NAMES.map((names) => {
    const name = names.find((candidate) => tensors.has(candidate));
    const found = name && tensors.get(name);
    if (found) return found;
    throw new FoveaError(
      "file",
      `${path} has no tensor named ${names.join(" or ")}; it has ${listed(tensors)}.`,
    );
  });
}

/** Lists the first names of a file, and says how many more there are. */
function listed(tensors: ReadonlyMap<string, unknown>): string {
  const names = [...tensors.keys()].slice(0, LISTED).map(named);
  if (tensors.size > LISTED) names.push(`${tensors.size - LISTED} more`);
  return names.join(", ") || "nothing";
}

function loadNpy(paths: readonly string[]): FileTensor[] {
  if (paths.length !== 3 || !paths.every((path) => path.endsWith(".npy"))) {
    throw new FoveaError(
      "file",
      `expected three .npy files as q.npy,k.npy,v.npy; got ${paths.join(",")}.`,
    );
  }
  return paths.map((path) => readNpy(path, readBytes(path)));
}

function readBytes(path: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (cause) {
    throw new FoveaError("file", `can't read ${path}: ${(cause as Error).message}`, { cause });
  }
}

/** Returns the shape, with axes of size 1 in front if it has fewer than four. */
function fourAxes(name: string, { shape }: FileTensor): number[] {
  if (shape.length < 2 || shape.length > 4) {
    throw new FoveaError(
      "file",
      `${name} has shape ${show(shape)}; expected [B, H, M, D], [H, M, D] or [M, D].`,
    );
  }
  return [...new Array<number>(4 - shape.length).fill(1), ...shape];
}
