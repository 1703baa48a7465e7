// The forward kernel of subgroup matrices, shaders/forward_matrix.wesl: which of an adapter's
// configurations it takes, how a workgroup is made of subgroups, specialisation and grid.

import forwardMatrix from "../../shaders/forward_matrix.wesl?raw";
import matrix from "../../shaders/lib/matrix.wesl?raw";
import matrixBlocks from "../../shaders/lib/matrix_blocks.wesl?raw";
import matrixTiles from "../../shaders/lib/matrix_tiles.wesl?raw";
import component from "../../shaders/slots/component.wesl?raw";
import matrixConfig from "../../shaders/slots/matrix_config.wesl?raw";
import componentF32 from "../../shaders/variants/component_f32.wesl?raw";
import { link, type ModuleMap } from "../shader/link.ts";
import { configModule, constantsModule, MODULES } from "../shader/modules.ts";
import type { KernelSource } from "../types.ts";
import { KernelCache } from "./kernel_cache.ts";
import { loadSlotModules } from "./load_slots.ts";
import { type SlotChoice, slotBindings, slotConstants } from "./slots.ts";

/** The element type of matrices that are multiplied. Sums are f32. */
export type Component = "f16" | "f32";

/** A configuration of subgroup matrices, as an adapter lists them. */
interface MatrixConfig {
  readonly componentType: string;
  readonly resultComponentType: string;
  readonly M: number;
  readonly N: number;
  readonly K: number;
  /** Lanes of the subgroups that it is for; if absent, of any that the adapter has. */
  readonly minSubgroupSize?: number;
  readonly maxSubgroupSize?: number;
}

/** What the kernel depends on of a device. */
export interface MatrixLimits {
  readonly configs: readonly MatrixConfig[];
  readonly subgroupMinSize: number;
  readonly subgroupMaxSize: number;
  readonly workgroupBytes: number;
  readonly invocations: number;
}

/** How a workgroup is made of matrices. */
export interface MatrixTile {
  readonly component: Component;
  /** Rows and columns of matrices: sums are M x N. */
  readonly M: number;
  readonly N: number;
  readonly K: number;
  /** The most lanes of a subgroup. */
  readonly lanes: number;
  /**
   * Strips are the rows of one subgroup each; a strip has `rowBlocks` matrices above each other.
   */
  readonly strips: number;
  readonly rowBlocks: number;
}

/** The widest share of v that one workgroup takes: 64 registers of a lane of 32, for the output. */
const MAX_V_DIM = 128;
/** Keys of a tile, as in shaders/slots/config.wesl. */
const KV_TILE = 32;
/**
 * Rows of a strip, if its lanes are enough. With so many, either a matrix of keys or values is used
 * twice, or the hardware's matrices have as many rows.
 */
const STRIP_ROWS = 16;
const COMPONENT_BYTES = { f16: 2, f32: 4 };

/** The largest head dim for which a tile is chosen without being asked for. */
export const MAX_HEAD_DIM = 128;

/**
 * Chooses the largest of the adapter's matrices that the kernel can be made of, and the most strips
 * that fit the device.
 */
export function matrixTile(
  component: Component,
  headDim: number,
  vDim: number,
  limits: MatrixLimits,
): MatrixTile | undefined {
  const lanes = limits.subgroupMaxSize;
  const tiles = limits.configs
    .filter(
      ({ componentType, resultComponentType, minSubgroupSize = 0, maxSubgroupSize = lanes }) =>
        componentType === component &&
        resultComponentType === "f32" &&
        // A kernel can't choose how many lanes subgroups have, so the configuration must be for all
        // numbers.
        minSubgroupSize <= limits.subgroupMinSize &&
        maxSubgroupSize >= lanes,
    )
    .map(({ M, N, K }) => ({
      component,
      M,
      N,
      K,
      lanes,
      rowBlocks: Math.max(1, Math.min(STRIP_ROWS, lanes) / M),
    }))
    .filter(isWhole)
    .sort((a, b) => b.M * b.N * b.K - a.M * a.N * a.K);
  return tiles
    .flatMap((tile) => [4, 2].map((strips) => ({ ...tile, strips })))
    .find(
      (tile) =>
        tile.strips * lanes <= limits.invocations &&
        matrixWorkgroupBytes(tile, headDim, vDim) <= limits.workgroupBytes,
    );
}

/** Whether matrices fill tiles, strips and 16 bytes without a rest. */
function isWhole({ M, N, K, lanes, rowBlocks }: Omit<MatrixTile, "strips">): boolean {
  const rowLanes = lanes / (rowBlocks * M);
  const whole = [
    rowBlocks,
    N / 8,
    K / 8,
    KV_TILE / N,
    KV_TILE / K,
    rowLanes,
    KV_TILE / rowLanes / 4,
  ];
  return whole.every((count) => Number.isInteger(count) && count >= 1);
}

/** How a tile meets a problem's head dims. */
function constantsOf({ N, K }: MatrixTile, headDim: number, vDim: number) {
  const vSplits = Math.ceil(vDim / MAX_V_DIM);
  // The output passes through tiles of KV_TILE columns.
  const vBlocks = (Math.ceil(vDim / vSplits / KV_TILE) * KV_TILE) / N;
  return { vSplits, vBlocks, columns: Math.max(Math.ceil(headDim / K) * K, vBlocks * N) };
}

const rowsOf = ({ strips, rowBlocks, M }: MatrixTile) => strips * rowBlocks * M;

/** Bytes of workgroup memory, as devices count it: each variable in multiples of 16. */
export function matrixWorkgroupBytes(tile: MatrixTile, headDim: number, vDim: number): number {
  const bytes = COMPONENT_BYTES[tile.component];
  const pad = 16 / bytes;
  const rows = rowsOf(tile);
  const q = rows * (Math.ceil(headDim / tile.K) * tile.K + pad);
  const kv = KV_TILE * (constantsOf(tile, headDim, vDim).columns + pad);
  const p = rows * (KV_TILE + pad);
  return (q + kv + p) * bytes + 4 * (rows * (KV_TILE + 4) + tile.strips * tile.lanes) + 16;
}

export interface MatrixSpecialisation extends SlotChoice {
  readonly headDim: number;
  readonly vDim: number;
  readonly tile: MatrixTile;
}

const kernels = new KernelCache<MatrixSpecialisation, Promise<KernelSource>>();

/** The linked kernel of a specialisation. `standIns` replace some of its modules. */
export function matrixKernel(
  spec: MatrixSpecialisation,
  standIns?: ModuleMap,
): Promise<KernelSource> {
  const make = async () => {
    const text = link("package::forward_matrix", { ...(await matrixModules(spec)), ...standIns });
    return {
      label: `forward matrix-${spec.tile.component}`,
      ...text,
      bindings: slotBindings(spec),
    };
  };
  return standIns ? make() : kernels.get(spec, make);
}

async function matrixModules({
  tile,
  headDim,
  vDim,
  ...slots
}: MatrixSpecialisation): Promise<ModuleMap> {
  const inF32 = { name: "variants/component_f32.wesl", text: componentF32 };
  return {
    ...MODULES,
    ...configModule({ HEAD_DIM: headDim, V_DIM: vDim, ...slotConstants(slots) }),
    ...constantsModule("matrix_config", matrixConfig, {
      MATRIX_M: tile.M,
      MATRIX_N: tile.N,
      MATRIX_K: tile.K,
      SUBGROUP_LANES: tile.lanes,
      STRIPS: tile.strips,
      ROW_BLOCKS: tile.rowBlocks,
      V_BLOCKS: constantsOf(tile, headDim, vDim).vBlocks,
    }),
    ...(await loadSlotModules(slots)),
    "package::slots::component": tile.component === "f16" ? component : inF32,
    "package::lib::matrix": matrix,
    "package::lib::matrix_blocks": matrixBlocks,
    "package::lib::matrix_tiles": matrixTiles,
    "package::forward_matrix": forwardMatrix,
  };
}

/** Tiles of one head, shares of v, and query rows of a tile. */
export function matrixGrid(tile: MatrixTile, headDim: number, vDim: number, seqQ: number) {
  const qTile = rowsOf(tile);
  return {
    qTiles: Math.ceil(seqQ / qTile),
    vSplits: constantsOf(tile, headDim, vDim).vSplits,
    qTile,
  };
}
