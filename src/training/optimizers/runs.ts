// Runs: parameters that one dispatch updates, because they have the same algorithm and lie in one
// buffer, as their gradients do.

import { tensor } from "../../gpu/make_tensor.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import {
  ENTRY,
  OPTIMIZER_CHUNK,
  RULE_STATE,
  type UpdateRule,
} from "../../kernels/training/optimizer.ts";
import { bindingRange } from "../../plan/specs.ts";
import type { Bound } from "./sequence.ts";

/** A parameter of a run. */
export interface Member {
  /** Its place in the optimiser's list. */
  readonly index: number;
  readonly parameter: Tensor;
  readonly gradient: Tensor;
  readonly group: number;
  /** Which matrix of its stack it is, for Muon. */
  readonly matrix: number;
}

/** Parameters that one dispatch updates. */
export interface Run {
  readonly rule: UpdateRule | "muon";
  readonly members: Member[];
  parameters: Bound;
  gradients: Bound;
  /** Elements of all members; the state of a run has as many. */
  elements: number;
}

/** A table's rows of a run, and the chunks of its dispatch. */
export interface Rows {
  readonly first: number;
  readonly count: number;
  readonly chunks: number;
}

/** The least part of a buffer that holds two others. */
function joined(a: Bound, b: Bound): Bound {
  const offset = Math.min(a.offset, b.offset);
  const end = Math.max(a.offset + a.size, b.offset + b.size);
  return { buffer: a.buffer, offset, size: end - offset };
}

const boundOf = (one: Tensor): Bound => ({ buffer: one.buffer, ...bindingRange(one) });

/**
 * Collects runs. A member joins the last run of its key and buffers, unless that would then bind
 * more than the device can.
 */
export function collectRuns(device: GPUDevice) {
  const runs: Run[] = [];
  const last = new Map<string, Run>();
  const numbers = new Map<GPUBuffer, number>();
  const numberOf = (buffer: GPUBuffer) => {
    const number = numbers.get(buffer) ?? numbers.size;
    numbers.set(buffer, number);
    return number;
  };
  const most = device.limits.maxStorageBufferBindingSize;
  const add = (rule: Run["rule"], detail: string, member: Member): void => {
    const { parameter, gradient } = member;
    if (!parameter.size) return;
    const parameters = boundOf(parameter);
    const gradients = boundOf(gradient);
    const key = `${rule} ${detail} ${numberOf(parameters.buffer)} ${numberOf(gradients.buffer)}`;
    const run = last.get(key);
    if (run) {
      const wider = joined(run.parameters, parameters);
      const widerGradients = joined(run.gradients, gradients);
      const elements = run.elements + parameter.size;
      if (Math.max(wider.size, widerGradients.size, 4 * elements) <= most) {
        run.members.push(member);
        run.parameters = wider;
        run.gradients = widerGradients;
        run.elements = elements;
        return;
      }
    }
    const begun = { rule, members: [member], parameters, gradients, elements: parameter.size };
    runs.push(begun);
    last.set(key, begun);
  };
  return { runs, add };
}

/** The table of tensors that the kernels read, as it grows. */
export class Table {
  readonly #rows: ArrayBuffer[] = [];

  /**
   * Adds the members of a run.
   *
   * @param gradients Where gradients lie: in the caller's memory, or as the state does
   */
  add({ members, parameters, gradients: given }: Run, gradients: "given" | "like state"): Rows {
    const first = this.#rows.length;
    let chunks = 0;
    let stateAt = 0;
    for (const { parameter, gradient, group, matrix } of members) {
      const { size, shape } = parameter;
      const row = new ArrayBuffer(ENTRY.bytes);
      const own = gradient.offset - given.offset / 4;
      ENTRY.pack(
        {
          first_chunk: chunks,
          parameter_at: parameter.offset - parameters.offset / 4,
          gradient_at: gradients === "given" ? own : stateAt,
          state_at: stateAt,
          size,
          group,
          matrix,
          columns: shape.at(-1) ?? 1,
        },
        row,
      );
      this.#rows.push(row);
      chunks += Math.ceil(size / OPTIMIZER_CHUNK);
      stateAt += size;
    }
    return { first, count: this.#rows.length - first, chunks };
  }

  /** Adds matrices that lie one after the other. */
  addStack(matrices: number, rows: number, columns: number): Rows {
    const first = this.#rows.length;
    const size = rows * columns;
    const each = Math.ceil(size / OPTIMIZER_CHUNK);
    for (let matrix = 0; matrix < matrices; matrix++) {
      const row = new ArrayBuffer(ENTRY.bytes);
      const at = matrix * size;
      const place = { parameter_at: at, gradient_at: at, state_at: at };
      ENTRY.pack({ first_chunk: matrix * each, ...place, size, group: 0, matrix, columns }, row);
      this.#rows.push(row);
    }
    return { first, count: matrices, chunks: matrices * each };
  }

  /** The words of all rows. */
  words(): Uint32Array {
    const words = this.#rows.flatMap((row) => [...new Uint32Array(row)]);
    return Uint32Array.from(words);
  }
}

/** The state of a run by its names, and of each member as views. */
export interface RunState {
  readonly whole: Readonly<Record<string, Tensor>>;
  readonly views: readonly (readonly [index: number, Readonly<Record<string, Tensor>>])[];
}

/** The names of the state that is kept for each parameter. */
export function stateNames(rule: Run["rule"], accumulates: boolean): readonly string[] {
  const kept: readonly string[] = rule === "muon" ? ["momentum"] : RULE_STATE[rule];
  return accumulates ? [...kept, "accumulated_gradient"] : kept;
}

/** Allocates the state of a run, which is 0. What was made goes into `owned`, too. */
export function allocateState(
  device: GPUDevice,
  label: string,
  { rule, members, elements }: Run,
  accumulates: boolean,
  owned: Tensor[],
): RunState {
  const names = stateNames(rule, accumulates);
  const whole: Record<string, Tensor> = {};
  for (const name of names) {
    whole[name] = tensor(device, [elements], { label: `${label} ${name}` });
    owned.push(whole[name]);
  }
  let offset = 0;
  const views = members.map(({ index, parameter: { shape, size } }) => {
    const at = offset;
    offset += size;
    const view = (name: string) =>
      whole[name].view({ shape, offset: at, label: `${label} ${name} of parameters[${index}]` });
    return [index, Object.fromEntries(names.map((name) => [name, view(name)]))] as const;
  });
  return { whole, views };
}
