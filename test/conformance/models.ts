// The fixtures of models of a folder, each packed into one text that every engine can take.

import { existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { FoveaError } from "../../src/index.ts";
import type { Case } from "./cases.ts";
import type { PackedFixture } from "./fixtures.ts";
import type { PackedSampling, SamplingCase } from "./sampling.ts";

const GOLDEN = "golden.json";
const SAMPLING = "sampling.json";

/**
 * The cases of a folder: one for each folder in it with golden results, or the folder itself, and
 * one for each distribution of its `sampling.json`.
 */
export function modelCases(folder: string): Case[] {
  if (!existsSync(folder)) throw new FoveaError("file", `there is no folder ${folder} of models.`);
  const inside = readdirSync(folder)
    .sort()
    .map((name) => join(folder, name))
    .filter((path) => existsSync(join(path, GOLDEN)));
  const folders = existsSync(join(folder, GOLDEN)) ? [folder] : inside;
  const packed = mkdtempSync(join(tmpdir(), "fovea-models-"));
  const write = (fixture: PackedFixture | PackedSampling, at: string, op: string): Case => {
    const file = join(packed, `${at}.json`);
    writeFileSync(file, JSON.stringify(fixture));
    return { file: fixture.fixture, path: file, op, opset: null, dtype: "model" };
  };
  const models = folders.map((path) => {
    const fixture = packedOf(path);
    return write(fixture, fixture.fixture, fixture.family ?? fixture.fixture);
  });
  const distributions = samplingOf(folder).map((one, at) =>
    write({ fixture: `sampling: ${one.name}`, sampling: one }, `sampling-${at}`, "sampling"),
  );
  return [...models, ...distributions];
}

/** The distributions of a folder, if it has some. */
function samplingOf(folder: string): readonly SamplingCase[] {
  const path = join(folder, SAMPLING);
  return existsSync(path) ? JSON.parse(readFileSync(path, "utf8")).cases : [];
}

function packedOf(folder: string): PackedFixture {
  const names = readdirSync(folder).filter((name) =>
    /^(config\.json|model[\w.-]*\.safetensors|model\.safetensors\.index\.json)$/.test(name),
  );
  // Another set of names for the same tensors is a fixture of its own, and not among these.
  const files = names.filter((name) => !name.includes("legacy"));
  const read = (name: string) => readFileSync(join(folder, name));
  const config = files.includes("config.json")
    ? (JSON.parse(read("config.json").toString("utf8")) as { readonly model_type?: string })
    : {};
  return {
    fixture: basename(folder),
    family: config.model_type,
    files: Object.fromEntries(files.map((name) => [name, read(name).toString("base64")])),
    golden: JSON.parse(read(GOLDEN).toString("utf8")),
  };
}
