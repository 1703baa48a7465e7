// What gets published, as its users meet it. `npm test` builds before it runs the tests.

import { execFileSync, spawnSync } from "node:child_process";
import {
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
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "vite";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { examples, programs } from "../support/docs.ts";

const root = resolve(import.meta.dirname, "../..");
let folder = "";

beforeAll(() => {
  expect(existsSync(join(root, "dist/index.js")), "dist is missing: run `npm run build`").toBe(true);
  folder = mkdtempSync(join(tmpdir(), "fovea-consumer-"));
  mkdirSync(join(folder, "node_modules"));
  symlinkSync(root, join(folder, "node_modules/fovea"), "junction");
  symlinkSync(join(root, "node_modules/webgpu"), join(folder, "node_modules/webgpu"), "junction");
  writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const CONSUMER = `
import { attention, FoveaError, planAttention, requestFoveaDevice, tensor, type AttentionPlan, type Tensor } from "fovea";
import { attention as reference } from "fovea/reference";
export async function main(): Promise<Float32Array | Uint32Array | Int32Array | Uint8Array> {
  const device: GPUDevice = await requestFoveaDevice({ powerPreference: "low-power" });
  const q: Tensor = tensor(device, [1, 1, 2, 4], { data: [1, 2, 3, 4, 5, 6, 7, 8] });
  const plan: AttentionPlan = await planAttention(device, { q, k: q, v: q, causal: "top-left" });
  plan.destroy();
  const { output, lse } = await attention(q, q, q, { causal: true, lse: true });
  reference({ data: [1], shape: [1, 1, 1, 1] }, { data: [1], shape: [1, 1, 1, 1] }, { data: [1], shape: [1, 1, 1, 1] });
  lse?.destroy();
  try { return await output.read(); } catch (error) { if (error instanceof FoveaError && error.code === "device-lost") return new Float32Array(); throw error; }
}
// @ts-expect-error an option that is not there
export const wrong = (q: Tensor) => attention(q, q, q, { casual: true });
`;

/** What doc comments take for given. */
const GIVEN = `
declare const q: Tensor, k: Tensor, v: Tensor, output: Tensor, qkv: Tensor, ids: Tensor, device: GPUDevice;
declare const vector: Tensor, innerBias: Tensor;
declare const x: Tensor, weight: Tensor, bias: Tensor, embeddings: Tensor, table: Tensor, cache: KvCache;
declare const encoder: GPUCommandEncoder, myBuffer: GPUBuffer, plan: Awaited<ReturnType<typeof planAttention>>;
declare const merge: Awaited<ReturnType<typeof planMerge>>;
declare const paged: Awaited<ReturnType<typeof createPagedKvCache>>, batch: Awaited<ReturnType<typeof paged.batch>>;
`;

function writeConfig(moduleResolution: string, files: readonly string[], skipLibCheck = false): void {
  const module = moduleResolution === "nodenext" ? "nodenext" : "esnext";
  const lib = ["es2022", "dom"];
  const options = { strict: true, noEmit: true, target: "es2022", types: [], skipLibCheck };
  const compilerOptions = { ...options, lib, module, moduleResolution };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, files }));
}

/** What the compiler has to say. */
function typeErrors(): string {
  const tsc = join(root, "node_modules/typescript/bin/tsc");
  return spawnSync(process.execPath, [tsc, "-p", folder], { encoding: "utf8" }).stdout;
}

describe("the package", () => {
  it.each(["bundler", "nodenext"])("has types that hold under moduleResolution %s, checked in full", (resolution) => {
    writeFileSync(join(folder, "consumer.ts"), CONSUMER);
    writeConfig(resolution, ["consumer.ts"]);
    expect(typeErrors()).toBe("");
  });

  it("has examples that hold, in the README and in doc comments", async () => {
    const names = Object.keys(await import(pathToFileURL(join(root, "dist/index.js")).href)).join(", ");
    const given = `import { ${names} } from "fovea";\nvoid [${names}];${GIVEN}`;
    const readme = programs(readFileSync(join(root, "README.md"), "utf8"));
    const sources = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" }).filter((f) =>
      f.endsWith(".ts"),
    );
    const documented = sources.flatMap((file) => examples(readFileSync(join(root, "src", file), "utf8")));
    expect(documented.length).toBeGreaterThanOrEqual(5);
    const texts = [...readme, ...documented.map((text) => `${given}export async function example() {\n${text}}\n`)];
    const files = texts.map((text, index) => {
      writeFileSync(join(folder, `example-${index}.ts`), text);
      return `example-${index}.ts`;
    });
    writeConfig("bundler", files, true); // the types of npm webgpu and of TypeScript's DOM disagree
    expect(typeErrors()).toBe("");
  });

  it("loads in Node without WebGPU, and says so only when a device is asked for", () => {
    const script = `
      const { requestFoveaDevice, FoveaError } = await import("fovea");
      const error = await requestFoveaDevice().catch((error) => error);
      console.log(error instanceof FoveaError && error.code, (await import("fovea/reference")).attention.name);`;
    writeFileSync(join(folder, "load.mjs"), script);
    expect(execFileSync(process.execPath, [join(folder, "load.mjs")], { encoding: "utf8" }).trim()).toMatch(/^device /);
  });

  it("holds what its manifest promises and nothing else", () => {
    const listed = execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], {
      cwd: root,
      encoding: "utf8",
      shell: process.platform === "win32",
      stdio: ["ignore", "pipe", "ignore"],
    });
    const packed = JSON.parse(listed);
    const [{ files }] = Array.isArray(packed) ? packed : (Object.values(packed) as [{ files: { path: string }[] }]);
    const paths: string[] = files.map(({ path }: { path: string }) => path);
    for (const path of [
      "LICENSE",
      "README.md",
      "CHANGELOG.md",
      "dist/index.js",
      "dist/index.js.map",
      "dist/types/index.d.ts",
      "dist/wgsl/manifest.json",
      "shaders/forward.wesl",
    ]) {
      expect(paths).toContain(path);
    }
    expect(paths.filter((path) => !/^(dist|shaders)\/|^[A-Z]+(\.md)?$|^package\.json$/.test(path))).toEqual([]);
  });
});

/** Bytes of an application's bundle, minified and gzipped. */
async function bundle(code: string): Promise<{ text: string; gzipped: number }> {
  const entry = join(folder, "app.js");
  writeFileSync(entry, code);
  const result = await build({
    root: folder,
    configFile: false,
    logLevel: "silent",
    build: { write: false, minify: true, rollupOptions: { input: entry, output: { format: "es" } } },
  });
  const outputs = (Array.isArray(result) ? result : [result]) as { output: { code?: string }[] }[];
  const text = outputs.flatMap(({ output }) => output.map((chunk) => chunk.code ?? "")).join("");
  return { text, gzipped: gzipSync(text).length };
}

describe("bundles", () => {
  it("of attention are at most 41 KB, minified and gzipped", async () => {
    const { text, gzipped } = await bundle('import { attention } from "fovea"; console.log(attention);');
    expect(text).toContain("workgroupBarrier");
    expect(gzipped).toBeLessThan(41_500);
  });
  it("of what needs no kernel hold no kernel", async () => {
    const { text, gzipped } = await bundle('import { tensor } from "fovea"; console.log(tensor);');
    expect(text).not.toContain("workgroupBarrier");
    expect(gzipped).toBeLessThan(5_000);
  });
  it("carry no comment of a shader, but their expansion marks", () => {
    const code = readFileSync(join(root, "dist/index.js"), "utf8");
    expect(code).toContain("// unroll");
    expect(code).not.toContain("FlashAttention-2");
  });
});
