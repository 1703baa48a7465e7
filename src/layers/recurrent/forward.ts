// LSTM and GRU forward: from a problem to a plan, and one run of it.

import type { Taken } from "../../given.ts";
import { checkDevice } from "../../gpu/buffers.ts";
import { resolveSpec, type Tensor } from "../../gpu/tensor.ts";
import type { CellKind } from "../../kernels/recurrent.ts";
import { POINTWISE } from "../../operations/pointwise.ts";
import { PROJECTION } from "../../operations/projection.ts";
import { checkedFlops } from "../../operations/projection_problem.ts";
import { checkTensors, type RunOptions, runOnce } from "../../plan/run.ts";
import {
  checkedSpec,
  expectApart,
  expectShape,
  FLOATS,
  type ResolvedSpec,
} from "../../plan/specs.ts";
import type { TensorSpec } from "../../types.ts";
import { addInputs, expectDense, expectNothingKept, NetworkMemory, takeWeights } from "./memory.ts";
import { RecurrentParts } from "./plan.ts";
import {
  type LstmProblem,
  ofNetwork,
  type ResolvedNetwork,
  resolveNetwork,
  shapesOf,
} from "./problem.ts";
import { RECURRENT_STEPS } from "./steps.ts";

/** A checked problem: the network, and the tensors beside x and the weights. */
interface ResolvedForward extends ResolvedNetwork {
  readonly keep: boolean;
  readonly maxDispatchFlops: number;
  readonly starts: ReadonlyMap<"h0" | "c0", ResolvedSpec>;
  /** What a run gives. */
  readonly results: ReadonlyMap<"output" | "hN" | "cN" | "gates" | "states", ResolvedSpec>;
}

function resolveForward(
  label: string,
  cell: CellKind,
  problem: Taken<LstmProblem>,
): ResolvedForward {
  const maxDispatchFlops = checkedFlops(label, problem.maxDispatchFlops);
  const network = resolveNetwork(label, cell, problem);
  const { keep = problem.gates !== undefined || problem.states !== undefined } = problem;
  const shapes = shapesOf(network);
  const starts = new Map<"h0" | "c0", ResolvedSpec>();
  for (const name of ["h0", "c0"] as const) {
    if (problem[name] === undefined) continue;
    const spec = checkedSpec(label, name, problem[name]);
    expectShape(label, name, spec, shapes.ends, ofNetwork(network));
    starts.set(name, spec);
  }
  const result = (given: TensorSpec | undefined, name: string, shape: readonly number[]) => {
    const dtypes = name === "output" ? FLOATS : undefined;
    const spec = given
      ? checkedSpec(label, name, given, dtypes)
      : resolveSpec(label, { shape, dtype: "f32" });
    expectShape(label, name, spec, shape, ofNetwork(network));
    expectApart(label, name, spec);
    return spec;
  };
  const results = new Map<"output" | "hN" | "cN" | "gates" | "states", ResolvedSpec>();
  results.set("output", result(problem.output, "output", shapes.output));
  results.set("hN", result(problem.hN, "hN", shapes.ends));
  if (cell === "lstm") results.set("cN", result(problem.cN, "cN", shapes.ends));
  if (keep) {
    for (const name of ["gates", "states"] as const) {
      const spec = result(problem[name], name, shapes[name]);
      expectDense(label, name, spec);
      results.set(name, spec);
    }
  } else expectNothingKept(label, problem);
  return { ...network, keep, maxDispatchFlops, starts, results };
}

/** Compiles a network. Whatever fails, nothing is left allocated. */
export async function prepareRecurrent<Bindings extends object>(
  device: GPUDevice,
  cell: CellKind,
  problem: Taken<LstmProblem>,
) {
  checkDevice(device);
  const { label = cell } = problem;
  const network = resolveForward(label, cell, problem);
  const { keep, maxDispatchFlops, starts, results, layers, directions, cells } = network;
  const { batch, steps, hidden, lengths } = network;
  const width = directions * hidden;
  const rows = shapesOf(network).gates[3];
  const parts = new RecurrentParts(device, label, ({ add, own }) => {
    for (const [name, spec] of results) add(name, spec, problem[name], true);
    for (const [name, spec] of starts) add(name, spec, problem[name]);
    addInputs({ add, own }, network, problem);
    own("ends", [2, layers * directions, batch, hidden], { dtype: "f32" }, true);
    if (keep) return;
    own("gates", [1, batch, steps, rows], { dtype: "f32" }, true);
    own("states", [Math.min(layers, 2), 2, batch, steps, width], { dtype: "f32" }, true);
  });
  const memory = new NetworkMemory(network, parts);
  for (const [index, { weightIh, weightHh, biasIh, biasHh }] of cells.entries()) {
    const layer = Math.floor(index / directions);
    const direction = index % directions;
    const slot = keep ? layer : layer % 2;
    const gates = memory.gates(keep ? index : 0);
    parts.add(
      PROJECTION,
      { maxDispatchFlops },
      {
        x: layer === 0 ? memory.rows("x") : memory.hidden(keep ? layer - 1 : (layer + 1) % 2),
        weight: { of: weightIh },
        bias: biasIh === undefined ? undefined : { of: biasIh },
        output: gates,
      },
    );
    parts.add(
      RECURRENT_STEPS,
      { cell, reverse: direction === 1, keep, maxDispatchFlops },
      {
        weight: { of: weightHh },
        bias: biasHh === undefined ? undefined : { of: biasHh },
        lengths: lengths && { of: "lengths" },
        h0: starts.has("h0") ? memory.end("h0", index) : undefined,
        c0: starts.has("c0") ? memory.end("c0", index) : undefined,
        gates,
        states: memory.states(slot, direction),
        ends: {
          of: "ends",
          view: {
            shape: [2, batch, hidden],
            strides: [layers * directions * batch * hidden, hidden, 1],
            offset: index * batch * hidden,
          },
        },
      },
    );
  }
  const last = memory.hidden(keep ? layers - 1 : (layers - 1) % 2);
  parts.add(POINTWISE, {}, { x: last, output: memory.rows("output") });
  for (const [plane, name] of (["hN", "cN"] as const).entries()) {
    const spec = results.get(name);
    if (!spec) continue;
    const size = layers * directions * batch * hidden;
    const view = {
      shape: spec.shape,
      strides: [batch * hidden, hidden, 1],
      offset: plane * size,
    };
    parts.add(POINTWISE, {}, { x: { of: "ends", view }, output: { of: name } });
  }
  return { ...(await parts.finish<Bindings>()), results };
}

/** Runs a network once. */
export async function runRecurrent<Results>(
  cell: CellKind,
  { x, weights }: { readonly x: Tensor; readonly weights: object },
  options: Taken<Omit<LstmProblem, "x" | "weights">> & RunOptions,
): Promise<Results> {
  const { label = cell, h0, output, hN, gates, states, c0, cN } = options;
  checkTensors(label, { x }, { h0, c0, output, hN, cN, gates, states });
  const { device } = x;
  const taken = takeWeights(label, "weights", weights);
  const prepared = await prepareRecurrent(device, cell, { ...options, x, weights: taken });
  const results = await runOnce<object>(device, label, prepared, options, (make) =>
    Object.fromEntries(
      [...prepared.results].map(([name, { shape, dtype }]) => [
        name,
        options[name] ?? make(name, shape, dtype),
      ]),
    ),
  );
  return results as Results;
}
