// The problem of linear attention: tensors and options, checked before the GPU sees any of them.

import { check } from "../errors.ts";
import { isSoftware } from "../gpu/device.ts";
import { resolveSpec, Tensor } from "../gpu/tensor.ts";
import { WIDEST_RECURRENT } from "../kernels/linear.ts";
import type { Caller } from "../plan/operation.ts";
import {
  AXES,
  checkedSpec,
  checkLayout,
  expectApart,
  expectShape,
  FLOATS,
  type ResolvedSpec,
  reorder,
  toBhmd,
} from "../plan/specs.ts";
import type { Layout, TensorSpec } from "../types.ts";
import { resolveGates } from "./gates.ts";
import {
  type LinearAttentionProblem,
  type LinearTensor,
  UPDATE_RULES,
  type UpdateRule,
} from "./options.ts";
import { resolveStates } from "./states.ts";

/** A checked problem. q, k, v, decay, beta and output are in BHMD order. */
export interface ResolvedLinear {
  readonly layout: Layout;
  /** The tensors in the caller's axis order, as they will be bound. */
  readonly specs: ReadonlyMap<LinearTensor, ResolvedSpec>;
  readonly batch: number;
  /** Heads of q; below those of k, of beta, of v and the state, and of the output. */
  readonly qHeads: number;
  readonly kHeads: number;
  readonly betaHeads: number;
  readonly states: number;
  readonly heads: number;
  readonly seqQ: number;
  readonly seqKv: number;
  readonly headDim: number;
  readonly vDim: number;
  readonly decayDim: number;
  readonly delta: boolean;
  readonly causal: boolean;
  readonly elu: boolean;
  readonly normalized: boolean;
  readonly scale: number;
  readonly chunked: boolean;
  readonly maxDispatchFlops: number;
  readonly outputShape: readonly number[];
  readonly stateShape: readonly number[];
  readonly normalizerShape: readonly number[];
  /** Keys of each entry: numbers that the plan owns, or a tensor that a caller binds. */
  readonly lengths: "own" | "bound" | undefined;
}

/** Causal problems of fewer tokens run token by token. */
const FEW = 64;
/**
 * On software adapters, problems with head dims up to this run token by token, too: one state for
 * each of a CPU's few threads is work enough. SwiftShader then takes a quarter of the time for
 * chunks at D = 16, three quarters at 64, the same at 128 and half as much again at 256.
 */
const WIDEST_SERIAL = 64;
const LARGEST_SERIAL_GROUP = 16;

/** Checks a problem and fills in its defaults. Throws FoveaError that names what is wrong. */
export function resolveLinear(
  problem: LinearAttentionProblem,
  { label, device }: Caller,
): ResolvedLinear {
  const { layout = "bhmd" } = problem;
  checkLayout(label, layout);
  const settings = resolveSettings(label, problem);
  const specs = new Map<LinearTensor, ResolvedSpec>();
  const add = (name: LinearTensor, axes = 4): ResolvedSpec => {
    const given = problem[name] as TensorSpec;
    const spec =
      axes === 4 ? toBhmd(label, name, given, layout, FLOATS) : checkedSpec(label, name, given);
    specs.set(name, axes === 4 ? reorder(spec, layout) : spec);
    return spec;
  };
  const q = add("q");
  const k = add("k");
  const v = add("v");
  const sizes = sizesOf(label, layout, settings, q, k, v);
  const { batch, states, heads, seqQ, seqKv, headDim, vDim } = sizes;
  const gates = resolveGates(label, layout, problem, settings, sizes, add);

  const inLayout = (shape: readonly number[]) =>
    reorder({ shape, strides: shape, offset: 0, dtype: "f32" }, layout).shape;
  const outputShape = inLayout([batch, heads, seqQ, vDim]);
  if (problem.output !== undefined) add("output");
  else specs.set("output", resolveSpec(label, { shape: outputShape, dtype: q.dtype }));
  const output = specs.get("output") as ResolvedSpec;
  expectShape(label, "output", output, outputShape, `(axes ${AXES[layout]})`);
  expectApart(label, "output", output);
  if (problem.keyMask !== undefined) resolveMask(label, problem.keyMask, batch, seqKv, specs);

  const stateShape = [batch, states, headDim, vDim];
  const normalizerShape = [batch, states, headDim];
  resolveStates(
    label,
    problem,
    settings.normalized,
    { state: stateShape, normalizer: normalizerShape },
    specs,
  );
  const able = settings.causal && !settings.delta && gates.decayDim <= 1;
  check(
    problem.variant === undefined ||
      problem.variant === "recurrent" ||
      (problem.variant === "chunked" && (able || !settings.causal)),
    "argument",
    () =>
      `${label}: variant must be "recurrent", or "chunked" for rules without delta and decays of a head, got ${JSON.stringify(problem.variant)}.`,
  );
  check(
    problem.variant !== "recurrent" || settings.causal,
    "argument",
    () => `${label}: variant "recurrent" is for causal attention.`,
  );
  const few = seqKv < FEW && sizes.headDim <= WIDEST_RECURRENT;
  const serial =
    isSoftware(device) && headDim <= WIDEST_SERIAL && heads / states <= LARGEST_SERIAL_GROUP;
  const chunked =
    !settings.causal ||
    seqKv === 0 ||
    (able && (problem.variant ?? (few || serial ? "" : "chunked")) === "chunked");
  return {
    layout,
    specs,
    ...sizes,
    ...gates,
    ...settings,
    chunked,
    outputShape,
    stateShape,
    normalizerShape,
    lengths:
      problem.kvLengths === undefined
        ? undefined
        : problem.kvLengths instanceof Tensor
          ? "bound"
          : "own",
    scale: problem.scale ?? 1 / Math.sqrt(headDim),
    maxDispatchFlops: problem.maxDispatchFlops ?? 2 ** 36,
  };
}

interface Settings {
  readonly rule: UpdateRule;
  readonly gated: boolean;
  readonly delta: boolean;
  readonly causal: boolean;
  readonly elu: boolean;
  readonly normalized: boolean;
}

function resolveSettings(label: string, problem: LinearAttentionProblem): Settings {
  const { updateRule, maxDispatchFlops = 1, scale } = problem;
  const { causal = updateRule !== undefined, featureMap = updateRule ? "none" : "elu" } = problem;
  const { normalized = updateRule === undefined } = problem;
  const list = (names: readonly string[]) => names.map((name) => `"${name}"`).join(", ");
  const expect = (condition: boolean, what: () => string) =>
    check(condition, "argument", () => `${label}: ${what()}`);
  expect(
    updateRule === undefined || UPDATE_RULES.includes(updateRule),
    () => `updateRule must be one of ${list(UPDATE_RULES)}, got ${JSON.stringify(updateRule)}.`,
  );
  const rule = updateRule ?? "linear";
  const gated = rule.startsWith("gated");
  const delta = rule.endsWith("delta");
  expect(
    featureMap === "elu" || featureMap === "none",
    () => `featureMap must be "elu" or "none", got ${JSON.stringify(featureMap)}.`,
  );
  expect(
    causal || rule === "linear",
    () => `updateRule "${rule}" depends on the order of the tokens; causal can't be false.`,
  );
  expect(
    !normalized || !delta,
    () => `updateRule "${rule}" has no normaliser; normalized can't be true.`,
  );
  expect(
    scale === undefined || Number.isFinite(scale),
    () => `scale must be a finite number, got ${scale}. Leave it out for 1 / sqrt(D).`,
  );
  expect(
    scale === undefined || !normalized,
    () =>
      `scale has no effect where the output is normalised. Leave it out, or set normalized to false.`,
  );
  expect(
    maxDispatchFlops > 0,
    () => `maxDispatchFlops must be a positive number, got ${maxDispatchFlops}.`,
  );
  return { rule, gated, delta, causal, elu: featureMap === "elu", normalized };
}

function sizesOf(
  label: string,
  layout: Layout,
  { causal }: Settings,
  q: ResolvedSpec,
  k: ResolvedSpec,
  v: ResolvedSpec,
) {
  const text = (spec: ResolvedSpec) => `[${reorder(spec, layout).shape.join(", ")}]`;
  const expect = (condition: boolean, what: string) =>
    check(
      condition,
      "argument",
      () =>
        `${label}: ${what} (axes ${AXES[layout]}): q is ${text(q)}, k ${text(k)}, v ${text(v)}.`,
    );
  const [batch, qHeads, seqQ, headDim] = q.shape;
  const [, kHeads, seqKv] = k.shape;
  const [, states, , vDim] = v.shape;
  expect(k.shape[0] === batch && v.shape[0] === batch, "q, k and v must have the same batch size");
  expect(k.shape[3] === headDim, "q and k must have the same head dim");
  expect(v.shape[2] === seqKv, "k and v must have the same number of keys");
  expect(headDim >= 1 && vDim >= 1, "head dims start at 1");
  expect(qHeads >= 1 && kHeads >= 1 && states >= 1, "there must be a head");
  expect(
    qHeads % states === 0 || states % qHeads === 0,
    `one of the ${qHeads} query heads and ${states} value heads must be a multiple of the other`,
  );
  expect(
    states % kHeads === 0,
    `the ${states} value heads must be a multiple of the ${kHeads} key heads`,
  );
  expect(
    !causal || seqQ === seqKv,
    "causal attention has a query for each key; what came before is in the state (pastState)",
  );
  return {
    batch,
    qHeads,
    kHeads,
    states,
    heads: Math.max(qHeads, states),
    seqQ,
    seqKv,
    headDim,
    vDim,
  };
}

function resolveMask(
  label: string,
  given: TensorSpec,
  batch: number,
  seqKv: number,
  specs: Map<LinearTensor, ResolvedSpec>,
) {
  const mask = checkedSpec(label, "keyMask", given, ["u8"]);
  check(
    mask.shape.length === 2 && [1, batch].includes(mask.shape[0]) && mask.shape[1] === seqKv,
    "argument",
    () =>
      `${label}: keyMask must be [${batch}, ${seqKv}] or [1, ${seqKv}], got [${mask.shape.join(", ")}].`,
  );
  specs.set("keyMask", mask);
}
