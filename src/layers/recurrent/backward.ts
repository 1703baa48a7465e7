// The gradients of LSTM and GRU: from a problem to a plan, and one run of it.

import type { Taken } from "../../given.ts";
import { checkDevice } from "../../gpu/buffers.ts";
import { Tensor } from "../../gpu/tensor.ts";
import { GRADIENT_PLANES } from "../../kernels/gradients/recurrent.ts";
import type { CellKind } from "../../kernels/recurrent.ts";
import { POINTWISE } from "../../operations/pointwise.ts";
import { PROJECTION_BACKWARD } from "../../operations/projection_backward.ts";
import { checkTensors, type RunOptions, runOnce } from "../../plan/run.ts";
import {
  type LstmBackwardProblem,
  type ResolvedBackward,
  resolveBackward,
} from "./backward_problem.ts";
import { addInputs, NetworkMemory, takeWeights } from "./memory.ts";
import { type Place, RecurrentParts } from "./plan.ts";
import { shapesOf } from "./problem.ts";
import { RECURRENT_STEPS_BACKWARD } from "./steps_backward.ts";

/** Compiles the gradients of a network. Whatever fails, nothing is left allocated. */
export async function prepareRecurrentBackward<Bindings extends object>(
  device: GPUDevice,
  cell: CellKind,
  problem: Taken<LstmBackwardProblem>,
) {
  checkDevice(device);
  const { label = `${cell}Backward` } = problem;
  const resolved = resolveBackward(label, cell, problem);
  const { reads, results, weights, x } = resolved;
  // Biases are not read, and x is for the gradients of weights only.
  const isRead = (name: string) =>
    name === "x" ? resolved.asked.has("parameters") : name.includes("weight_");
  const unread = new Map([...weights].map(([name, spec]) => [`weights.${name}`, spec]));
  unread.set("x", x);
  const parts = new RecurrentParts(
    device,
    label,
    ({ add, own }) => {
      const parameters = (problem.parameters ?? {}) as Readonly<Record<string, unknown>>;
      for (const [name, spec] of results) {
        const [group, inner] = name.split(".");
        const given = inner ? parameters[inner] : problem[group as "dX"];
        add(name, spec, given, true);
      }
      for (const [name, spec] of reads) add(name, spec, problem[name]);
      addInputs({ add, own }, resolved, problem, isRead);
      for (const [name, shape] of scratchOf(resolved)) own(name, shape, { dtype: "f32" }, true);
    },
    unread,
  );
  build(resolved, parts);
  return { ...(await parts.finish<Bindings>()), results };
}

/** The memory that a plan owns: the gradients between its kernels. */
function scratchOf(resolved: ResolvedBackward): readonly (readonly [string, readonly number[]])[] {
  const { cell, asked, batch, steps, inputs, hidden, layers, directions } = resolved;
  const rows = shapesOf(resolved).gates[3];
  const each = Array.from({ length: directions }, (_, direction) => direction);
  const flows = Array.from({ length: Math.min(2, layers - 1) }, (_, slot) =>
    each.map((direction) => flowName(slot, direction)),
  );
  const ofX = asked.has("dX") && directions === 2 ? each.map(inputName) : [];
  return [
    ["dGates", [GRADIENT_PLANES[cell], batch, steps, rows]],
    ["ends", [2, batch, hidden]],
    ...flows.flat().map((name) => [name, [batch, steps, directions * hidden]] as const),
    ...ofX.map((name) => [name, [batch, steps, inputs]] as const),
  ];
}

/** Gradients of the states of a layer, of which a direction of the layer above has left its share. */
const flowName = (slot: number, direction: number) => `dHidden${slot}${direction}`;

/** The share of a direction in the gradient of x. */
const inputName = (direction: number) => `dX${direction}`;

function build(resolved: ResolvedBackward, parts: RecurrentParts): void {
  const { layers, directions, asked, results } = resolved;
  const memory = new NetworkMemory(resolved, parts);
  for (let layer = layers - 1; layer >= 0; layer--)
    for (let direction = 0; direction < directions; direction++)
      addCell({ resolved, parts, memory }, layer, direction);
  if (asked.has("dX") && directions === 2 && results.has("dX")) {
    const x = { of: inputName(0) };
    parts.add(POINTWISE, {}, { x, residual: { of: inputName(1) }, output: memory.rows("dX") });
  }
}

interface Site {
  readonly resolved: ResolvedBackward;
  readonly parts: RecurrentParts;
  readonly memory: NetworkMemory;
}

/** The gradients of a layer in one direction. */
function addCell(site: Site, layer: number, direction: number): void {
  const { resolved, parts, memory } = site;
  const { cell, cells, layers, directions, hidden, batch, reads, results, asked } = resolved;
  const { maxDispatchFlops } = resolved;
  const index = layer * directions + direction;
  const { weightIh, weightHh, biasIh, biasHh } = cells[index];
  const own = { first: direction * hidden, count: hidden };
  const end = (plane: number): Place => {
    const view = { shape: [batch, hidden], strides: [hidden, 1], offset: plane * batch * hidden };
    return { of: "ends", view };
  };
  for (const [plane, name] of (["dHN", "dCN"] as const).entries())
    if (reads.has(name))
      parts.add(POINTWISE, {}, { x: memory.end(name, index), output: end(plane) });
  const above = (from: number): Place | undefined =>
    from < directions ? columnsOf(parts, flowName(layer % 2, from), own) : undefined;
  const top = reads.has("dOutput") ? memory.rows("dOutput", own) : undefined;
  const isTop = layer === layers - 1;
  parts.add(
    RECURRENT_STEPS_BACKWARD,
    {
      cell,
      reverse: direction === 1,
      hasDh: reads.has("dHN"),
      hasDc: reads.has("dCN"),
      toStart: asked.has("dH0") || asked.has("dC0"),
      maxDispatchFlops,
    },
    {
      weight: { of: weightHh },
      lengths: resolved.lengths && { of: "lengths" },
      gates: memory.gates(index),
      states: memory.states(layer, direction),
      dOutput: isTop ? top : above(0),
      dMore: isTop ? undefined : above(1),
      dGates: { of: "dGates" },
      ends: { of: "ends" },
    },
  );
  for (const [plane, name] of (["dH0", "dC0"] as const).entries())
    if (results.has(name))
      parts.add(POINTWISE, {}, { x: end(plane), output: memory.end(name, index) });
  const ofWeights = asked.has("parameters");
  const below = layer > 0 ? flowName((layer - 1) % 2, direction) : undefined;
  const ofX = below ?? (directions === 2 ? inputName(direction) : "dX");
  const toX = below !== undefined || asked.has("dX");
  const inputs = layer > 0 ? memory.hidden(layer - 1) : memory.rows("x");
  addProduct(site, {
    x: inputs,
    dOutput: memory.gates(0, "dGates"),
    weight: weightIh,
    bias: biasIh,
    dX: toX ? (ofX === "dX" ? memory.rows("dX") : { of: ofX }) : undefined,
    ofWeights,
  });
  addProduct(site, {
    x: memory.previous(layer, direction),
    dOutput: memory.gates(GRADIENT_PLANES[cell] - 1, "dGates"),
    weight: weightHh,
    bias: biasHh,
    dX: undefined,
    ofWeights,
  });
}

/** A matrix product whose gradients are asked for. */
interface Product {
  readonly x: Place;
  readonly dOutput: Place;
  readonly weight: string;
  readonly bias: string | undefined;
  readonly dX: Place | undefined;
  readonly ofWeights: boolean;
}

function addProduct({ resolved, parts }: Site, product: Product): void {
  const { x, dOutput, weight, bias, dX, ofWeights } = product;
  const gradients = [
    ...(dX ? (["dX"] as const) : []),
    ...(ofWeights ? (["dWeight"] as const) : []),
    ...(ofWeights && bias ? (["dBias"] as const) : []),
  ];
  if (gradients.length === 0) return;
  const parameter = (name: string): Place => ({ of: name.replace("weights.", "parameters.") });
  parts.add(
    PROJECTION_BACKWARD,
    { gradients, maxDispatchFlops: resolved.maxDispatchFlops },
    {
      x: ofWeights ? x : undefined,
      weight: dX && { of: weight },
      dOutput,
      dX,
      dWeight: ofWeights ? parameter(weight) : undefined,
      dBias: ofWeights && bias ? parameter(bias) : undefined,
    },
    { x: ofWeights ? undefined : x, weight: dX ? undefined : { of: weight } },
  );
}

/** Some columns of rows [B, T, columns] of the plan's own. */
function columnsOf(
  parts: RecurrentParts,
  name: string,
  { first, count }: { readonly first: number; readonly count: number },
): Place {
  const { shape, strides } = parts.spec(name);
  return { of: name, view: { shape: [...shape.slice(0, 2), count], strides, offset: first } };
}

/** Runs the gradients of a network once. */
export async function runRecurrentBackward<Results>(
  cell: CellKind,
  { x, weights }: { readonly x: Tensor; readonly weights: object },
  options: Taken<Omit<LstmBackwardProblem, "x" | "weights">> & RunOptions,
): Promise<Results> {
  const { label = `${cell}Backward`, gates, states, dOutput, dHN, dCN, dX, dH0, dC0 } = options;
  checkTensors(label, { x, gates, states }, { dOutput, dHN, dCN, dX, dH0, dC0 });
  const taken = takeWeights(label, "weights", weights);
  const given = takeWeights(label, "parameters", options.parameters ?? {});
  const { device } = x;
  const prepared = await prepareRecurrentBackward(device, cell, { ...options, x, weights: taken });
  const results = await runOnce<object>(device, label, prepared, options, (make) => {
    const all: Record<string, unknown> = {};
    const parameters: Record<string, unknown> = {};
    for (const [name, { shape, dtype }] of prepared.results) {
      const [group, inner] = name.split(".");
      const into = inner
        ? (given as Readonly<Record<string, unknown>>)[inner]
        : options[group as "dX"];
      const one = into instanceof Tensor ? into : make(name, shape, dtype);
      if (inner) parameters[inner] = one;
      else all[group] = one;
    }
    return prepared.results.size > Object.keys(all).length ? { ...all, parameters } : all;
  });
  return results as Results;
}
