// The plan of a recurrent network or of its gradients: plans of its parts, and the memory between
// them.

import { check, reading, show } from "../../errors.ts";
import { isRecord, type Taken } from "../../given.ts";
import { checkDevice, settle } from "../../gpu/buffers.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import type { Operands } from "../../plan/operand.ts";
import { checkOperand, checkOverlap, memoryOf, tieResults } from "../../plan/operand_checks.ts";
import type { Plan } from "../../plan/plan.ts";
import type { ResolvedSpec } from "../../plan/specs.ts";
import { checkTarget, type EncodeTarget, type Recording, recordInto } from "../../plan/target.ts";
import { type PlanTensors, planTensors } from "../../plan/tensors.ts";

/** Where a part of the plan finds a tensor: an operand, or a view of it. */
export interface Place {
  readonly of: string;
  /** Its offset counts from the first element of the operand. Default: all of it. */
  readonly view?: Omit<ResolvedSpec, "dtype">;
}

type Places<Name extends string> = { readonly [One in Name]?: Place | undefined };

/** A part that is ready to run. */
interface Part {
  readonly plan: Plan<object>;
  readonly places: readonly (readonly [name: string, place: Place])[];
}

/** An operation that a part is a plan of. */
interface Preparing<Problem, Bindings extends object> {
  plan(device: GPUDevice, problem: Problem): Promise<Plan<Bindings>>;
  prepare(
    device: GPUDevice,
    problem: Taken<Problem>,
  ): Promise<{ readonly plan: Plan<Bindings>; readonly allocated: Promise<unknown> }>;
}

interface PlanParts {
  readonly device: GPUDevice;
  readonly label: string;
  readonly operands: Operands;
  /** The names of operands that a caller may bind. */
  readonly bindable: ReadonlySet<string>;
  readonly owned: readonly Tensor[];
  readonly parts: readonly Part[];
}

/**
 * A compiled recurrent network, or its gradients. Make one with {@link planLstm}, {@link planGru},
 * {@link planLstmBackward} or {@link planGruBackward}; encode it as often as you like. It is not a
 * `Plan` but owns several, and keeps the views that they bound in the last run.
 */
export class RecurrentPlan<Bindings extends object = object> {
  /** The kernels of its parts, each once. */
  readonly kernel: string;
  /** Bytes of scratch memory that the plan owns for its runs. */
  readonly workspaceBytes: number;
  /** Dispatches of all kernels of a run. */
  readonly dispatchCount: number;
  readonly #parts: PlanParts;
  #bound: { readonly tensors: readonly Tensor[]; readonly bindings: readonly object[] } | undefined;
  #destroyed = false;

  private constructor(parts: PlanParts) {
    const plans = parts.parts.map(({ plan }) => plan);
    this.kernel = [...new Set(plans.map(({ kernel }) => kernel))].join(", ");
    const scratch = parts.owned.reduce((bytes, { size }) => bytes + 4 * size, 0);
    this.workspaceBytes = plans.reduce((bytes, plan) => bytes + plan.workspaceBytes, scratch);
    this.dispatchCount = plans.reduce((count, plan) => count + plan.dispatchCount, 0);
    this.#parts = parts;
  }

  /** @internal Use the functions named above. */
  static make<Bindings extends object>(parts: PlanParts): RecurrentPlan<Bindings> {
    return new RecurrentPlan(parts);
  }

  /**
   * Records the network into a compute pass, or into a pass of its own on a command encoder.
   * Allocates no GPU memory and submits nothing. In a caller's pass it sets the pipeline and bind
   * group 0. A plan has one set of memory between its kernels, so its runs follow one another.
   *
   * Throws FoveaError, with nothing recorded, if a tensor does not fit the plan, was destroyed or
   * belongs to another device, or if an output shares its buffer with an input.
   *
   * @example
   * const pass = encoder.beginComputePass();
   * plan.encode(pass, { x, output });
   * pass.end();
   */
  encode(target: EncodeTarget, bindings: Bindings = {} as Bindings): void {
    checkTarget(this.#parts.label, target);
    recordInto(target, this.#parts.label, this.prepare(bindings));
  }

  /** @internal Does all of an encode that can fail, and gives what is left to record. */
  prepare(bindings: Bindings): Recording {
    const { device, label, operands, bindable, parts } = this.#parts;
    check(!this.#destroyed, "destroyed", () => `${label}: the plan was destroyed.`);
    checkDevice(device);
    const given = namedTensors(label, bindings, bindable);
    const tensors = new Map<string, Tensor>();
    for (const [name, operand] of operands) {
      const tensor = given.get(name) ?? operand.fallback;
      checkOperand(`${label}: ${name}`, device, operand, tensor);
      tensors.set(name, tensor);
    }
    checkOverlap(label, operands, tensors);
    tieResults(operands, tensors);
    const bound = this.#boundTo(tensors);
    const recordings = parts.map(({ plan }, index) => plan.prepare(bound[index]));
    return (pass) => {
      for (const record of recordings) record?.(pass);
    };
  }

  /** Frees the plan's own buffers. Work that was submitted before still runs. */
  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    for (const { plan } of this.#parts.parts) plan.destroy();
    for (const one of this.#parts.owned) one.destroy();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  /** What each part binds; it is the same as in the last run if the tensors are. */
  #boundTo(tensors: ReadonlyMap<string, Tensor>): readonly object[] {
    const list = [...tensors.values()];
    if (this.#bound?.tensors.every((one, index) => one === list[index]))
      return this.#bound.bindings;
    const bindings = this.#parts.parts.map(({ places }) =>
      Object.fromEntries(
        places.map(([name, { of, view }]) => {
          const tensor = tensors.get(of) as Tensor;
          return [name, view ? tensor.view(view) : tensor];
        }),
      ),
    );
    this.#bound = { tensors: list, bindings };
    return bindings;
  }
}

/** The tensors of bindings under the names of operands: `x`, and `weights.weight_ih_l0`. */
function namedTensors(
  label: string,
  bindings: object,
  bindable: ReadonlySet<string>,
): ReadonlyMap<string, Tensor> {
  check(
    isRecord(bindings),
    "argument",
    () => `${label}: bindings are { name: tensor }, got ${show(bindings)}.`,
  );
  const groups = new Set([...bindable].flatMap((name) => name.match(/^\w+(?=\.)/) ?? []));
  return reading(`${label}: bindings`, () => {
    const tensors = new Map<string, Tensor>();
    const add = (name: string, tensor: unknown) => {
      if (tensor === undefined) return;
      check(
        bindable.has(name),
        "argument",
        () =>
          `${label}: the plan has no use for ${show(name)}; it takes ${[...bindable].join(", ")}. What else a problem has is said when its plan is made.`,
      );
      tensors.set(name, tensor as Tensor);
    };
    for (const [name, given] of Object.entries(bindings)) {
      if (!groups.has(name)) add(name, given);
      else for (const [inner, one] of Object.entries(given ?? {})) add(`${name}.${inner}`, one);
    }
    return tensors;
  });
}

/** Collects the parts of a plan. They are compiled side by side, and recorded in this order. */
export class RecurrentParts {
  readonly device: GPUDevice;
  readonly label: string;
  readonly operands: Operands;
  readonly #owned: readonly Tensor[];
  readonly #unread: ReadonlyMap<string, ResolvedSpec>;
  readonly #bindable: ReadonlySet<string>;
  readonly #parts: {
    readonly prepared: Promise<{ plan: Plan<object>; allocated: Promise<unknown> }>;
    readonly places: Part["places"];
  }[] = [];

  /**
   * @param collect Adds the operands, checked ones of the caller first
   * @param unread What a caller may bind though nothing reads it
   */
  constructor(
    device: GPUDevice,
    label: string,
    collect: (tensors: PlanTensors) => void,
    unread: ReadonlyMap<string, ResolvedSpec> = new Map(),
  ) {
    const { operands, owned } = planTensors(device, label, collect);
    this.device = device;
    this.label = label;
    this.operands = operands;
    this.#owned = owned;
    const own = new Set(owned);
    const names = [...operands].filter(([, { fallback }]) => !fallback || !own.has(fallback));
    this.#bindable = new Set([...names.map(([name]) => name), ...unread.keys()]);
    this.#unread = unread;
  }

  /** Where the elements of an operand lie. */
  spec(name: string): ResolvedSpec {
    return (this.operands.get(name)?.spec ?? this.#unread.get(name)) as ResolvedSpec;
  }

  /**
   * Adds a part.
   *
   * @param places The tensors of its problem that it binds
   * @param shapes Tensors of its problem that it does not bind
   */
  add<Problem extends { readonly label?: string }, Bindings extends object>(
    operation: Preparing<Problem, Bindings>,
    settings: Omit<Problem, keyof Bindings | "label">,
    places: Places<keyof Bindings & string>,
    shapes: Places<keyof Bindings & string> = {},
  ): void {
    const bound = Object.entries<Place | undefined>(places).flatMap(([name, place]) =>
      place ? [[name, place] as const] : [],
    );
    const known = Object.entries<Place | undefined>(shapes).flatMap(([name, place]) =>
      place ? [[name, place] as const] : [],
    );
    const specs = [...bound, ...known].map(([name, { of, view }]) => {
      const spec = this.spec(of);
      const viewed = view && { ...view, offset: spec.offset + view.offset, dtype: spec.dtype };
      const { shape, strides, offset, dtype } = viewed ?? spec;
      return [name, { shape, strides, offset, dtype }];
    });
    const problem = { ...settings, ...Object.fromEntries(specs), label: this.label };
    const prepared = operation.prepare(this.device, problem as Taken<Problem>);
    this.#parts.push({ prepared: prepared as never, places: bound });
  }

  /** The plan. Whatever fails, nothing is left allocated. */
  async finish<Bindings extends object>() {
    const { device, label, operands } = this;
    const settled = await Promise.allSettled(this.#parts.map(({ prepared }) => prepared));
    const ready = settled.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
    const failed = settled.find((one) => one.status === "rejected");
    if (failed) {
      for (const { plan } of ready) plan.destroy();
      for (const one of this.#owned) one.destroy();
      throw failed.reason;
    }
    const parts = ready.map(({ plan }, index) => ({ plan, places: this.#parts[index].places }));
    const plan = RecurrentPlan.make<Bindings>({
      device,
      label,
      operands,
      bindable: this.#bindable,
      owned: this.#owned,
      parts,
    });
    const waits = [...ready.map(({ allocated }) => allocated), ...memoryOf(operands)];
    const allocated = settle(waits as Promise<void>[]);
    allocated.catch(() => plan.destroy());
    return { plan, allocated };
  }
}
