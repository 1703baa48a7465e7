// Does what the README tells a newcomer to do in a bare clone, with the tracked files, the packages
// of the lockfile and no browser.

import { execFileSync, spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";

const root = resolve(import.meta.dirname, "../..");
const folder = mkdtempSync(join(tmpdir(), "fovea-clone-"));
const clone = join(folder, "fovea");

/** Returns the files that git has, or without git all that are not made here. */
function tracked(): string[] {
  const { status, stdout } = spawnSync("git", ["ls-files", "-z"], { cwd: root, encoding: "utf8" });
  if (status === 0)
    return stdout.split("\0").filter((name) => name && existsSync(join(root, name)));
  const made = /^(node_modules|dist|coverage|\.git|\.vite|\.gpu)$/;
  return readdirSync(root).filter((name) => !made.test(name));
}

/**
 * Runs npm as in a fresh shell, without any browser that was named, and without a registry.
 */
function npm(cwd: string, ...args: string[]) {
  const { FOVEA_BROWSER, VITEST, ...env } = process.env;
  Object.assign(env, { PLAYWRIGHT_BROWSERS_PATH: folder, npm_config_offline: "true" });
  return spawnSync("npm", args, {
    cwd,
    encoding: "utf8",
    shell: process.platform === "win32",
    env,
  });
}

beforeAll(() => {
  for (const name of tracked()) {
    mkdirSync(dirname(join(clone, name)), { recursive: true });
    cpSync(join(root, name), join(clone, name), { recursive: true });
  }
  // This stands for `npm ci`: the same packages, without what set-up and Vite have written beside
  // them.
  mkdirSync(join(clone, "node_modules"));
  for (const name of readdirSync(join(root, "node_modules")).filter(
    (entry) => !/^\.(cache|vite)/.test(entry),
  )) {
    symlinkSync(join(root, "node_modules", name), join(clone, "node_modules", name), "junction");
  }
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

it("a bare clone builds without a browser, and its folder can be installed into a project", () => {
  const build = npm(clone, "run", "build");
  expect([build.stderr, build.status]).toEqual(["", 0]);
  const project = join(folder, "project");
  mkdirSync(project);
  writeFileSync(
    join(project, "package.json"),
    '{ "name": "project", "type": "module", "private": true }',
  );
  const install = npm(project, "install", clone);
  expect(install.status, install.stderr).toBe(0);
  expect(JSON.parse(readFileSync(join(project, "package.json"), "utf8")).dependencies).toEqual({
    fovea: "file:../fovea",
  });
  const program =
    'import * as fovea from "fovea"; import * as onnx from "fovea/onnx"; import * as training from "fovea/training"; import { Model } from "fovea/models"; console.log(typeof fovea.attention, typeof onnx.Attention, typeof training.planOptimizer, typeof Model);';
  writeFileSync(join(project, "main.js"), program);
  expect(execFileSync(process.execPath, ["main.js"], { cwd: project, encoding: "utf8" })).toBe(
    "function function function function\n",
  );
});
