// Finds the test vectors of peers: beside the project, or in the folders that FOVEA_VECTORS names.
// They aren't part of the project. Node built-ins only.

import { existsSync, readdirSync } from "node:fs";
import { basename, delimiter, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** Returns the folders; none if they are missing. @returns {string[]} */
export function vectorFolders() {
  const given = process.env.FOVEA_VECTORS?.split(delimiter).filter(Boolean) ?? [
    join(root, "../shared/vectors"),
  ];
  return given.map((folder) => resolve(folder)).filter((folder) => existsSync(folder));
}

/**
 * The vectors that lie in folders of a name, `gradients` say, wherever those are.
 * @param {string} name
 * @returns {string[]}
 */
export const vectorsIn = (name) =>
  vectorFolders()
    .flatMap((folder) =>
      readdirSync(folder, { recursive: true, encoding: "utf8" }).map((file) => join(folder, file)),
    )
    .filter((file) => basename(dirname(file)) === name && file.endsWith(".json"))
    .sort();

/** Tests that are skipped where there are no vectors: one for each kind of them. */
export const skippedWithoutVectors = () =>
  [vectorFolders(), ...["gradients", "layers", "training"].map(vectorsIn)].filter(
    (vectors) => vectors.length === 0,
  ).length;
