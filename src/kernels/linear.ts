// The kernels of linear attention, shaders/linear_*.wesl: which constants and modules each takes,
// tiles and bindings.

import linear from "../../shaders/lib/linear.wesl?raw";
import linearGates from "../../shaders/lib/linear_gates.wesl?raw";
import linearParams from "../../shaders/lib/linear_params.wesl?raw";
import linearCopy from "../../shaders/linear_copy.wesl?raw";
import linearOutput from "../../shaders/linear_output.wesl?raw";
import linearRecurrent from "../../shaders/linear_recurrent.wesl?raw";
import linearScan from "../../shaders/linear_scan.wesl?raw";
import linearStates from "../../shaders/linear_states.wesl?raw";
import beta from "../../shaders/slots/beta.wesl?raw";
import decay from "../../shaders/slots/decay.wesl?raw";
import keyCount from "../../shaders/slots/key_count.wesl?raw";
import keyMask from "../../shaders/slots/key_mask.wesl?raw";
import linearConfig from "../../shaders/slots/linear_config.wesl?raw";
import normalizer from "../../shaders/slots/normalizer.wesl?raw";
import keyCountStored from "../../shaders/variants/key_count_stored.wesl?raw";
import keyMaskBytes from "../../shaders/variants/key_mask_bytes.wesl?raw";
import normalizerMoved from "../../shaders/variants/normalizer_moved.wesl?raw";
import normalizerStored from "../../shaders/variants/normalizer_stored.wesl?raw";
import { check } from "../errors.ts";
import { link, type ModuleMap } from "../shader/link.ts";
import { constantsModule, MODULES } from "../shader/modules.ts";
import type { Binding, KernelSource } from "../types.ts";
import { type Access, isBf16 } from "./access.ts";
import { KernelCache } from "./kernel_cache.ts";
import { bf16Constants, namedSlot } from "./named_slots.ts";
import { slotModules } from "./slot_modules.ts";
import { UniformStruct } from "./uniform.ts";

export type LinearKernel = "states" | "scan" | "output" | "recurrent" | "copy";

/** What texts depend on. It has no lengths, strides or numbers of heads, but for `group`. */
export interface LinearSpecialisation {
  readonly headDim: number;
  readonly vDim: number;
  /** Elements of a row of the decay: 1, or D. 0 without decay. */
  readonly decayDim: number;
  readonly elu: boolean;
  readonly normalized: boolean;
  readonly causal: boolean;
  readonly delta: boolean;
  /** Query heads that read one state; the recurrent kernel has them in one workgroup. */
  readonly group: number;
  readonly q: Access;
  readonly k: Access;
  readonly v: Access;
  readonly o: Access;
  readonly decay: Access;
  readonly beta: Access;
  /** Whether entries may have fewer keys, or masked ones. */
  readonly lengths: boolean;
  readonly mask: boolean;
  /**
   * Query rows of a lane of the output kernel. Software adapters take seconds to compile a kernel
   * with 8.
   */
  readonly rows: 4 | 8;
  readonly recurrent: RecurrentTile;
}

/**
 * Lanes of a workgroup of the output kernel along the queries; it has as many queries as this,
 * times `rows`.
 */
export const LINEAR_LANES = 8;
/** Lanes of a workgroup that copies or scans. */
export const LINEAR_WG_SIZE = 64;
const RECURRENT_WG_SIZE = 32;
/** The largest head dim of the recurrent kernel: a lane then holds 128 elements of a state. */
export const WIDEST_RECURRENT = 1024;
/** The bytes of workgroup memory that WebGPU guarantees. */
const WORKGROUP_BYTES = 16384;

const vec4s = (width: number) => Math.ceil(width / 4);
const columnsOf = (width: number) => (width > 4 * LINEAR_LANES ? 2 : 1);

/** Vec4s of a state in the workspace. */
export const stateVec4s = (headDim: number, vDim: number) =>
  headDim * vec4s(vDim) + vec4s(headDim) + 1;

/** Workgroups that share the state of a chunk, and those that share the output of a query tile. */
export function linearTiles(headDim: number, vDim: number) {
  const tiles = (width: number) => Math.ceil(vec4s(width) / (LINEAR_LANES * columnsOf(width)));
  return { kTiles: tiles(headDim), vTiles: tiles(vDim) };
}

/** Workgroups that share the scan of a state. */
export const scanBlocks = (headDim: number, vDim: number, normalized: boolean) =>
  Math.ceil((headDim * vec4s(vDim) + (normalized ? vec4s(headDim) : 0)) / LINEAR_WG_SIZE);

/** How the recurrent kernel divides the head dims. */
export interface RecurrentTile {
  /** Lanes that share a column of the state, and vec4s of it that each holds. */
  readonly rowLanes: number;
  readonly stateRows: number;
  readonly tokens: number;
  readonly qInTile: boolean;
  /** Workgroups that share a state. */
  readonly vBlocks: number;
  readonly workgroupBytes: number;
}

/**
 * A lane holds at most 64 elements of a column of the state while head dims stay below 512. A tile
 * has as many tokens as fit into guaranteed workgroup memory, at most 16. It has one if there are
 * few tokens, because room for more would be idle. Throws FoveaError("limit") for head dims and
 * groups that don't fit at all.
 */
export function recurrentTile(
  label: string,
  {
    headDim,
    vDim,
    decayDim,
    group,
  }: Pick<LinearSpecialisation, "headDim" | "vDim" | "decayDim" | "group">,
  seqLen: number,
): RecurrentTile {
  const d4 = vec4s(headDim);
  const rowLanes = d4 <= 16 ? 1 : d4 <= 32 ? 2 : d4 <= 64 ? 4 : 8;
  const stateRows = Math.ceil(d4 / rowLanes);
  const padded4 = stateRows * rowLanes;
  const columns4 = RECURRENT_WG_SIZE / rowLanes / 4;
  const bytes = (tokens: number, qInTile: boolean) =>
    16 * tokens * (padded4 + columns4) +
    16 * (qInTile ? tokens * group * padded4 : 1) +
    16 * (decayDim > 1 ? tokens * padded4 : 1) +
    8 * tokens +
    4 * tokens * group * (RECURRENT_WG_SIZE + rowLanes) +
    4 * RECURRENT_WG_SIZE;
  const choices = [
    ...(seqLen < 8 ? [] : [16, 8, 4, 2].map((tokens) => ({ tokens, qInTile: true }))),
    ...[true, false].map((qInTile) => ({ tokens: 1, qInTile })),
  ];
  check(
    headDim <= WIDEST_RECURRENT,
    "limit",
    () =>
      `${label}: head dim ${headDim} is too large to run token by token; the largest is ${WIDEST_RECURRENT}.`,
  );
  const choice = choices.find(({ tokens, qInTile }) => bytes(tokens, qInTile) <= WORKGROUP_BYTES);
  check(
    choice !== undefined,
    "limit",
    () =>
      `${label}: head dim ${headDim} with ${group} query heads a state needs ${bytes(1, false)} bytes of workgroup memory to run token by token; there are ${WORKGROUP_BYTES}. Run groups of heads one after the other on slices.`,
  );
  const vBlocks = Math.ceil(vec4s(vDim) / columns4);
  const workgroupBytes = bytes(choice.tokens, choice.qInTile);
  return { rowLanes, stateRows, ...choice, vBlocks, workgroupBytes };
}

const ROOTS: Readonly<Record<LinearKernel, string>> = {
  states: linearStates,
  scan: linearScan,
  output: linearOutput,
  recurrent: linearRecurrent,
  copy: linearCopy,
};

/** What each kernel reads. The rest stays out of its text, so that fewer texts are compiled. */
const READS: Readonly<
  Record<LinearKernel, readonly ("q" | "k" | "v" | "decay" | "beta" | "keys")[]>
> = {
  states: ["k", "v", "decay", "keys"],
  scan: [],
  output: ["q", "k", "v", "decay", "keys"],
  recurrent: ["q", "k", "v", "decay", "beta", "keys"],
  copy: [],
};

/** The constants of slots/config that a kernel reads; the others keep their defaults. */
function constantsOf(
  kernel: LinearKernel,
  spec: LinearSpecialisation,
): Record<string, number | boolean> {
  const { headDim, vDim, decayDim, elu, normalized, causal, delta, group, rows, recurrent } = spec;
  if (kernel === "copy") return {};
  const gated = decayDim > 0;
  const shared = { HEAD_DIM: headDim, V_DIM: vDim, NORMALIZED: normalized, GATED: gated };
  if (kernel === "scan") return { ...shared, CAUSAL: causal };
  const reads = (["q", "k", "v", "decay", "beta"] as const).filter((name) =>
    READS[kernel].includes(name),
  );
  const bf16 = bf16Constants(Object.fromEntries(reads.map((name) => [name, spec[name]])));
  const read = { ...shared, ELU: elu, ...bf16 };
  const columns = { K_COLS: columnsOf(headDim), V_COLS: columnsOf(vDim) };
  if (kernel === "states") return { ...read, ...columns };
  const written = { ...read, O_BF16: isBf16(spec.o) };
  if (kernel === "output")
    return { ...written, V_COLS: columns.V_COLS, ROWS: rows, CAUSAL: causal };
  return {
    ...written,
    DECAY_DIM: Math.max(1, decayDim),
    ROW_DECAY: decayDim > 1,
    DELTA: delta,
    GROUP: group,
    TOKENS: recurrent.tokens,
    STATE_ROWS: recurrent.stateRows,
    ROW_LANES: recurrent.rowLanes,
    Q_IN_TILE: recurrent.qInTile,
  };
}

/** The modules of a kernel, of which `package::linear_<kernel>` is the root. */
export function linearModules(kernel: LinearKernel, spec: LinearSpecialisation): ModuleMap {
  const reads = READS[kernel];
  const dense = (name: "q" | "k" | "v") => (reads.includes(name) ? spec[name] : "dense");
  const writes = kernel === "output" || kernel === "recurrent";
  const stored = kernel === "recurrent" ? normalizerMoved : normalizerStored;
  const variant = kernel === "recurrent" ? "normalizer_moved" : "normalizer_stored";
  return {
    ...MODULES,
    "package::lib::params": linearParams,
    "package::lib::linear": linear,
    "package::lib::linear_gates": linearGates,
    "package::slots::beta": beta,
    "package::slots::decay": decay,
    "package::slots::key_count": keyCount,
    "package::slots::key_mask": keyMask,
    "package::slots::normalizer": normalizer,
    [`package::linear_${kernel}`]: ROOTS[kernel],
    ...constantsModule("config", linearConfig, constantsOf(kernel, spec)),
    ...slotModules({ q: dense("q"), k: dense("k"), v: dense("v"), o: writes ? spec.o : "dense" }),
    ...(spec.decayDim > 0 && reads.includes("decay") && namedSlot("decay", "decay", 4, spec.decay)),
    ...(spec.delta && reads.includes("beta") && namedSlot("beta", "beta", 5, spec.beta)),
    ...(spec.lengths &&
      reads.includes("keys") && {
        "package::slots::key_count": {
          name: "variants/key_count_stored.wesl",
          text: keyCountStored,
        },
      }),
    ...(spec.mask &&
      reads.includes("keys") && {
        "package::slots::key_mask": { name: "variants/key_mask_bytes.wesl", text: keyMaskBytes },
      }),
    ...(spec.normalized && {
      "package::slots::normalizer": { name: `variants/${variant}.wesl`, text: stored },
    }),
  };
}

/** The bindings of a kernel, under the shader's names. */
export function linearBindings(kernel: LinearKernel, spec: LinearSpecialisation): Binding[] {
  const params: Binding = { binding: 0, name: "params", type: "uniform" };
  const read = (binding: number, name: string, used: boolean): Binding[] =>
    used ? [{ binding, name, type: "read-only-storage" }] : [];
  const written = (binding: number, name: string, used: boolean): Binding[] =>
    used ? [{ binding, name, type: "storage" }] : [];
  if (kernel === "copy") return [params, ...read(1, "source", true), ...written(2, "result", true)];
  const reads = READS[kernel];
  const recurrent = kernel === "recurrent";
  const { normalized } = spec;
  return [
    params,
    ...(["q", "k", "v"] as const).flatMap((name, index) =>
      read(index + 1, name, reads.includes(name)),
    ),
    ...read(4, "decay", reads.includes("decay") && spec.decayDim > 0),
    ...read(5, "beta", reads.includes("beta") && spec.delta),
    ...written(6, "o", recurrent || kernel === "output"),
    ...written(7, "state", recurrent || kernel === "scan"),
    ...(kernel === "output" ? read(8, "workspace", true) : written(8, "workspace", !recurrent)),
    ...written(8, "next_normalizer", recurrent && normalized),
    ...read(9, "key_mask", reads.includes("keys") && spec.mask),
    ...read(10, "lengths", reads.includes("keys") && spec.lengths),
    ...(recurrent
      ? read(11, "normalizer", normalized)
      : written(11, "normalizer", kernel === "scan" && normalized)),
  ];
}

const kernels = new KernelCache<LinearSpecialisation & { readonly kernel: LinearKernel }>();

export function linearKernel(kernel: LinearKernel, spec: LinearSpecialisation): KernelSource {
  return kernels.get({ kernel, ...spec }, () => {
    const text = link(`package::linear_${kernel}`, linearModules(kernel, spec));
    return { label: `linear ${kernel}`, ...text, bindings: linearBindings(kernel, spec) };
  });
}

/** The uniform of these kernels. A kernel reads some of its members; the others are 0. */
export const LINEAR_PARAMS = new UniformStruct(linearParams, "LinearParams");
