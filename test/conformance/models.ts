// The fixtures of models of a folder, each packed into one text that every engine can take.

import { existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { FoveaError } from "../../src/index.ts";
import type { Case } from "./cases.ts";
import type { PackedFixture } from "./fixtures.ts";

const GOLDEN = "golden.json";

/** The cases of a folder: one for each folder in it with golden results, or the folder itself. */
export function modelCases(folder: string): Case[] {
  if (!existsSync(folder)) throw new FoveaError("file", `there is no folder ${folder} of models.`);
  const inside = readdirSync(folder)
    .sort()
    .map((name) => join(folder, name))
    .filter((path) => existsSync(join(path, GOLDEN)));
  const folders = existsSync(join(folder, GOLDEN)) ? [folder] : inside;
  const packed = mkdtempSync(join(tmpdir(), "fovea-models-"));
  return folders.map((path) => {
    const fixture = packedOf(path);
    const file = join(packed, `${fixture.fixture}.json`);
    writeFileSync(file, JSON.stringify(fixture));
    return {
      file: fixture.fixture,
      path: file,
      op: fixture.family ?? fixture.fixture,
      opset: null,
      dtype: "model",
    };
  });
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
