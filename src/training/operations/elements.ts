// Operations on elements: copies, sums, activations, products.

import { check, show } from "../../errors.ts";
import { elementsOfList } from "../../given.ts";
import { planActivationBackward } from "../../operations/activation_backward.ts";
import { planPointwise } from "../../operations/activations.ts";
import type { Activation } from "../../operations/pointwise_problem.ts";
import { planProjection } from "../../operations/projection.ts";
import { graphOf } from "../arguments.ts";
import type { Value } from "../value.ts";

/** The most values that one kernel adds up. */
const MOST_TERMS = 3;

/** @internal Records a copy into a place of the same shape. */
export function copyInto(from: Value, place: Value): void {
  from.graph.add({
    label: "copy",
    inputs: [from],
    outputs: [place],
    plan: (device, at) => planPointwise(device, { x: at(from), output: at(place) }),
  });
}

/** @internal Records zeros for a whole memory, of which the place is a part. */
export function padInto(whole: Value, place: Value): void {
  const { graph } = place;
  const zero = graph.constant([1], new Float32Array(1));
  graph.add({
    label: "zeros",
    inputs: [zero],
    outputs: [whole],
    plan: (device, at) => planPointwise(device, { x: at(zero), output: at(whole) }),
  });
}

/** @internal The sum of values of one shape, in their order: records what is needed for it. */
export function sumOf(values: readonly Value[]): Value {
  const [first, ...rest] = values;
  if (!rest.length) return first;
  const [x, bias, residual] = values.slice(0, MOST_TERMS);
  const sum = first.graph.computed(first.label, first.shape, []);
  first.graph.add({
    label: "sum",
    inputs: residual ? [x, bias, residual] : [x, bias],
    outputs: [sum],
    plan: (device, at) =>
      planPointwise(device, {
        x: at(x),
        bias: at(bias),
        ...(residual && { residual: at(residual) }),
        output: at(sum),
      }),
  });
  return sumOf([sum, ...values.slice(MOST_TERMS)]);
}

/**
 * The same elements one after the other in row-major order: the value itself, if they lie so, and
 * otherwise a copy.
 */
export function contiguous(x: Value): Value {
  graphOf("contiguous", { x });
  if (x.isDense) return x;
  const output = x.graph.computed("contiguous", x.shape, [x]);
  x.graph.add({
    label: "contiguous",
    inputs: [x],
    outputs: [output],
    plan: (device, at) => planPointwise(device, { x: at(x), output: at(output) }),
    gradient({ of, give }) {
      const dOutput = of(output);
      if (dOutput) give(x, dOutput);
    },
  });
  return output;
}

/** a + b, of one shape. */
export function add(a: Value, b: Value): Value {
  graphOf("add", { a, b });
  checkShapes("add", a, b);
  const output = a.graph.computed("add", a.shape, [a, b]);
  a.graph.add({
    label: "add",
    inputs: [a, b],
    outputs: [output],
    plan: (device, at) => planPointwise(device, { x: at(a), bias: at(b), output: at(output) }),
    gradient({ of, give, wants }) {
      const dOutput = of(output);
      for (const x of [a, b]) if (dOutput && wants(x)) give(x, dOutput);
    },
  });
  return output;
}

/**
 * a * b, element by element; b broadcasts to the shape of a, and is not learned if it does.
 *
 * Throws FoveaError("argument") for a gradient of a product of broadcast factors.
 */
export function multiply(a: Value, b: Value): Value {
  graphOf("multiply", { a, b });
  if (b.memory.learned) checkShapes("multiply", a, b);
  const output = a.graph.computed("multiply", a.shape, [a, b]);
  const product = (x: Value, factor: Value, into: Value) =>
    a.graph.add({
      label: "multiply",
      inputs: [x, factor],
      outputs: [into],
      plan: (device, at) =>
        planPointwise(device, { x: at(x), factor: at(factor), output: at(into) }),
      gradient({ of, into: gradientOf, wants }) {
        const dOutput = of(into);
        if (!dOutput) return;
        if (wants(x)) product(dOutput, factor, gradientOf(x));
        if (wants(factor)) product(dOutput, x, gradientOf(factor));
      },
    });
  product(a, b, output);
  return output;
}

/** An activation of each element; see {@link Activation} for the formulas. */
export function activate(x: Value, activation: Activation): Value {
  graphOf("activate", { x });
  check(
    typeof activation === "string",
    "argument",
    () => `activate: an activation is a name as "gelu", got ${show(activation)}.`,
  );
  const output = x.graph.computed(activation, x.shape, [x]);
  x.graph.add({
    label: activation,
    inputs: [x],
    outputs: [output],
    plan: (device, at) => planPointwise(device, { x: at(x), activation, output: at(output) }),
    gradient({ of, into }) {
      const dOutput = of(output);
      if (!dOutput) return;
      const dX = into(x);
      x.graph.add({
        label: `${activation} backward`,
        inputs: [x, dOutput],
        outputs: [dX],
        plan: (device, at) =>
          planActivationBackward(device, {
            x: at(x),
            activation,
            dOutput: at(dOutput),
            dX: at(dX),
          }),
      });
    },
  });
  return output;
}

/**
 * A value for each entry of a batch: the elements of x, whose first axis has size 1, again and
 * again. Its gradient is the sum over the entries.
 */
export function broadcast(x: Value, to: readonly number[]): Value {
  const graph = graphOf("broadcast", { x });
  const shape = elementsOfList<number>(to) ?? [];
  const [entries, ...rest] = shape;
  check(
    x.shape.length === shape.length &&
      x.shape[0] === 1 &&
      rest.every((size, axis) => size === x.shape[axis + 1]),
    "argument",
    () => `broadcast: [${x.shape}] can't be repeated along its first axis to ${show(to)}.`,
  );
  const output = graph.computed("broadcast", shape, [x]);
  graph.add({
    label: "broadcast",
    inputs: [x],
    outputs: [output],
    plan: (device, at) => planPointwise(device, { x: at(x), output: at(output) }),
    gradient({ of, into }) {
      const dOutput = of(output);
      if (!dOutput) return;
      const ones = graph.constant([1, entries], new Float32Array(entries).fill(1));
      const rows = dOutput.reshape(entries, x.size).permute(1, 0);
      const dX = into(x).reshape(1, x.size);
      graph.add({
        label: "broadcast backward",
        inputs: [ones, dOutput],
        outputs: [dX],
        plan: (device, at) =>
          planProjection(device, { x: at(ones), weight: at(rows), output: at(dX) }),
      });
    },
  });
  return output;
}

/** Values side by side along an axis; their other axes are alike. */
export function concatenate(given: readonly Value[], axis: number): Value {
  const values = elementsOfList<Value>(given) ?? [];
  check(
    values.length > 0,
    "argument",
    () => `concatenate: expected a list of values, got ${show(given)}.`,
  );
  graphOf("concatenate", Object.fromEntries(values.map((one, at) => [`value ${at}`, one])));
  const [first] = values;
  const rank = first.shape.length;
  check(
    Number.isInteger(axis) && -rank <= axis && axis < rank,
    "argument",
    () => `concatenate: there is no axis ${show(axis)} in [${first.shape}].`,
  );
  const along = axis < 0 ? axis + first.shape.length : axis;
  const sizes = values.map(({ shape }) => shape[along]);
  const shape = first.shape.map((size, at) =>
    at === along ? sizes.reduce((sum, one) => sum + one, 0) : size,
  );
  for (const { shape: own } of values) {
    check(
      own.length === shape.length && own.every((size, at) => at === along || size === shape[at]),
      "argument",
      () => `concatenate: [${own}] does not fit beside [${first.shape}] along axis ${axis}.`,
    );
  }
  const output = first.graph.computed("concatenate", shape, values);
  let begin = 0;
  for (const [index, value] of values.entries()) {
    const place = output.slice(along, begin, begin + sizes[index]);
    begin += sizes[index];
    first.graph.add({
      label: "concatenate",
      inputs: [value],
      outputs: [place],
      plan: (device, at) => planPointwise(device, { x: at(value), output: at(place) }),
      gradient({ of, give, wants }) {
        const dPlace = of(place);
        if (dPlace && wants(value)) give(value, dPlace);
      },
    });
  }
  return output;
}

function checkShapes(name: string, a: Value, b: Value): void {
  check(
    a.shape.length === b.shape.length && a.shape.every((size, axis) => size === b.shape[axis]),
    "argument",
    () => `${name}: the shapes differ, [${a.shape}] and [${b.shape}].`,
  );
}
