// Finds the test vectors of peers: beside the project, or in the folders that FOVEA_VECTORS names.
// They aren't part of the project. Node built-ins only.

import { existsSync, readdirSync } from "node:fs";
import { delimiter, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** Returns the folders; none if they are missing. @returns {string[]} */
export function vectorFolders() {
  const given = process.env.FOVEA_VECTORS?.split(delimiter).filter(Boolean) ?? [
    join(root, "../shared/vectors"),
  ];
  return given.map((folder) => resolve(folder)).filter((folder) => existsSync(folder));
}

/** Tests that are skipped if there are no vectors: one for each file. */
export const skippedWithoutVectors = () =>
  vectorFolders().length
    ? 0
    : readdirSync(join(root, "test/vectors")).filter((file) => /\.test\.ts$/.test(file)).length;
