// How the gradients of linear attention cut the tokens, and what lies where in the workspace. The
// tokens run in segments that share one workspace, so that beside one state for each segment only
// two numbers for each query grow with them.

import type { Taken } from "../given.ts";
import { resolveSpec, Tensor } from "../gpu/tensor.ts";
import {
  type BackwardSizes,
  DECAY_CHUNK,
  PLAIN_CHUNK,
  partsOf,
  stateStride,
  workOf,
} from "../kernels/gradients/linear_tiles.ts";
import type { Caller } from "../plan/operation.ts";
import { checkBindingLimit } from "../plan/specs.ts";
import type { PlanTensors } from "../plan/tensors.ts";
import { checkDispatches } from "../plan/work.ts";
import { LINEAR_GRADIENTS, type LinearAttentionBackwardProblem } from "./backward_options.ts";
import type { ResolvedLinearBackward } from "./backward_problem.ts";
import { checkLengths } from "./memory.ts";

/** About the most bytes of a segment in the workspace. */
const WORKSPACE_BYTES = 2 ** 26;
/** The most tokens that one dispatch runs through one after the other. */
const MOST_STEPS = 4096;

/** The tensors of which rows are prepared. */
export type PreparedRows = "q" | "k" | "v" | "ds" | "decay" | "beta";

/** Chunks that are in memory together: the first, and how many. */
export interface Segment {
  readonly first: number;
  readonly count: number;
}

/** The cut of the tokens, and the places of everything in the workspace, in elements. */
export interface BackwardMemory {
  readonly sizes: BackwardSizes;
  readonly chunk: number;
  /** Tokens of the largest segment. */
  readonly tokens: number;
  readonly keys: readonly Segment[];
  readonly queries: readonly Segment[];
  /** Parts of the gradient of a row, and of a value. */
  readonly parts: { readonly rows: number; readonly values: number };
  readonly stride: number;
  /** Elements of a row of v, in whole vec4s. */
  readonly pitch: number;
  /** Elements of a state before its normaliser. */
  readonly normalizerAt: number;
  /** Slots of states for each batch entry and head: those of chunks come first. */
  readonly chunkSlots: number;
  readonly stateSlots: number;
  readonly gradientSlots: number;
  readonly at: Readonly<
    Record<
      "states" | "gradients" | "weights" | "parts" | "held" | "values" | "decays" | "pairs",
      number
    >
  >;
  /** Places of prepared rows, in vec4s, and how many there are. */
  readonly rowsAt: Readonly<Record<PreparedRows, number>>;
  readonly vec4s: number;
  readonly elements: number;
  /** What has to be computed at all. */
  readonly needs: Needs;
}

/** What the gradients that are asked for need. */
export interface Needs {
  /** Whether queries read states, and whether gradients of states are needed. */
  readonly reads: boolean;
  readonly backwards: boolean;
  /** Whether walks backwards need the states, or what tokens have corrected. */
  readonly states: boolean;
  /** Whether there are parts of the gradients of k, and gradients of what tokens write. */
  readonly rows: boolean;
  readonly values: boolean;
}

function needsOf({ wanted, normalized, delta }: ResolvedLinearBackward): Needs {
  const backwards = [...wanted].some((name) => name !== "dQ");
  const values = delta ? backwards : wanted.has("dV");
  const states = wanted.has("dDecay") || (delta && (wanted.has("dK") || wanted.has("dBeta")));
  return {
    reads: wanted.has("dQ") || (normalized && backwards),
    backwards,
    states,
    rows: wanted.has("dK"),
    values,
  };
}

export function backwardMemory(problem: ResolvedLinearBackward): BackwardMemory {
  const { batch, states, heads, seqQ, seqKv, headDim, vDim, decayDim } = problem;
  const { normalized, causal, delta, wanted, maxDispatchFlops } = problem;
  const group = heads / states;
  const readers = group + Number(delta);
  const sizes = { headDim, vDim, decayDim, normalized, causal, delta, group };
  const needs = needsOf(problem);
  const chunk = wanted.has("dDecay") ? DECAY_CHUNK : PLAIN_CHUNK;
  const stride = stateStride(sizes);
  const pitch = 4 * Math.ceil(vDim / 4);
  const parts = partsOf(sizes);

  const ofToken = {
    parts: Math.max(
      needs.reads ? heads * (parts.rows + Number(normalized)) * headDim : 0,
      needs.rows ? states * parts.rows * (delta ? 2 : 1) * headDim : 0,
      wanted.has("dDecay") ? states * parts.rows * (readers + 1) * headDim : 0,
    ),
    held: (needs.reads || needs.states) && delta ? states * pitch : 0,
    values: needs.values ? states * parts.values * pitch : 0,
    decays: wanted.has("dDecay") ? states * headDim : 0,
    pairs: wanted.has("dDecay") ? states * readers * DECAY_CHUNK : 0,
  };
  const d4 = Math.ceil(headDim / 4);
  const v4 = pitch / 4;
  const rowsOfToken: Record<PreparedRows, number> = {
    q: problem.qHeads * d4,
    k: problem.kHeads * d4,
    v: states * v4,
    ds: heads * v4,
    decay: decayDim > 0 ? states * (decayDim > 1 ? d4 : 1) : 0,
    beta: delta ? problem.betaHeads : 0,
  };
  const sum = (sizes: object) => Object.values(sizes).reduce((all, size) => all + size, 0);
  const tokenElements = sum(ofToken) + 4 * sum(rowsOfToken);
  const chunkBytes = 4 * batch * (2 * states * stride + chunk * tokenElements);
  const work = (kernel: "columns" | "reads", workgroups: number) =>
    chunk * workgroups * workOf(kernel, sizes).flops || 1;
  const most = Math.min(
    WORKSPACE_BYTES / (chunkBytes || 1),
    maxDispatchFlops / work("reads", batch * states),
    delta ? Math.min(MOST_STEPS / chunk, maxDispatchFlops / work("columns", 1)) : Infinity,
  );
  const cut = (length: number) => segmentsOf(Math.ceil(length / chunk), Math.max(1, most));
  const keys = cut(seqKv);
  const queries = causal ? keys : cut(seqQ);
  const chunkSlots = Math.max(0, ...[...keys, ...queries].map(({ count }) => count));
  const tokens = chunkSlots * chunk;
  const stateSlots = chunkSlots + keys.length + 1;
  const gradientSlots = chunkSlots + 2;

  const hasStates = needs.reads || needs.states;
  const lengths = {
    states: hasStates ? batch * states * stateSlots * stride : 0,
    gradients: needs.backwards ? batch * states * gradientSlots * stride : 0,
    weights: normalized && needs.reads ? 2 * batch * heads * seqQ : 0,
    parts: batch * tokens * ofToken.parts,
    held: batch * tokens * ofToken.held,
    values: batch * tokens * ofToken.values,
    decays: batch * tokens * ofToken.decays,
    pairs: batch * tokens * ofToken.pairs,
  };
  let elements = 0;
  const at: Record<string, number> = {};
  for (const [name, length] of Object.entries(lengths)) {
    at[name] = elements;
    elements += length;
  }
  let vec4s = 0;
  const rowsAt: Record<string, number> = {};
  for (const [name, size] of Object.entries(rowsOfToken)) {
    rowsAt[name] = vec4s;
    vec4s += batch * tokens * size;
  }
  return {
    sizes,
    chunk,
    tokens,
    keys,
    queries,
    parts,
    stride,
    pitch,
    normalizerAt: 4 * d4 * pitch,
    chunkSlots,
    stateSlots,
    gradientSlots,
    at: at as BackwardMemory["at"],
    rowsAt: rowsAt as BackwardMemory["rowsAt"],
    vec4s: Math.max(1, vec4s),
    elements: elements + 4, // kernels load four elements at a time
    needs,
  };
}

/** Cuts chunks into segments of at most `most`, as equal as possible; none if there is no chunk. */
function segmentsOf(chunks: number, most: number): Segment[] {
  const count = Math.ceil(chunks / Math.floor(most));
  checkDispatches(count);
  const size = Math.ceil(chunks / (count || 1));
  return Array.from({ length: count }, (_, index) => ({
    first: index * size,
    count: Math.min(size, chunks - index * size),
  })).filter((segment) => segment.count > 0);
}

/** Adds the tensors that a caller binds, and those that the plan owns: lengths, and the workspace. */
export function backwardTensors(
  { add, own }: PlanTensors,
  resolved: ResolvedLinearBackward,
  problem: Taken<LinearAttentionBackwardProblem>,
  { label, device }: Caller,
): void {
  const { specs, batch } = resolved;
  const { kvLengths } = problem;
  const isWritten = (name: string) => LINEAR_GRADIENTS.some((gradient) => gradient === name);
  for (const name of LINEAR_GRADIENTS) {
    const spec = specs.get(name);
    if (spec) add(name, spec, problem[name], true);
  }
  for (const [name, spec] of specs) if (!isWritten(name)) add(name, spec, problem[name]);
  if (kvLengths !== undefined) checkLengths(label, resolved, kvLengths);
  if (kvLengths instanceof Tensor) add("kvLengths", kvLengths, kvLengths);
  const { elements, vec4s } = backwardMemory(resolved);
  const memory = { workspace: [elements], prepared: [vec4s, 4] };
  for (const [name, shape] of Object.entries(memory))
    checkBindingLimit(label, name, device, resolveSpec(label, { shape }));
  if (Array.isArray(kvLengths)) own("kvLengths", [batch], { dtype: "i32", data: kvLengths });
  for (const [name, shape] of Object.entries(memory)) own(name, shape, {}, true);
}
