// `npm run docs` writes the pages of all exported types into dist/docs. TypeDoc needs an older
// TypeScript than the project, so it has a folder, scripts/docs, and is installed there by the
// first run.

import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const folder = join(root, "scripts/docs");
const typedoc = join(folder, "node_modules/typedoc/bin/typedoc");

/** Runs a command in the root; ends this process if it fails. */
function run(/** @type {string} */ command, /** @type {string[]} */ ...args) {
  const shell = process.platform === "win32" && command === "npm";
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: "inherit", shell });
  if (status === 0) return;
  console.error(`docs: ${[command, ...args].join(" ")} failed${error ? `: ${error}` : ""}`);
  process.exit(status ?? 1);
}

if (!existsSync(typedoc)) run("npm", "ci", "--prefix", folder);
run(process.execPath, typedoc, "--options", join(folder, "typedoc.json"));
