// The last step of `npm run build` writes the kernels as plain WGSL with a manifest to dist/wgsl/,
// for engines that are not in JavaScript or that bring their own dispatcher.

import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { createServer } from "vite";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const out = join(root, "dist/wgsl");
const server = await createServer({
  root,
  configFile: false,
  appType: "custom",
  optimizeDeps: { noDiscovery: true },
  server: { middlewareMode: true, hmr: false, ws: false, watch: null },
});
/** @returns {Promise<any>} */
const load = (/** @type {string} */ path) => server.ssrLoadModule(join(root, path));

/** @type {typeof import("../src/kernels/forward_tiles.ts")} */
const { chooseForwardTile, FORWARD_TILES, forwardWorkgroupBytes } = await load(
  "src/kernels/forward_tiles.ts",
);
/** @type {typeof import("../src/kernels/forward.ts")} */
const { forwardGrid, forwardKernel } = await load("src/kernels/forward.ts");
/** @type {typeof import("../src/kernels/decode.ts")} */
const {
  chooseDecodeTile,
  DECODE_SHAPES,
  decodeGrid,
  decodeKernel,
  decodeWorkgroupBytes,
  recordFloats,
} = await load("src/kernels/decode.ts");
/** @type {typeof import("../src/kernels/slots.ts")} */
const { PLAIN } = await load("src/kernels/slots.ts");
/** @type {typeof import("../src/kernels/merge.ts")} */
const { MERGE_FOLD, MERGE_PARAMS, MERGE_ROW_TILE, mergeKernel } =
  await load("src/kernels/merge.ts");
/** @type {typeof import("../src/kernels/matmul.ts")} */
const { MATMUL_PARAMS, MATMUL_TILES, matmulKernel, matmulTileSize, matmulWorkgroupBytes } =
  await load("src/kernels/matmul.ts");
/** @type {typeof import("../src/kernels/params.ts")} */
const { PARAMS } = await load("src/kernels/params.ts");
/** @type {typeof import("../src/kernels/cache.ts")} */
const {
  ADVANCE,
  ADVANCE_PARAMS,
  advanceKernel,
  ALL_ROWS,
  APPEND_PARAMS,
  appendKernel,
  appendStruct,
  appendTile,
} = await load("src/kernels/cache.ts");

/** @param {import("../src/kernels/uniform.ts").UniformStruct} struct */
const membersOf = ({ members }) =>
  members.map(({ name, type, offset }) => ({ name, type, offset }));

/** The head dims that the tile table is tuned for. */
const HEAD_DIMS = [32, 40, 64, 80, 96, 128, 192, 256];
/**
 * Workgroup memory of the devices to write a variant for: WebGPU's default limit, and what most
 * GPUs have.
 */
const MEMORY = [16384, 32768];

/** @param {readonly import("../src/types.ts").Binding[]} bindings */
const namesOf = (bindings) =>
  bindings.map(({ binding, name, type }) => ({ group: 0, binding, name, type }));

const kernels = [];
rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
for (const headDim of HEAD_DIMS) {
  const problem = { headDim, vDim: headDim, seqQ: 1 };
  const gpus = MEMORY.map((workgroupBytes) =>
    chooseForwardTile(problem, { workgroupBytes, software: false }),
  );
  const quads = chooseForwardTile(problem, {
    workgroupBytes: MEMORY[0],
    software: true,
    subgroups: true,
  });
  const scalar = FORWARD_TILES.filter(
    ({ form, maxHeadDim }) => form === "rows" && headDim <= maxHeadDim,
  );
  for (const tile of new Set([...gpus, quads, ...scalar])) {
    for (const lse of [false, true]) {
      const slots = { ...PLAIN, lse };
      const { code, bindings } = await forwardKernel({ headDim, vDim: headDim, tile, ...slots });
      const { qTile, vSplits } = forwardGrid(tile, headDim, headDim, 1);
      const file = `forward_d${headDim}_${tile.name.replace("-", "_")}${lse ? "_lse" : ""}.wgsl`;
      writeFileSync(join(out, file), code);
      kernels.push({
        file,
        kernel: "forward",
        variant: tile.name,
        features: tile.form === "quads" ? ["subgroups"] : [],
        headDim,
        vDim: headDim,
        entryPoint: "main",
        workgroupBytes: forwardWorkgroupBytes(tile, headDim, headDim),
        bindings: namesOf(bindings),
        grid: { qTile, vSplits },
      });
    }
  }
}

/**
 * Numbers of packed rows to write a decode kernel for: one head alone, and usual numbers of heads
 * that share a key head.
 */
const ROWS = [1, 4, 8];
const decodeKernels = [];
const combineKernels = [];
for (const headDim of HEAD_DIMS) {
  const gpu = { workgroupBytes: MEMORY[0], software: false, subgroups: true };
  const quads = DECODE_SHAPES.filter(
    ({ form, maxHeadDim }) => form === "quads" && headDim <= maxHeadDim,
  );
  for (const rows of ROWS) {
    for (const name of [undefined, ...quads.map((shape) => shape.name)]) {
      const tile = chooseDecodeTile(headDim, rows, gpu, name);
      if (tile.rows !== rows) continue; // so many rows do not fit
      const { code, bindings } = await decodeKernel("decode", {
        headDim,
        vDim: headDim,
        tile,
        ...PLAIN,
      });
      const { vSplits } = decodeGrid(tile, headDim, rows);
      const file = `decode_d${headDim}_rows${rows}${name ? name.replace("decode", "").replaceAll("-", "_") : ""}.wgsl`;
      writeFileSync(join(out, file), code);
      decodeKernels.push({
        file,
        variant: tile.name,
        features: tile.form === "quads" ? ["subgroups"] : [],
        headDim,
        rows,
        workgroupBytes: decodeWorkgroupBytes(tile, headDim),
        bindings: namesOf(bindings),
        grid: { vSplits },
      });
    }
  }
  const tile = chooseDecodeTile(headDim, 1, { workgroupBytes: MEMORY[0], software: false });
  const kernel = await decodeKernel("combine", {
    headDim,
    vDim: headDim,
    tile,
    ...PLAIN,
    lse: true,
  });
  const file = `combine_d${headDim}_lse.wgsl`;
  writeFileSync(join(out, file), kernel.code);
  const recordBytes = 4 * recordFloats(headDim);
  combineKernels.push({
    file,
    headDim,
    recordBytes,
    workgroupBytes: 0,
    bindings: namesOf(kernel.bindings),
  });
}
const decodeEntry = {
  what: "The same for few queries: `kernels` leave partial results of kv_splits shares of the keys in the workspace, the one of `combine` makes o and lse of them. Every kernel has params of its own.",
  kernels: decodeKernels,
  combine: combineKernels,
  params: {
    kv_splits: "shares of the keys, from 1 up; the same for both",
    q_tiles: "decode: ceil(group_size * seq_q / rows); combine: ceil(seq_q * headDim / 4 / 64)",
    v_splits: "decode: grid.vSplits * kv_splits; combine: 1",
  },
  workspace: "recordBytes * batch * n_heads * seq_q * kv_splits bytes",
  grid: "workgroups = q_tiles * v_splits * batch, times key heads (decode) or heads (combine), dispatched as `grid` says",
};

const merge = mergeKernel();
writeFileSync(join(out, "merge.wgsl"), merge.code);
const mergeEntry = {
  file: "merge.wgsl",
  what: "Folds partial results (o_i, lse_i) over disjoint sets of keys into o and lse: O = sum w_i O_i / sum w_i, LSE = m + ln sum w_i with w_i = exp(LSE_i - m), m = max LSE_i",
  entryPoint: "main",
  workgroupBytes: 16 * MERGE_ROW_TILE,
  bindings: namesOf(merge.bindings),
  params: {
    bytes: MERGE_PARAMS.bytes,
    members: membersOf(MERGE_PARAMS),
    values: {
      strides:
        "elements from one batch entry, head, row and column to the next; an LSE has no columns",
      rows: "batch * n_heads * seq_q",
      partials: `of this dispatch: ${MERGE_FOLD}, or 1; o_1 and lse_1 are then not read`,
      first: "1 in the first dispatch",
      last: "1 in the last dispatch",
    },
  },
  workspace: "f32, one a row, kept between dispatches; 4 bytes if there is only one",
  grid: `One dispatch for every ${MERGE_FOLD} partials, one after the other. workgroups = ceil(rows / ${MERGE_ROW_TILE}), dispatched as (x, y) with x = params.grid_x, at most 65535, and x * y >= workgroups.`,
};

const appends = [64, 128].flatMap((headDim) =>
  /** @type {const} */ (["f32", "f16", "int8"]).map((stored) => {
    const quantised = { bits: /** @type {const} */ (8), groupK: headDim, groupV: headDim };
    const { code, bindings } = appendKernel({
      headDim,
      vDim: headDim,
      k: "dense",
      v: "dense",
      qNorm: false,
      kNorm: false,
      rotary: undefined,
      positions: false,
      dtype: stored === "int8" ? "f32" : stored,
      layout: { place: "rows", ...(stored === "int8" && { quantised }) },
    });
    const file = `cache_append_d${headDim}_${stored}.wgsl`;
    writeFileSync(join(out, file), code);
    const { rows } = appendTile({ headDim, vDim: headDim });
    return { file, headDim, stored, rows, entryPoint: "main", bindings: namesOf(bindings) };
  }),
);
const advance = advanceKernel();
writeFileSync(join(out, "cache_advance.wgsl"), advance.code);
const cacheEntry = {
  what: "Appends rows of k and v [batch, kv_heads, seq_q, headDim], f32, to a cache [batch, kv_heads, cache_rows, headDim] behind the tokens that each entry has; then cache_advance counts the lengths up",
  state: "kv_state, i32: the number 1, the length of each entry, then a count for each entry",
  stored: {
    f32: "rows of headDim f32",
    f16: "rows of headDim f16, two a word",
    int8: "rows of one f32 scale, max |x| / 127, and headDim / 4 words of x / scale, lowest byte first",
  },
  append: {
    kernels: appends,
    params: {
      bytes: APPEND_PARAMS.bytes,
      members: membersOf(APPEND_PARAMS),
      values: {
        rows: "new rows of each entry",
        counts_at: `${ALL_ROWS} to append all rows, or the word of kv_state where the counts begin`,
        others: "bases and strides of k and v as `tensors` says; the rest is 0",
      },
    },
    append: {
      members: membersOf(appendStruct(64)).filter(({ name }) => !name.endsWith("weights")),
      bytes: Object.fromEntries([64, 128].map((headDim) => [headDim, appendStruct(headDim).bytes])),
      values: { q_heads: "0", epsilon: "0", others: "0" },
    },
    grid: "workgroups = ceil(2 * batch * kv_heads * seq_q / rows), dispatched as (x, y) with x = params.grid_x, at most 65535, and x * y >= workgroups.",
  },
  advance: {
    file: "cache_advance.wgsl",
    entryPoint: "main",
    bindings: namesOf(advance.bindings),
    params: {
      bytes: ADVANCE_PARAMS.bytes,
      members: membersOf(ADVANCE_PARAMS),
      values: {
        operation: `${ADVANCE.addRows}: lengths grow by \`rows\`; ${ADVANCE.addCounts}: by the counts, at most \`rows\`; ${ADVANCE.limit}: they become the counts where these are less`,
        counts_at: "1 + batch",
      },
    },
    grid: "One workgroup.",
  },
};

const products = MATMUL_TILES.map((tile) => {
  const access = /** @type {const} */ ({ x: "dense", weight: "dense", bias: "dense", y: "dense" });
  const { code, bindings } = matmulKernel({
    tile,
    ...access,
    columnsAdjacent: false,
    oddColumns: undefined,
  });
  const file = `matmul_${tile.name.replace("-", "_")}.wgsl`;
  writeFileSync(join(out, file), code);
  return {
    file,
    variant: tile.name,
    features: tile.form === "quads" ? ["subgroups"] : [],
    entryPoint: "main",
    workgroupBytes: matmulWorkgroupBytes(tile),
    bindings: namesOf(bindings),
    grid: matmulTileSize(tile),
  };
});
const matmulEntry = {
  what: "o[b, h, m, n] = sum_k source[b, h, m, k] weight[n, k] + bias[n]: a linear layer with x in source and y in o; all f32, K and N multiples of 4",
  params: {
    bytes: MATMUL_PARAMS.bytes,
    members: membersOf(MATMUL_PARAMS),
    values: {
      rows: "M",
      columns: "N",
      inner: "K",
      n_heads: "heads of x, 1 where there are none",
      row_tiles: "ceil(M / grid.rows)",
      column_tiles: "ceil(N / grid.columns)",
      others:
        "bases and strides as `tensors` says, bias_stride_d being 0; the grid as for attention",
    },
  },
  kernels: products,
};

const manifest = {
  schema: 1,
  what: "softmax(scale * Q K^T + mask) V in one pass; q, k, v, o and lse are f32",
  tensors:
    "Rows of q, k, v and o are dense and start at multiples of 4 elements. Their strides and bases in params count vec4s, those of lse elements.",
  params: {
    bytes: PARAMS.bytes,
    members: membersOf(PARAMS),
    values: {
      scale_log2: "scale * log2(e)",
      group_size: "query heads / key heads",
      q_tiles: "ceil(seq_q / grid.qTile)",
      v_splits: "grid.vSplits",
      total_q: "seq_q",
      total_kv: "seq_kv",
      window_left: "keys before its own that a query sees; -1 for all",
      window_right: "keys after its own that a query sees; -1 for all, 0 for a causal mask",
      align_end: "1: the first query stands at key seq_kv - seq_q; 0: at q_offset",
      chunk: "0; or keys of a chunk, of which a query sees its own only",
      others: "bases and strides as `tensors` says; what a kernel has no binding for is 0",
    },
  },
  grid: "workgroups = q_tiles * v_splits * heads * batch. Dispatch (x, y) with x = params.grid_x, at most 65535, and x * y >= workgroups; first_workgroup = 0, end_workgroup = workgroups.",
  kernels,
  decode: decodeEntry,
  merge: mergeEntry,
  cache: cacheEntry,
  matmul: matmulEntry,
};
writeFileSync(join(out, "manifest.json"), `${JSON.stringify(manifest, null, 2)}\n`);
await server.close();
console.log(`dist/wgsl: ${readdirSync(out).length - 1} kernels and manifest.json`);
