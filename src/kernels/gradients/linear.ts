// The kernels of linear attention's gradients, shaders/linear_backward_*.wesl: which constants and
// modules each takes, tiles and bindings.

import linear from "../../../shaders/lib/linear.wesl?raw";
import linearBackward from "../../../shaders/lib/linear_backward.wesl?raw";
import linearBackwardParams from "../../../shaders/lib/linear_backward_params.wesl?raw";
import linearPrepared from "../../../shaders/lib/linear_prepared.wesl?raw";
import columns from "../../../shaders/linear_backward_columns.wesl?raw";
import decay from "../../../shaders/linear_backward_decay.wesl?raw";
import delta from "../../../shaders/linear_backward_delta.wesl?raw";
import enter from "../../../shaders/linear_backward_enter.wesl?raw";
import gradient from "../../../shaders/linear_backward_gradient.wesl?raw";
import pairs from "../../../shaders/linear_backward_pairs.wesl?raw";
import prepare from "../../../shaders/linear_backward_prepare.wesl?raw";
import rows from "../../../shaders/linear_backward_rows.wesl?raw";
import rowsReversed from "../../../shaders/linear_backward_rows_reversed.wesl?raw";
import scalars from "../../../shaders/linear_backward_scalars.wesl?raw";
import scan from "../../../shaders/linear_backward_scan.wesl?raw";
import weights from "../../../shaders/linear_backward_weights.wesl?raw";
import keyCount from "../../../shaders/slots/key_count.wesl?raw";
import keyMask from "../../../shaders/slots/key_mask.wesl?raw";
import config from "../../../shaders/slots/linear_backward_config.wesl?raw";
import keyCountStored from "../../../shaders/variants/key_count_stored.wesl?raw";
import keyMaskBytes from "../../../shaders/variants/key_mask_bytes.wesl?raw";
import { link, type ModuleMap } from "../../shader/link.ts";
import { constantsModule, MODULES } from "../../shader/modules.ts";
import type { Binding, KernelSource } from "../../types.ts";
import type { Access } from "../access.ts";
import { KernelCache } from "../kernel_cache.ts";
import { bf16Constants, namedSlot } from "../named_slots.ts";
import { slotModules } from "../slot_modules.ts";
import { UniformStruct } from "../uniform.ts";
import {
  type BackwardSizes,
  columnTile,
  DECAY_CHUNK,
  type LinearBackwardKernel,
  rowTile,
} from "./linear_tiles.ts";

const ROOTS = {
  columns,
  decay,
  delta,
  enter,
  gradient,
  pairs,
  prepare,
  rows,
  rows_reversed: rowsReversed,
  scalars,
  scan,
  weights,
} as const;
type Root = keyof typeof ROOTS;

/** What the texts of a problem depend on: no lengths, strides or numbers of heads but `group`. */
export interface LinearBackwardSpecialisation extends BackwardSizes {
  readonly elu: boolean;
  /** Whether entries may have fewer keys, or masked ones. */
  readonly lengths: boolean;
  readonly mask: boolean;
}

/** What a kernel takes beside that if it prepares rows of a tensor, or writes a gradient. */
export interface RowForm {
  /** How the rows are read, or written. */
  readonly access: Access;
  /** Elements of a row. */
  readonly width: number;
  /** Whether phi is taken of rows that are prepared, or a gradient multiplied by phi'. */
  readonly mapped?: boolean;
  /** Whether rows are decays, of which exp is taken. */
  readonly decays?: boolean;
  readonly scaled?: boolean;
  readonly weighted?: boolean;
  /** Whether a gradient is multiplied by beta. */
  readonly delta?: boolean;
  /** Whether tokens that don't count have rows of zeros. */
  readonly masked?: boolean;
  /** Whether a scalar is the sum of a product. */
  readonly product?: boolean;
}

/** How a kernel is made of its root. */
interface Recipe {
  readonly root: Root;
  /** Whether it reads rows that were prepared. */
  readonly reads: boolean;
  readonly constants: Readonly<Record<string, number | boolean>>;
}

function recipeOf(
  kernel: LinearBackwardKernel,
  spec: LinearBackwardSpecialisation,
  form: RowForm | undefined,
): Recipe {
  const { decayDim, normalized, causal, delta, group } = spec;
  const gated = decayDim > 0;
  const gates = { GATED: gated, ROW_DECAY: decayDim > 1, DELTA: delta };
  const walk = { ...gates, CAUSAL: causal, NORMALIZED: normalized };
  const rowWalk = () => ({ ...walk, ...rowTile(kernel, spec) });
  const columnWalk = () => ({ ...walk, ...columnTile(kernel, spec) });
  const recipe = (root: Root, constants: Recipe["constants"], reads = true): Recipe => ({
    root,
    reads,
    constants,
  });
  switch (kernel) {
    case "delta":
      return recipe("delta", columnWalk());
    case "sums":
      return recipe("rows", { ...rowWalk(), SUMS: true });
    case "held":
      return recipe("rows", { ...rowWalk(), HELD: true });
    case "reads":
      return recipe("rows", { ...rowWalk(), GROUP: group });
    case "applied":
      return recipe("rows", { ...rowWalk(), APPLIED: true, GROUP: group });
    case "applied held":
      return recipe("rows", { ...rowWalk(), APPLIED: true, HELD: true });
    case "applied reversed":
      return recipe("rows", { ...rowWalk(), APPLIED: true, REVERSED: true });
    case "sums reversed":
      return recipe("rows_reversed", { ...rowWalk(), GROUP: group, SUMS: true });
    case "reads reversed":
      return recipe("rows_reversed", { ...rowWalk(), GROUP: group });
    case "columns":
      return recipe("columns", { ...columnWalk(), GROUP: group });
    case "decay":
    case "pairs":
      return recipe(kernel, { ...walk, GROUP: group, CHUNK: DECAY_CHUNK });
    case "scan":
    case "scan reversed": {
      const { DELTA: _, ROW_DECAY: __, ...scans } = walk;
      return recipe("scan", { ...scans, REVERSED: kernel === "scan reversed" }, false);
    }
    case "weights":
      return recipe("weights", {});
    case "enter":
      return recipe("enter", {}, false);
    default: {
      const { width = 0, mapped, decays, scaled, weighted, masked, product } = form ?? {};
      const constants = {
        V_DIM: width,
        SOURCE_DIM: width,
        ELU: mapped === true,
        MAPPED: mapped === true,
        EXPONENTIAL: decays === true,
        SCALED: scaled === true,
        WEIGHTED: weighted === true,
        DELTA: form?.delta === true,
        MASKED: masked === true,
        PRODUCT: product === true,
      };
      return recipe(kernel, constants, kernel !== "scalars");
    }
  }
}

/** The modules and the bindings of a kernel. `form` is for those that prepare or write rows. */
export function linearBackwardParts(
  kernel: LinearBackwardKernel,
  spec: LinearBackwardSpecialisation,
  form?: RowForm,
): { root: string; modules: ModuleMap; bindings: Binding[] } {
  const { root, reads, constants } = recipeOf(kernel, spec, form);
  const prepares = kernel === "prepare";
  const writes = form !== undefined && !prepares;
  const keys = form?.masked === true;
  const source = prepares ? form?.access : undefined;
  const output = writes ? form.access : "dense";
  const stored = (slot: string, variant: string, text: string): ModuleMap => ({
    [`package::slots::${slot}`]: { name: `variants/${variant}.wesl`, text },
  });
  const modules: ModuleMap = {
    ...MODULES,
    "package::lib::params": linearBackwardParams,
    "package::lib::linear": linear,
    "package::lib::linear_backward": linearBackward,
    "package::lib::linear_prepared": linearPrepared,
    "package::slots::key_count": keyCount,
    "package::slots::key_mask": keyMask,
    [`package::linear_backward_${root}`]: ROOTS[root],
    ...constantsModule("config", config, {
      HEAD_DIM: spec.headDim,
      V_DIM: spec.vDim,
      ...bf16Constants({ source, o: output }),
      ...constants,
    }),
    ...slotModules({ q: "dense", k: "dense", v: "dense", o: output }),
    ...namedSlot("source", "source", 1, source),
    ...(keys && spec.lengths && stored("key_count", "key_count_stored", keyCountStored)),
    ...(keys && spec.mask && stored("key_mask", "key_mask_bytes", keyMaskBytes)),
  };
  const bind = (
    binding: number,
    name: string,
    isUsed: boolean,
    type: Binding["type"] = "read-only-storage",
  ): Binding[] => (isUsed ? [{ binding, name, type }] : []);
  const bindings = [
    ...bind(0, "params", true, "uniform"),
    ...bind(1, "state", kernel === "enter"),
    ...bind(1, "source", prepares),
    ...bind(6, "o", writes, "storage"),
    ...bind(7, "prepared", reads, prepares ? "storage" : "read-only-storage"),
    ...bind(8, "workspace", true, "storage"),
    ...bind(9, "key_mask", keys && spec.mask),
    ...bind(10, "lengths", keys && spec.lengths),
  ];
  return { root: `package::linear_backward_${root}`, modules, bindings };
}

const kernels = new KernelCache<object>();

/** A linked kernel. `form` is for kernels that prepare or write rows. */
export function linearBackwardKernel(
  kernel: LinearBackwardKernel,
  spec: LinearBackwardSpecialisation,
  form?: RowForm,
): KernelSource {
  return kernels.get({ kernel, ...spec, form }, () => {
    const { root, modules, bindings } = linearBackwardParts(kernel, spec, form);
    return { label: `linear backward ${kernel}`, ...link(root, modules), bindings };
  });
}

/** The uniform of these kernels. A kernel reads some of its members; the others are 0. */
export const LINEAR_BACKWARD_PARAMS = new UniformStruct(
  linearBackwardParams,
  "LinearBackwardParams",
);
