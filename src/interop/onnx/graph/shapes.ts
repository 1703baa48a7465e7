// Operators of a graph that make, move or choose elements. The host knows all that they do, but for
// the indices of a Gather.

import { MOST_AXES, wholeOf } from "./checks.ts";
import {
  broadcastAt,
  commonShape,
  flatIndex,
  type GraphTensor,
  integer,
  numbersOf,
  numbersTensor,
  scaledIndex,
  sizeOf,
  unflatten,
} from "./tensors.ts";
import { type Code, expect, shown, Term } from "./terms.ts";

type Attributes = Readonly<Record<string, unknown>>;

/** Gives the result of an operator for its inputs, some of which may be left out. */
type ShapeOperator = (
  code: Code,
  inputs: readonly (GraphTensor | undefined)[],
  attributes: Attributes,
) => GraphTensor;

const required = (inputs: readonly (GraphTensor | undefined)[], index: number): GraphTensor => {
  const input = inputs[index];
  expect(input !== undefined, () => `input ${index} is missing`);
  return input;
};

/** A list of numbers, which is an input in later opsets and an attribute in earlier ones. */
function listOf(
  name: string,
  input: GraphTensor | undefined,
  attributes: Attributes,
): readonly number[] | undefined {
  const attribute = attributes[name];
  if (input) return numbersOf(input, name);
  if (attribute === undefined || attribute === null) return undefined;
  const isList =
    Array.isArray(attribute) && attribute.length <= MOST_AXES && attribute.every(Number.isInteger);
  expect(
    isList,
    () => `${name} must be a list of up to ${MOST_AXES} whole numbers, got ${shown(attribute)}`,
  );
  return attribute;
}

const axisOf = (axis: number, rank: number): number => {
  expect(
    Number.isInteger(axis) && axis >= -rank && axis < rank,
    () => `there is no axis ${axis} among ${rank}`,
  );
  return axis < 0 ? axis + rank : axis;
};

const shapeTensor = (code: Code, shape: readonly number[]) =>
  numbersTensor(code, "i32", [shape.length], shape);

/**
 * Gives another shape to the same elements in row-major order. If only axes of size 1 come and go,
 * no arithmetic is needed.
 */
function reshaped(code: Code, x: GraphTensor, shape: readonly number[]): GraphTensor {
  expect(
    sizeOf(shape) === sizeOf(x.shape),
    () => `[${x.shape}] has not the elements of [${shape}]`,
  );
  const wide = (one: readonly number[]) => one.flatMap((size, axis) => (size === 1 ? [] : [axis]));
  const from = wide(x.shape);
  const to = wide(shape);
  const alike =
    from.length === to.length && from.every((axis, i) => x.shape[axis] === shape[to[i]]);
  return {
    shape,
    kind: x.kind,
    at: (index) => {
      if (!alike) return x.at(unflatten(code, x.shape, flatIndex(code, shape, index)));
      return x.at(
        x.shape.map((_, axis) =>
          from.includes(axis) ? index[to[from.indexOf(axis)]] : integer(0),
        ),
      );
    },
  };
}

function reshapedTo(
  { shape }: GraphTensor,
  given: readonly number[],
  allowZero: boolean,
): number[] {
  const sizes = given.map((size, axis) => (size === 0 && !allowZero ? (shape[axis] ?? 0) : size));
  const rest = sizeOf(sizes.filter((size) => size !== -1));
  return sizes.map((size) => (size === -1 ? sizeOf(shape) / Math.max(1, rest) : size));
}

/** The operators by name. */
export const SHAPES: Readonly<Record<string, ShapeOperator>> = {
  Shape: (code, inputs, attributes) => {
    const { shape } = required(inputs, 0);
    const end = wholeOf(attributes, "end", shape.length);
    return shapeTensor(code, shape.slice(wholeOf(attributes, "start", 0), end));
  },
  Size: (code, inputs) => numbersTensor(code, "i32", [], [sizeOf(required(inputs, 0).shape)]),
  Range: (code, inputs) => {
    const [start, limit, delta] = [0, 1, 2].map((i) => required(inputs, i));
    const [from, to, step] = [start, limit, delta].map(
      (one, i) => numbersOf(one, ["start", "limit", "delta"][i])[0],
    );
    const { kind } = start;
    expect(
      (to - from) / step < 2 ** 31,
      () => `from ${from} to ${to} by ${step} is too long or endless`,
    );
    return {
      kind,
      shape: [Math.max(0, Math.ceil((to - from) / step))],
      at: ([i]) => {
        if (i.constant !== undefined) return Term.constant(kind, from + i.constant * step);
        if (kind === "i32") return scaledIndex(code, i, step, integer(from));
        const product = `f32(${i.text}) * ${Term.constant(kind, step).text}`;
        return code.let(kind, `${product} + ${Term.constant(kind, from).text}`);
      },
    };
  },
  ConstantOfShape: (code, inputs, { value }) => {
    const shape = numbersOf(required(inputs, 0), "shape");
    const filled = (value as GraphTensor | undefined) ?? numbersTensor(code, "f32", [1], [0]);
    return { shape, kind: filled.kind, at: () => filled.at([integer(0)]) };
  },
  Reshape: (code, inputs, { shape, allowzero }) => {
    const x = required(inputs, 0);
    const given = listOf("shape", inputs[1], { shape });
    expect(given !== undefined, () => "input 1 is missing");
    return reshaped(code, x, reshapedTo(x, given, Boolean(allowzero)));
  },
  Unsqueeze: (code, inputs, attributes) => {
    const x = required(inputs, 0);
    const axes = listOf("axes", inputs[1], attributes) ?? [];
    const rank = x.shape.length + axes.length;
    const places = axes.map((axis) => axisOf(axis, rank));
    const rest = [...x.shape];
    const shape = Array.from({ length: rank }, (_, axis) =>
      places.includes(axis) ? 1 : (rest.shift() as number),
    );
    return reshaped(code, x, shape);
  },
  Squeeze: (code, inputs, attributes) => {
    const x = required(inputs, 0);
    const axes = listOf("axes", inputs[1], attributes)?.map((axis) => axisOf(axis, x.shape.length));
    return reshaped(
      code,
      x,
      x.shape.filter((size, axis) => (axes ? !axes.includes(axis) : size !== 1)),
    );
  },
  Expand: (_code, inputs) => {
    const x = required(inputs, 0);
    const shape = commonShape([x.shape, numbersOf(required(inputs, 1), "shape")]);
    return { shape, kind: x.kind, at: (index) => broadcastAt(x, index) };
  },
  Transpose: (_code, inputs, { perm }) => {
    const x = required(inputs, 0);
    const order = listOf("perm", undefined, { perm }) ?? x.shape.map((_, axis) => axis).reverse();
    const isOrder =
      order.length === x.shape.length && x.shape.every((_, axis) => order.includes(axis));
    expect(isOrder, () => `perm [${order}] is no order of ${x.shape.length} axes`);
    const at = (index: readonly Term[]) =>
      x.at(x.shape.map((_, axis) => index[order.indexOf(axis)]));
    return { kind: x.kind, shape: order.map((axis) => x.shape[axis]), at };
  },
  Slice: (code, inputs, attributes) => {
    const x = required(inputs, 0);
    const lists = ["starts", "ends", "axes", "steps"].map((name, i) =>
      listOf(name, inputs[i + 1], attributes),
    );
    const [
      starts = [],
      ends = [],
      axes = starts.map((_, axis) => axis),
      steps = starts.map(() => 1),
    ] = lists;
    const cuts = x.shape.map((size) => ({ first: 0, step: 1, size }));
    for (const [i, given] of axes.entries()) {
      const axis = axisOf(given, x.shape.length);
      const size = x.shape[axis];
      const step = steps[i];
      expect(
        Boolean(step) && i < starts.length && i < ends.length,
        () => "starts, ends and steps must go together",
      );
      const within = (end: number) => {
        const counted = end < 0 ? end + size : end;
        return step > 0
          ? Math.min(Math.max(counted, 0), size)
          : Math.min(Math.max(counted, -1), size - 1);
      };
      const first = within(starts[i]);
      cuts[axis] = { first, step, size: Math.max(0, Math.ceil((within(ends[i]) - first) / step)) };
    }
    const place = (index: Term, axis: number) =>
      scaledIndex(code, index, cuts[axis].step, integer(cuts[axis].first));
    return {
      kind: x.kind,
      shape: cuts.map(({ size }) => size),
      at: (index) => x.at(index.map(place)),
    };
  },
  Gather: (code, inputs, attributes) => {
    const x = required(inputs, 0);
    const indices = required(inputs, 1);
    const axis = axisOf(wholeOf(attributes, "axis", 0), x.shape.length);
    const before = x.shape.slice(0, axis);
    const after = x.shape.slice(axis + 1);
    const size = x.shape[axis];
    const shape = [...before, ...indices.shape, ...after];
    const inside = (found: Term) => {
      if (found.constant !== undefined) return integer(axisOf(found.constant, size));
      return code.let(
        "i32",
        `select(${found.text}, ${found.text} + ${integer(size).text}, ${found.text} < 0i)`,
      );
    };
    const at = (index: readonly Term[]) => {
      const end = axis + indices.shape.length;
      return x.at([
        ...index.slice(0, axis),
        inside(indices.at(index.slice(axis, end))),
        ...index.slice(end),
      ]);
    };
    return { kind: x.kind, shape, at };
  },
  Concat: (code, inputs, attributes) => {
    expect(inputs.length > 0, () => "input 0 is missing");
    const parts = inputs.map((_, i) => required(inputs, i));
    const [{ kind, shape }] = parts;
    const axis = axisOf(wholeOf(attributes, "axis"), shape.length);
    let end = 0;
    const ends = parts.map((part) => {
      end += part.shape[axis];
      return end;
    });
    const from = (part: number, index: readonly Term[]): Term => {
      const begin = ends[part] - parts[part].shape[axis];
      const place = scaledIndex(code, index[axis], 1, integer(-begin));
      return parts[part].at(index.map((one, i) => (i === axis ? place : one)));
    };
    const at = (index: readonly Term[]): Term => {
      const { constant } = index[axis];
      expect(constant !== undefined, () => "is for lists that are known before the scores are");
      return from(
        ends.findIndex((end) => constant < end),
        index,
      );
    };
    return {
      kind,
      shape: shape.map((size, i) => (i === axis ? (ends.at(-1) as number) : size)),
      at,
    };
  },
  Trilu: (code, inputs, attributes) => {
    const x = required(inputs, 0);
    const k = inputs[1] ? numbersOf(inputs[1], "k")[0] : 0;
    const upper = wholeOf(attributes, "upper", 1) !== 0;
    const at = (index: readonly Term[]) => {
      const [row, column] = index.slice(-2);
      const ahead = code.let(
        "bool",
        `${column.text} - ${row.text} ${upper ? ">=" : "<="} ${integer(k).text}`,
      );
      const value = x.at(index);
      const zero = Term.constant(x.kind, 0).text;
      const hidden = value.hidden && `(${ahead.text} && ${value.hidden})`;
      return code.let(x.kind, `select(${zero}, ${value.text}, ${ahead.text})`, hidden);
    };
    return { kind: x.kind, shape: x.shape, at };
  },
};
