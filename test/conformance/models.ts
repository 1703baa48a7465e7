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
  const models = folders
    .flatMap(packedOf)
    .map((fixture) => write(fixture, fixture.fixture, fixture.family ?? fixture.fixture));
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

/**
 * The fixtures of a folder: its checkpoint, and one more for each file of weights beside it, as
 * `model.NAME.safetensors`, which has the same tensors in another way.
 */
function packedOf(folder: string): PackedFixture[] {
  const names = readdirSync(folder);
  const shared = names.filter((name) =>
    /^(config\.json|model(-[\w-]+)?\.safetensors|model\.safetensors\.index\.json)$/.test(name),
  );
  const others = names.filter((name) => /^model\.[\w.-]+\.safetensors$/.test(name));
  const read = (name: string) => readFileSync(join(folder, name));
  const config = shared.includes("config.json")
    ? (JSON.parse(read("config.json").toString("utf8")) as { readonly model_type?: string })
    : {};
  const packed = (fixture: string, files: Readonly<Record<string, string>>): PackedFixture => ({
    fixture,
    family: config.model_type,
    files: Object.fromEntries(
      Object.entries(files).map(([name, from]) => [name, read(from).toString("base64")]),
    ),
    golden: JSON.parse(read(GOLDEN).toString("utf8")),
  });
  const own = basename(folder);
  return [
    packed(own, Object.fromEntries(shared.map((name) => [name, name]))),
    ...others.map((name) =>
      packed(`${own} (${name.split(".").slice(1, -1).join(".")})`, {
        "config.json": "config.json",
        "model.safetensors": name,
      }),
    ),
  ];
}
