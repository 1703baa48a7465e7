// What TypeScript believes of the shaders, checked against the shaders: bindings, the packing of Params, the size of
// workgroup memory, and a rule of the house about variables.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { WgslReflect } from "wgsl_reflect";
import { BLOCKS, blockMaskModules } from "../../src/kernels/block_mask.ts";
import {
  ADVANCE_MODULES,
  ADVANCE_PARAMS,
  APPEND,
  appendModules,
  appendTile,
  packAppend,
} from "../../src/kernels/cache.ts";
import { DECODE_SHAPES, decodeModules, decodeRoot, decodeWorkgroupBytes } from "../../src/kernels/decode.ts";
import {
  ADDITIVE_BYTES,
  FORWARD_TILES,
  forwardModules,
  forwardRoot,
  forwardWorkgroupBytes,
} from "../../src/kernels/forward.ts";
import { type MatrixTile, matrixKernel, matrixTile, matrixWorkgroupBytes } from "../../src/kernels/forward_matrix.ts";
import {
  LINEAR_LANES,
  LINEAR_PARAMS,
  LINEAR_PARAMS_BYTES,
  LINEAR_WG_SIZE,
  linearModules,
  linearTiles,
  packLinearParams,
  recurrentTile,
  scanBlocks,
  stateVec4s,
} from "../../src/kernels/linear.ts";
import { MASK_BITS_MODULES, MASK_KINDS, MASKS, MASKS_BYTES } from "../../src/kernels/mask_bits.ts";
import { MATMUL_TILES, matmulRoot, matmulTileSize, matmulWorkgroupBytes } from "../../src/kernels/matmul.ts";
import {
  MERGE_BINDINGS,
  MERGE_FOLD,
  MERGE_MODULES,
  MERGE_PARAMS_BYTES,
  MERGE_ROW_TILE,
  type MergeParams,
  mergeParamMembers,
  packMergeParams,
} from "../../src/kernels/merge.ts";
import { PARAMS, PARAMS_BYTES, type Params, packParams } from "../../src/kernels/params.ts";
import { ROTARY_HEADS, rotaryKernelModules } from "../../src/kernels/rotary.ts";
import { angleTablesShape } from "../../src/kernels/rotary_angles.ts";
import { packRowParams, ROW_PARAMS, ROW_PARAMS_BYTES, rowModules } from "../../src/kernels/rows.ts";
import { PLAIN } from "../../src/kernels/slots.ts";
import { COPY, TABLES_MODULES } from "../../src/kernels/tables.ts";
import { MOST_KEYS, STAGES, scoreModules, TOP_KEYS, WEIGHTS } from "../../src/kernels/weights.ts";
import { link } from "../../src/shader/link.ts";
import { blankComments } from "../../src/shader/source.ts";
import { APPENDS, KERNEL_VARIANTS, LINEAR_SPECS, ROW_KERNELS } from "../support/kernels.ts";

const reflect = (variant: Pick<(typeof KERNEL_VARIANTS)[number], "root" | "modules">) =>
  new WgslReflect(link(variant.root, variant.modules).code);

describe.each(KERNEL_VARIANTS)("$name", (variant) => {
  const reflection = reflect(variant);
  const declared = [...reflection.uniforms, ...reflection.storage]
    .sort((a, b) => a.binding - b.binding)
    .map(({ binding, name, resourceType, access }) => {
      const type = resourceType === 0 ? "uniform" : access === "read_write" ? "storage" : "read-only-storage";
      return { binding, name, type };
    });

  it("declares the bindings that the dispatcher binds", () => {
    const bindings = variant.bindings.map(({ binding, name, type }) => ({ binding, name, type }));
    // A step may leave bindings unused; the real kernels declare each.
    if (variant.root.startsWith("package::steps::")) {
      expect(bindings).toEqual(expect.arrayContaining(declared));
    } else {
      expect(declared).toEqual(bindings);
    }
  });
  it("has one entry point, main", () => {
    expect(reflection.entry.compute.map(({ name }) => name)).toEqual(["main"]);
  });
});

/** The struct of a kernel's uniform. */
const uniformOf = (variant: Parameters<typeof reflect>[0]) =>
  reflect(variant).uniforms[0].type as unknown as {
    size: number;
    members: { name: string; offset: number; type: { name: string } }[];
  };

describe("Params", () => {
  const struct = uniformOf(KERNEL_VARIANTS[0]);
  it("has the members of the WGSL struct, in order and at their offsets", () => {
    expect(struct.members.map(({ name, type }) => [name, type.name])).toEqual(
      PARAMS.map(({ name, type }) => [name, type]),
    );
    expect(struct.members.map(({ offset }) => offset)).toEqual(PARAMS.map((_, index) => index * 4));
    expect(PARAMS_BYTES).toBe(Math.ceil(struct.size / 16) * 16);
  });
  it("packs every member by its type", () => {
    const bytes = new ArrayBuffer(256 + PARAMS_BYTES);
    const params = Object.fromEntries(
      PARAMS.map(({ name, type }, i) => [name, type === "f32" ? 0.5 : type === "i32" ? -i : i]),
    );
    packParams(params as Params, bytes, 256);
    const view = new DataView(bytes);
    for (const { name, offset, type } of struct.members) {
      const read = { u32: view.getUint32, i32: view.getInt32, f32: view.getFloat32 }[
        type.name
      ] as DataView["getUint32"];
      expect(read.call(view, 256 + offset, true), name).toBe(params[name]);
    }
  });
});

describe("the params of linear attention", () => {
  const struct = uniformOf({ root: "package::linear_scan", modules: linearModules("scan", LINEAR_SPECS.plain) });
  it("have the members of the WGSL struct, in order and at their offsets", () => {
    expect(struct.members.map(({ name }) => name)).toEqual([...LINEAR_PARAMS]);
    expect(struct.members.map(({ offset }) => offset)).toEqual(LINEAR_PARAMS.map((_, index) => index * 4));
    expect(LINEAR_PARAMS_BYTES).toBe(Math.ceil(struct.size / 16) * 16);
  });
  it("are packed by their types", () => {
    const bytes = new ArrayBuffer(256 + LINEAR_PARAMS_BYTES);
    packLinearParams(
      Object.fromEntries(LINEAR_PARAMS.map((name, i) => [name, name === "scale" ? 0.5 : i])),
      bytes,
      256,
    );
    const view = new DataView(bytes, 256);
    for (const [index, { name, offset, type }] of struct.members.entries()) {
      if (type.name === "f32") expect(view.getFloat32(offset, true), name).toBe(0.5);
      else expect(view.getUint32(offset, true), name).toBe(index);
    }
  });
});

describe("the params of rows", () => {
  const spec = ROW_KERNELS.pointwise.copy;
  const struct = uniformOf({ root: "package::pointwise", modules: rowModules(spec) });
  it("have the members of the WGSL struct, in order and at their offsets", () => {
    expect(struct.members.map(({ name }) => name)).toEqual([...ROW_PARAMS]);
    expect(struct.members.map(({ offset }) => offset)).toEqual(ROW_PARAMS.map((_, index) => index * 4));
    expect(ROW_PARAMS_BYTES).toBe(Math.ceil(struct.size / 16) * 16);
    expect(ROW_PARAMS_BYTES).toBeLessThanOrEqual(PARAMS_BYTES); // plans lay out uniforms of that size
  });
  it("are packed by their types", () => {
    const bytes = new ArrayBuffer(256 + ROW_PARAMS_BYTES);
    packRowParams(Object.fromEntries(ROW_PARAMS.map((name, i) => [name, name === "epsilon" ? 0.5 : i])), bytes, 256);
    const view = new DataView(bytes, 256);
    for (const [index, { name, offset, type }] of struct.members.entries()) {
      if (type.name === "f32") expect(view.getFloat32(offset, true), name).toBe(0.5);
      else expect(view.getUint32(offset, true), name).toBe(index);
    }
  });
});

describe("linear attention's tiles", () => {
  it.each(Object.entries(LINEAR_SPECS))("of %s are those of the shaders", (_, spec) => {
    const { headDim, vDim, normalized, rows, recurrent } = spec;
    const constant = (kernel: Parameters<typeof linearModules>[0], name: string) =>
      evaluator(link(`package::linear_${kernel}`, linearModules(kernel, spec)).code)(name);
    expect(constant("states", "K_TILES")).toBe(linearTiles(headDim, vDim).kTiles);
    expect(constant("states", "V_TILES")).toBe(linearTiles(headDim, vDim).vTiles);
    expect(constant("states", "STATE_STRIDE")).toBe(stateVec4s(headDim, vDim));
    expect(constant("output", "V_TILES")).toBe(linearTiles(headDim, vDim).vTiles);
    expect(constant("output", "Q_TILE")).toBe(LINEAR_LANES * rows);
    expect(constant("scan", "BLOCKS")).toBe(scanBlocks(headDim, vDim, normalized));
    for (const kernel of ["scan", "copy"] as const) expect(constant(kernel, "WG_SIZE")).toBe(LINEAR_WG_SIZE);
    expect(constant("recurrent", "V_BLOCKS")).toBe(recurrent.vBlocks);
  });
  it("take the workgroup memory that their headers say", () => {
    const bytes = (kernel: "states" | "output") =>
      workgroupBytes(link(`package::linear_${kernel}`, linearModules(kernel, LINEAR_SPECS.gated)).code);
    expect(bytes("states")).toBeLessThanOrEqual(8704);
    expect(bytes("output")).toBe(13952);
  });
  it("of the recurrent kernel fit what WebGPU guarantees", () => {
    for (const [headDim, vDim, decayDim, group] of [
      [1, 1, 0, 1],
      [64, 64, 64, 16],
      [128, 64, 1, 4],
      [256, 256, 256, 16],
      [1024, 3, 0, 1],
    ]) {
      for (const tokens of [1, 100]) {
        const recurrent = recurrentTile("test", { headDim, vDim, decayDim, group }, tokens);
        const spec = { ...LINEAR_SPECS.plain, headDim, vDim, decayDim, group, recurrent };
        const { code } = link("package::linear_recurrent", linearModules("recurrent", spec));
        expect(workgroupBytes(code)).toBe(recurrent.workgroupBytes);
        expect(recurrent.workgroupBytes).toBeLessThanOrEqual(16384);
      }
    }
  });
});

describe("small structs", () => {
  it.each([
    ["package::tables", TABLES_MODULES, COPY],
    ["package::block_mask", blockMaskModules(), BLOCKS],
    ["package::cache_advance", ADVANCE_MODULES, ADVANCE_PARAMS],
  ] as const)("of %s have the members that the host writes, in order", (root, modules, members) => {
    const { name } = reflect({ root, modules }).uniforms[0].type as unknown as { name: string };
    const struct = reflect({ root, modules }).structs.find((one) => one.name === name);
    expect(struct?.members.map((member) => member.name)).toEqual([...members]);
    expect(struct?.size).toBeLessThanOrEqual(256);
  });
});

describe("Masks", () => {
  const variant = { root: "package::mask_bits", modules: MASK_BITS_MODULES };
  const struct = uniformOf(variant);
  it("has two vec4u, then the members that the host writes, in order", () => {
    expect(struct.members.map(({ name, type }) => [name, type.name])).toEqual([
      ["strides_0", "vec4u"],
      ["strides_1", "vec4u"],
      ...MASKS.map((name) => [name, "u32"]),
    ]);
    expect(struct.size).toBe(MASKS_BYTES);
  });
  it("numbers the kinds of masks as the host does", () => {
    const { code } = link(variant.root, variant.modules);
    expect(code).toContain(`const BYTES = ${MASK_KINDS.bytes}u;`);
    expect(code).toContain(`const BITS = ${MASK_KINDS.bits}u;`);
  });
});

describe("MergeParams", () => {
  const variant = { root: "package::merge", modules: MERGE_MODULES };
  const struct = uniformOf(variant);
  it("has the members of the WGSL struct, in order and at their offsets", () => {
    const members = struct.members.map(({ name, offset, type }) => ({ name, type: type.name, offset }));
    expect(mergeParamMembers()).toEqual(members);
    expect(MERGE_PARAMS_BYTES).toBe(struct.size);
  });
  it("packs every member at its offset", () => {
    const bytes = new ArrayBuffer(256 + MERGE_PARAMS_BYTES);
    const words = (offset: number, type: string) => (type === "vec4u" ? [0, 1, 2, 3] : [0]).map((x) => offset + x);
    const values = mergeParamMembers().map(({ name, type, offset }) => [name, words(offset, type)]);
    packMergeParams(Object.fromEntries(values) as MergeParams, bytes, 256);
    const view = new DataView(bytes, 256);
    for (const { name, offset, type } of struct.members) {
      const read = words(offset, type.name).map((_, word) => view.getUint32(offset + 4 * word, true));
      expect(read, name).toEqual(words(offset, type.name));
    }
  });
  it("comes with the kernel's own tile of rows", () => {
    const { code } = link(variant.root, variant.modules);
    expect(code).toContain(`const ROW_TILE = ${MERGE_ROW_TILE}u;`);
    expect(MERGE_BINDINGS.filter(({ name }) => /^o_\d$/.test(name))).toHaveLength(MERGE_FOLD);
  });
});

describe.each(Object.entries(APPENDS))("the append of %s", (_, choice) => {
  const modules = appendModules(choice);
  it("has a uniform with the members that the host writes, at their offsets", () => {
    const struct = reflect({ root: "package::cache_append", modules }).structs.find(({ name }) => name === "Append");
    const members = struct?.members.map(({ name, offset }) => [name, offset]);
    const weights = 16 * Math.ceil(APPEND.length / 4);
    expect(members).toEqual([
      ...APPEND.map((name, index) => [name, 4 * index]),
      ["k_weights", weights],
      ["q_weights", weights + 16 * Math.ceil(choice.headDim / 4)],
    ]);
    const sizes = { batch: 1, kv_heads: 2, q_heads: 3, cache_rows: 4, epsilon: 0.5 };
    const k = Float32Array.from({ length: choice.headDim }, (_, d) => d);
    const view = new DataView(packAppend(sizes, choice.headDim, { k }));
    expect(view.byteLength).toBe(struct?.size);
    expect([0, 4, 8, 12].map((at) => view.getUint32(at, true))).toEqual([1, 2, 3, 4]);
    expect([16, weights + 8, members?.[6][1] as number].map((at) => view.getFloat32(at, true))).toEqual([0.5, 2, 1]);
  });
  it("takes the workgroup memory that its header says", () => {
    const columns = Math.ceil(Math.max(choice.headDim, choice.vDim) / 4);
    const { lanes, rows } = appendTile(choice);
    expect(lanes * rows).toBe(64);
    expect(workgroupBytes(link("package::cache_append", modules).code)).toBe(16 * columns * rows);
    expect(16 * columns * rows).toBeLessThanOrEqual(columns <= 64 ? 1024 : 16 * columns);
  });
});

describe("workgroup memory", () => {
  it.each([
    [64, 64],
    [40, 72],
    [4, 8],
    [2048, 2048],
  ])("D=%d Dv=%d is what the tile table says", async (headDim, vDim) => {
    for (const tile of FORWARD_TILES.filter(({ maxHeadDim }) => headDim <= maxHeadDim)) {
      const modules = await forwardModules({ headDim, vDim, tile, ...PLAIN });
      const { code } = link(forwardRoot(tile), modules);
      expect(workgroupBytes(code), tile.name).toBe(forwardWorkgroupBytes(tile, headDim, vDim));
    }
  });
  it.each([
    { kernel: WEIGHTS, bytes: 10756 },
    { kernel: TOP_KEYS, bytes: 15876 },
  ])("$kernel.name takes what its header says, below the default limit of WebGPU", ({ kernel, bytes }) => {
    const { code } = link(`package::${kernel.name}`, scoreModules(kernel, { headDim: 64, ...PLAIN }));
    expect(workgroupBytes(code)).toBe(bytes);
    expect(code).toContain(`${bytes.toLocaleString("en")}`);
  });
  it.each(DECODE_SHAPES)("$name takes what the table of shapes says", async (shape) => {
    for (const [headDim, rows] of [
      [64, 1],
      [40, 4],
    ]) {
      const tile = { ...shape, rows };
      const { code } = link(decodeRoot(shape), await decodeModules({ headDim, vDim: headDim, tile, ...PLAIN }));
      expect(workgroupBytes(code)).toBe(decodeWorkgroupBytes(tile, headDim));
    }
  });
  it.each(MATMUL_TILES)("matmul $name takes what the tile table says, below the default limit of WebGPU", (tile) => {
    const variant = KERNEL_VARIANTS.find(({ name }) => name === `matmul ${tile.name}`);
    const { code } = link(matmulRoot(tile), variant?.modules ?? {});
    expect(workgroupBytes(code)).toBe(matmulWorkgroupBytes(tile));
    expect(matmulWorkgroupBytes(tile)).toBeLessThanOrEqual(16384);
    const { rows, columns } = matmulTileSize(tile);
    expect(tile.name.replace("-quad", "")).toBe(`${rows}x${columns}`);
  });
  it.each([
    ["f16", 16, 16, 16, 32],
    ["f16", 8, 16, 16, 64],
    ["f32", 8, 8, 8, 32],
  ] as const)("of matrices of %s, %d x %d x %d, is what the tile says", async (component, M, N, K, lanes) => {
    const configs = [{ componentType: component, resultComponentType: "f32", M, N, K }];
    const limits = { configs, subgroupMinSize: 8, subgroupMaxSize: lanes, workgroupBytes: 49152, invocations: 256 };
    for (const [headDim, vDim] of [
      [64, 64],
      [40, 72],
      [5, 132],
      [128, 128],
    ]) {
      const tile = matrixTile(component, headDim, vDim, limits) as MatrixTile;
      const { code } = await matrixKernel({ headDim, vDim, tile, ...PLAIN });
      const bytes = Math.ceil(workgroupBytes(code) / 16) * 16; // one variable is no multiple of 16 bytes
      expect(bytes, `${headDim}, ${vDim}`).toBe(matrixWorkgroupBytes(tile, headDim, vDim));
    }
  });
  it("has a word more for additive scores", async () => {
    const similarity = { kind: "additive", innerBias: false, unitVector: false } as const;
    for (const tile of FORWARD_TILES.filter(({ form }) => form === "tiles")) {
      const modules = await forwardModules({ headDim: 64, vDim: 64, tile, ...PLAIN, tables: true, similarity });
      const { code } = link("package::forward", modules);
      expect(workgroupBytes(code), tile.name).toBe(forwardWorkgroupBytes(tile, 64, 64) + ADDITIVE_BYTES);
    }
  });
  it("fits the default limit of WebGPU in some row for every head dim", () => {
    for (const headDim of [1, 32, 64, 128, 256, 2048]) {
      const smallest = Math.min(...FORWARD_TILES.map((tile) => forwardWorkgroupBytes(tile, headDim, headDim)));
      expect(smallest).toBeLessThanOrEqual(16384);
    }
  });
});

/** Bytes of workgroup memory that a kernel declares. */
function workgroupBytes(code: string): number {
  const constants = evaluator(code);
  const component = code.includes("alias Component = f16;") ? 2 : 4;
  const sizes: Readonly<Record<string, number>> = { vec4f: 16, vec2f: 8, vec4h: 8, Component: component };
  return [...code.matchAll(/var<workgroup> \w+: (?:array<(\w+(?:<u32>)?), (.+)>|atomic<u32>);/g)].reduce(
    (total, [, element, count = "1u"]) => total + constants(count) * (sizes[element] ?? 4),
    0,
  );
}

/** Evaluates the module constants of a kernel, `select` included. */
function evaluator(code: string): (expression: string) => number {
  const constants = new Map([...blankComments(code).matchAll(/^const (\w+) = (.+?);/gm)].map(([, n, e]) => [n, e]));
  return function evaluate(expression: string): number {
    const text = expression
      .replace(/select\((.+), (.+), (\w+)( == \w+)?\)/, (_, no, yes, flag, equal) =>
        equal ? `(${flag}${equal} ? ${yes} : ${no})` : constants.get(flag) === "true" ? `(${yes})` : `(${no})`,
      )
      .replace(/(\d+)u\b/g, "$1")
      .replace(/\b[A-Z]\w*/g, (name) => `${evaluate(constants.get(name) ?? "NaN")}`);
    return Math.floor(
      new Function(
        `const { max } = Math; return ${text.replace(/(\([^()]*\)|\w+) \/ (\w+)/g, "Math.floor($1 / $2)")}`,
      )(),
    );
  };
}

describe("numbers that both sides know", () => {
  it("are the stages of a score and the most keys of a list", () => {
    const { code } = link("package::top_keys", scoreModules(TOP_KEYS, { headDim: 8, ...PLAIN }));
    for (const [index, stage] of STAGES.entries()) {
      if (stage !== "raw") expect(code).toContain(`const ${stage.toUpperCase()} = ${index}u;`);
    }
    expect(code).toContain(`const MOST_KEYS = ${MOST_KEYS}u;`);
  });
  it("are the heads of a lane of rotary, and the digits of its positions", () => {
    const rotary = { rotaryDim: 8, interleaved: false, angles: "tables" } as const;
    const spec = { headDim: 8, x: "dense", o: "dense", positions: false, rotary } as const;
    const { code } = link("package::rotary", rotaryKernelModules(spec));
    expect(code).toContain(`const HEADS = ${ROTARY_HEADS}u;`);
    expect(code).toContain(`const DIGITS = vec3u(${angleTablesShape(4)[1]}u);`);
  });
});

describe("shader sources", () => {
  const root = join(import.meta.dirname, "../../shaders");
  const files = readdirSync(root, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".wesl"));

  // Chromium 156 does not zero a variable again that a loop declares without an initial value.
  it.each(files)("%s gives every variable an initial value", (file) => {
    const text = blankComments(readFileSync(join(root, file), "utf8"));
    expect(text.match(/^[ \t]+var \w+\s*(?::[^=;]*)?;/gm)).toBeNull();
  });
  it.each(files)("%s has at most 250 lines of at most 120 characters", (file) => {
    const lines = readFileSync(join(root, file), "utf8").trimEnd().split("\n");
    expect(lines.length).toBeLessThanOrEqual(250);
    expect(lines.filter((line) => line.length > 120)).toEqual([]);
  });
});
