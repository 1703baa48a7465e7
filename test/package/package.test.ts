// Tests what gets published, as its users meet it. `npm test` builds before it runs the tests.

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
import { examples, pagesOf, programs } from "../support/docs.ts";

const root = resolve(import.meta.dirname, "../..");
let folder = "";

beforeAll(() => {
  expect(existsSync(join(root, "dist/index.js")), "dist is missing: run `npm run build`").toBe(
    true,
  );
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
  const values: Float32Array = await output.read();
  const ids: Int32Array = await tensor(device, [2], { dtype: "i32", data: [1, 2] }).read();
  const bits: Uint32Array = await tensor(device, [2], { dtype: "u32" }).view({ shape: [1] }).read();
  if (values.length + ids.length + bits.length === 0) return values;
  try { return await output.read(); } catch (error) { if (error instanceof FoveaError && error.code === "device-lost") return new Float32Array(); throw error; }
}
// @ts-expect-error an option that is not there
export const wrong = (q: Tensor) => attention(q, q, q, { casual: true });
`;

/** Tensors that doc comments take for given. */
const TENSORS = [
  "lse",
  "dQ",
  "dK",
  "dV",
  "q",
  "k",
  "v",
  "output",
  "qkv",
  "ids",
  "x",
  "weight",
  "bias",
  "residual",
  "sum",
  "scores",
  "probabilities",
  "logits",
  "vector",
  "innerBias",
  "embeddings",
  "table",
  "cos",
  "sin",
  "fresh",
  "present",
  "update",
  "reset",
  "scale",
  "dOutput",
  "dX",
  "dWeight",
  "dTable",
  "dBias",
  // Inputs of ONNX' operators, by the names they have there
  "X",
  "Q",
  "K",
  "V",
  "query",
  "key",
  "value",
  "input",
  "weights",
  "past",
  "pastKey",
  "pastValue",
  "decay",
  "beta",
  "qWeight",
  "kvWeight",
  "keyCache",
  "valueCache",
  "skip",
  "gamma",
  "tokenOffset",
  "queryBias",
  "relPos",
  "gateBias",
  "ecoA",
  "gate",
  "up",
  "dQuery",
  "hN",
  "cN",
  "gates",
  "states",
  "dH0",
  "dC0",
  "weight_ih_l0",
  "weight_hh_l0",
  "bias_ih_l0",
  "bias_hh_l0",
  "classes",
  "counts",
  "target",
  "tokens",
  "loss",
  "dLogits",
  "prediction",
  "hidden",
];

/** Code that doc comments take for given. */
const GIVEN = `
declare const ${TENSORS.map((name) => `${name}: Tensor`).join(", ")};
declare const device: GPUDevice, encoder: GPUCommandEncoder, pass: GPUComputePassEncoder, myBuffer: GPUBuffer;
declare const cache: KvCache, lengthOfTheFirst: number, lengthOfTheSecond: number;
declare const plan: Awaited<ReturnType<typeof planAttention>>, merge: Awaited<ReturnType<typeof planMerge>>;
declare const partials: Required<import("fovea").PartialAttention>[];
declare const dPartials: import("fovea").PartialGradients<Tensor>[];
declare const layer: import("fovea").MultiHeadAttention, gradients: import("fovea").MultiHeadParameters<Tensor>;
declare const paged: Awaited<ReturnType<typeof createPagedKvCache>>, batch: Awaited<ReturnType<typeof paged.batch>>;
`;

/** The same of recurrent networks, whose weights have names. */
const OF_NETWORKS = GIVEN.replace(", weights: Tensor", "").concat(
  'declare const weights: import("fovea").RecurrentWeights, parameters: typeof weights;',
);

/** The same in the room of training. */
const OF_TRAINING = `
declare const device: GPUDevice, encoder: GPUCommandEncoder, pass: GPUComputePassEncoder;
declare const weight: Tensor, bias: Tensor, dWeight: Tensor, dBias: Tensor;
declare const weights: Float32Array, program: Program, batch: Batch & Float32Array;
`;

/** The same in the room of models. Examples declare what they make, in a function of their own. */
const OF_MODELS = `
declare const device: GPUDevice, encoder: GPUCommandEncoder, pass: GPUComputePassEncoder;
declare const model: Model, lost: import("fovea/models").Session;
declare const tokenizer: import("fovea/models").Tokenizer, samples: Float32Array;
declare const token: Tensor, logprob: Tensor, lastLogits: Tensor, logits: Tensor;
declare const ids: Tensor, logprobs: Tensor;
`;

function writeConfig(
  moduleResolution: string,
  files: readonly string[],
  skipLibCheck = false,
): void {
  const module = moduleResolution === "nodenext" ? "nodenext" : "esnext";
  const lib = ["es2022", "dom"];
  const options = { strict: true, noEmit: true, target: "es2022", types: [], skipLibCheck };
  const compilerOptions = { ...options, lib, module, moduleResolution };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, files }));
}

/** Returns the compiler's errors. */
function typeErrors(): string {
  const tsc = join(root, "node_modules/typescript/bin/tsc");
  return spawnSync(process.execPath, [tsc, "-p", folder], { encoding: "utf8" }).stdout;
}

describe("the package", () => {
  it.each(["bundler", "nodenext"])(
    "has types that hold under moduleResolution %s, checked in full",
    (resolution) => {
      writeFileSync(join(folder, "consumer.ts"), CONSUMER);
      writeConfig(resolution, ["consumer.ts"]);
      expect(typeErrors()).toBe("");
    },
  );

  it("has examples that hold, in its pages and in doc comments", async () => {
    const namesOf = async (file: string) =>
      Object.keys(await import(pathToFileURL(join(root, file)).href));
    const engine = await namesOf("dist/index.js");
    const onnx = await namesOf("dist/onnx.js");
    const training = await namesOf("dist/training.js");
    const models = await namesOf("dist/models.js");
    const entries: readonly (readonly [folder: string, entry: string, names: string[]])[] = [
      ["interop", "fovea/onnx", onnx],
      ["training", "fovea/training", training],
      ["models", "fovea/models", models],
    ];
    const given = (file: string) => {
      const found = entries.find(([folder]) => file.startsWith(folder));
      const [, entry, ours] = found ?? ["", "fovea/training", []];
      const names = engine.filter((name) => !ours.includes(name));
      const imports = `import { ${names} } from "fovea"; import { ${ours} } from "${entry}";`;
      const types = file.startsWith("training")
        ? 'import type { Batch } from "fovea/training";'
        : "";
      const ofEngine = file.includes("recurrent") ? OF_NETWORKS : GIVEN;
      const others = types ? OF_TRAINING : file.startsWith("models") ? OF_MODELS : ofEngine;
      return `${imports}${types}\nvoid [${[...names, ...ours]}];${others}`;
    };
    const readme = pagesOf(root).flatMap((page) =>
      programs(readFileSync(join(root, page), "utf8")),
    );
    const sources = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" }).filter(
      (f) => f.endsWith(".ts"),
    );
    const documented = sources.flatMap((file) =>
      examples(readFileSync(join(root, "src", file), "utf8")).map(
        (text) => `${given(file)}export async function example() {\n${text}}\n`,
      ),
    );
    expect(documented.length).toBeGreaterThanOrEqual(5);
    const texts = [...readme, ...documented];
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
    expect(
      execFileSync(process.execPath, [join(folder, "load.mjs")], { encoding: "utf8" }).trim(),
    ).toMatch(/^device /);
  });

  it("holds what its manifest promises and nothing else", () => {
    const listed = execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], {
      cwd: root,
      encoding: "utf8",
      shell: process.platform === "win32",
      stdio: ["ignore", "pipe", "ignore"],
    });
    const packed = JSON.parse(listed);
    const [{ files }] = Array.isArray(packed)
      ? packed
      : (Object.values(packed) as [{ files: { path: string }[] }]);
    const paths: string[] = files.map(({ path }: { path: string }) => path);
    for (const path of [
      "LICENSE",
      "README.md",
      "CHANGELOG.md",
      "dist/index.js",
      "dist/attention/attention.js.map",
      "dist/onnx.js",
      "dist/training.js",
      "dist/models.js",
      "dist/types/index.d.ts",
      "dist/wgsl/manifest.json",
      "shaders/forward.wesl",
    ]) {
      expect(paths).toContain(path);
    }
    const promised =
      /^(dist|docs|shaders)\/|^[A-Z]+(\.md)?$|^package\.json$|^bench\/(README\.md|results\/[\w-]+\.svg)$/;
    expect(paths.filter((path) => !promised.test(path))).toEqual([]);
  });
});

/** The text of an application, and its bytes gzipped. */
interface Loaded {
  readonly text: string;
  readonly gzipped: number;
}

interface Chunk {
  readonly fileName: string;
  readonly code: string;
  readonly isEntry: boolean;
  readonly imports: readonly string[];
}

/**
 * Bundles an application, minified, and returns what is loaded at its start, and everything. Vite's
 * own helper for loading, half a kilobyte of any application, is left out.
 */
async function bundle(code: string): Promise<{ start: Loaded; all: Loaded }> {
  const entry = join(folder, "app.js");
  writeFileSync(entry, code);
  const result = await build({
    root: folder,
    configFile: false,
    logLevel: "silent",
    build: {
      write: false,
      minify: true,
      modulePreload: false,
      rollupOptions: { input: entry, output: { format: "es" } },
    },
  });
  const outputs = (Array.isArray(result) ? result : [result]) as { output: Chunk[] }[];
  const chunks = outputs
    .flatMap(({ output }) => output)
    .filter((chunk) => chunk.code !== undefined);
  const start = new Set(chunks.filter(({ isEntry }) => isEntry));
  for (const { imports } of start) {
    for (const chunk of chunks) if (imports.includes(chunk.fileName)) start.add(chunk);
  }
  const loaded = (among: readonly Chunk[]): Loaded => ({
    text: among.map((chunk) => chunk.code).join("\n"),
    gzipped: among.reduce((sum, chunk) => sum + gzipSync(chunk.code).length, 0),
  });
  return { start: loaded([...start]), all: loaded(chunks) };
}

const lines = (text: string) =>
  text.split("\n").map((line) => line.replace(/\s*\/\/.*$/, "").trim());

/**
 * Returns the kernels whose text is in a bundle. Each is known by its longest line that no other
 * shader has.
 */
function kernelsIn(bundled: string): string[] {
  const files = readdirSync(join(root, "shaders"), { recursive: true, encoding: "utf8" }).filter(
    (f) => /\.wesl$/.test(f),
  );
  const shaders = files.map((file) => ({
    file,
    own: lines(readFileSync(join(root, "shaders", file), "utf8")),
  }));
  const owners = new Map<string, number>();
  for (const line of shaders.flatMap(({ own }) => [...new Set(own)]))
    owners.set(line, (owners.get(line) ?? 0) + 1);
  return shaders
    .filter(({ own }) => own.some((line) => line.startsWith("@compute")))
    .map(({ file, own }) => [
      file.replace(/\.wesl$/, ""),
      longest(own.filter((line) => owners.get(line) === 1)),
    ])
    .flatMap(([name, line]) => (bundled.includes(line) ? [name] : []))
    .sort();
}
const longest = (texts: readonly string[]) =>
  texts.reduce((a, b) => (b.length > a.length ? b : a), "");

/** The kernels that attention and projections may run on. */
const FORWARD = ["forward", "forward_half", "forward_matrix", "forward_rows"];
const ATTENTION = ["additive_keys", "combine", "decode", "decode_quads", ...FORWARD];
const MATMUL = ["matmul", "matmul_rows", "matvec", "matvec_columns"];

/**
 * Operators, the kernels that they may run on, and the KB that a bundle with nothing else starts
 * with.
 */
const ONE_OPERATOR: readonly (readonly [
  name: string,
  kernels: readonly string[],
  limit: number,
])[] = [
  ["Softmax", ["pointwise", "row_softmax"], 23.87],
  ["LayerNormalization", ["layer_norm", "pointwise"], 25.65],
  ["RotaryEmbedding", ["rotary"], 38],
  ["Attention", [...ATTENTION, "pointwise", "row_norms", "tables", "weights"], 63],
  ["FlexAttention", [...ATTENTION, ...MATMUL, "row_norms", "tables", "weights"], 60.7],
  [
    "MicrosoftAttention",
    [...ATTENTION, ...MATMUL, "pointwise", "rotary", "row_norms", "tables"],
    67.7,
  ],
];

describe("bundles", () => {
  it("of attention start with the kernels of plain attention, in at most 35.3 KB minified and gzipped", async () => {
    const { start, all } = await bundle(
      'import { attention } from "fovea"; console.log(attention);',
    );
    expect(kernelsIn(start.text)).toEqual(["combine", "decode", "forward"]);
    expect(start.gzipped).toBeLessThan(35_300);
    expect(kernelsIn(all.text)).toEqual([...ATTENTION, "row_norms", "tables"]);
    expect(all.gzipped).toBeLessThan(75_450);
  });
  it("of what needs no kernel hold no kernel", async () => {
    const { all } = await bundle('import { tensor } from "fovea"; console.log(tensor);');
    expect(all.text).not.toContain("workgroupBarrier");
    expect(all.gzipped).toBeLessThan(5_400);
  });
  it.each(ONE_OPERATOR)(
    "of %s from fovea/onnx hold no kernels but %j, and start with at most %d KB gzipped",
    async (name, kernels, limit) => {
      const { start, all } = await bundle(
        `import { ${name} } from "fovea/onnx"; console.log(${name});`,
      );
      expect(kernelsIn(all.text)).toEqual(kernels);
      expect(start.gzipped).toBeLessThan(limit * 1000);
    },
  );
  it("carry no comment of a shader, but their expansion marks", () => {
    const files = readdirSync(join(root, "dist"), { recursive: true, encoding: "utf8" });
    const code = files
      .filter((file) => file.endsWith(".js"))
      .map((file) => readFileSync(join(root, "dist", file), "utf8"))
      .join("\n");
    expect(code).toContain("// unroll");
    expect(code).not.toContain("FlashAttention-2");
  });
});
