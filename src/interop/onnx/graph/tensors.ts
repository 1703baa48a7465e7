// Tensors of a graph as functions from an index to an element: nothing is computed before an
// element is asked for.

import { type Code, expect, type Kind, Term } from "./terms.ts";

export interface GraphTensor {
  readonly shape: readonly number[];
  readonly kind: Kind;
  /** @param index One i32 for each axis, within the shape. */
  at(index: readonly Term[]): Term;
}

export const integer = (value: number): Term => Term.constant("i32", value);
export const sizeOf = (shape: readonly number[]): number =>
  shape.reduce((product, size) => product * size, 1);

/** A tensor that remembers its elements, because graphs use values more than once. */
export function remembered({ shape, kind, at }: GraphTensor): GraphTensor {
  const known = new Map<string, Term>();
  return {
    shape,
    kind,
    at: (index) => {
      const key = index.map(({ text }) => text).join();
      const found = known.get(key) ?? at(index);
      known.set(key, found);
      return found;
    },
  };
}

/** A tensor of numbers. */
export function numbersTensor(
  code: Code,
  kind: Kind,
  shape: readonly number[],
  values: ArrayLike<number>,
): GraphTensor {
  const alike =
    values.length > 0 && Array.prototype.every.call(values, (value) => value === values[0]);
  let place: { readonly base: number; readonly mayHide: boolean } | undefined;
  return {
    shape,
    kind,
    at: (index) => {
      if (alike) return Term.constant(kind, values[0]);
      const flat = flatIndex(code, shape, index);
      if (flat.constant !== undefined) return Term.constant(kind, values[flat.constant]);
      place ??= {
        base: code.store(kind, values),
        mayHide: Array.prototype.includes.call(values, -Infinity),
      };
      return code.load(kind, place.base, flat, place.mayHide);
    },
  };
}

/** The numbers of a tensor that the host knows. */
export function numbersOf(tensor: GraphTensor, what: string): number[] {
  const { shape } = tensor;
  expect(sizeOf(shape) <= 4096, () => `${what} has ${sizeOf(shape)} elements`);
  return Array.from({ length: sizeOf(shape) }, (_, element) => {
    const { constant } = tensor.at(indexOf(shape, element));
    expect(constant !== undefined, () => `${what} must be known before the scores are`);
    return constant;
  });
}

function indexOf(shape: readonly number[], element: number): Term[] {
  const index: Term[] = [];
  for (let axis = shape.length - 1, rest = element; axis >= 0; axis--) {
    index.unshift(integer(rest % shape[axis]));
    rest = Math.floor(rest / shape[axis]);
  }
  return index;
}

/** a * b + c of integers. */
export function scaledIndex(code: Code, a: Term, b: number, c: Term): Term {
  if (a.constant !== undefined && c.constant !== undefined)
    return integer(a.constant * b + c.constant);
  if (a.constant === 0 || b === 0) return c;
  const product = b === 1 ? a.text : `${a.text} * ${integer(b).text}`;
  return c.constant === 0 && b === 1
    ? a
    : code.let("i32", c.constant === 0 ? product : `${product} + ${c.text}`);
}

/** The place of an element in row-major order. */
export function flatIndex(code: Code, shape: readonly number[], index: readonly Term[]): Term {
  let flat = integer(0);
  let stride = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    flat = scaledIndex(code, index[axis], stride, flat);
    stride *= shape[axis];
  }
  return flat;
}

/** The index of the element at a place in row-major order. */
export function unflatten(code: Code, shape: readonly number[], flat: Term): Term[] {
  if (flat.constant !== undefined) return indexOf(shape, flat.constant);
  let stride = sizeOf(shape);
  return shape.map((size, axis) => {
    stride /= size;
    if (size === 1) return integer(0);
    const first = shape.slice(0, axis).every((before) => before === 1);
    const above = stride === 1 ? flat.text : `${flat.text} / ${integer(stride).text}`;
    return code.let("i32", first ? above : `${above} % ${integer(size).text}`);
  });
}

/** The shape that all the shapes broadcast to. */
export function commonShape(shapes: readonly (readonly number[])[]): number[] {
  const rank = Math.max(0, ...shapes.map(({ length }) => length));
  return Array.from({ length: rank }, (_, axis) => {
    const sizes = shapes.map((shape) => shape[axis - (rank - shape.length)] ?? 1);
    const size = sizes.find((one) => one !== 1) ?? 1;
    expect(
      sizes.every((one) => one === 1 || one === size),
      () => `shapes [${shapes.map((shape) => shape.join(", ")).join("] and [")}] do not broadcast`,
    );
    return size;
  });
}

/** The element of a tensor that is broadcast, by the index of the result. */
export function broadcastAt({ shape, at }: GraphTensor, index: readonly Term[]): Term {
  const missing = index.length - shape.length;
  return at(shape.map((size, axis) => (size === 1 ? integer(0) : index[axis + missing])));
}
