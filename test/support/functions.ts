// Score and mask functions for test cases, each in WGSL and in JavaScript.

import type { Captures, Tensor, TensorOptions } from "../../src/index.ts";
import type { ReferenceOptions, ReferencePosition } from "../../src/reference/index.ts";

type MakeTensor = (shape: readonly number[], options: TensorOptions) => Tensor;

interface TwinScore {
  readonly wgsl: string;
  readonly js: (s: number, at: ReferencePosition) => number;
  /** The derivatives, by the score and by all captures, in WGSL and in JavaScript. */
  readonly gradient: string;
  readonly slope: NonNullable<ReferenceOptions["scoreGradient"]>;
  readonly captures: (make: MakeTensor) => Captures;
}

interface TwinMask {
  readonly wgsl: string;
  readonly js: (at: ReferencePosition) => boolean;
  readonly captures: (make: MakeTensor) => Captures;
  /** Whether heads differ, and so do their block masks. */
  readonly perHead?: boolean;
}

const none = () => ({});
const WEIGHTS = [0.5, -1.25, 2, 0.75];

export const SCORE_FUNCTIONS: Readonly<
  Record<"halved" | "sloped" | "weighted" | "hiding", TwinScore>
> = {
  halved: {
    wgsl: "fn score(s: f32, at: Position) -> f32 { return 0.5 * s; }",
    js: (s) => 0.5 * s,
    gradient: "fn gradient(s: f32, at: Position) -> f32 { return 0.5; }",
    slope: { derivative: () => 0.5 },
    captures: none,
  },
  sloped: {
    wgsl: "fn score(s: f32, at: Position) -> f32 { return s - slope * abs(f32(at.position - i32(at.kv_idx))); }",
    js: (s, { position, kvIdx }) => s - Math.fround(0.1) * Math.abs(position - kvIdx),
    gradient: `fn gradient(s: f32, at: Position) -> f32 { return 1.0; }
fn gradient_slope(s: f32, at: Position) -> f32 {
  return -abs(f32(at.position - i32(at.kv_idx)));
}`,
    slope: {
      derivative: () => 1,
      captures: { slope: 1 },
      captured: (_, { position, kvIdx }) => [
        { name: "slope", index: 0, derivative: -Math.abs(position - kvIdx) },
      ],
    },
    captures: () => ({ slope: 0.1 }),
  },
  weighted: {
    wgsl: `fn weight(head: u32) -> f32 {
  return weights[head % arrayLength(&weights)];
}
fn score(s: f32, at: Position) -> f32 {
  return s * weight(at.head) + f32(at.q_idx % 3u) - f32(at.batch);
}`,
    js: (s, { head, qIdx, batch }) => s * WEIGHTS[head % 4] + (qIdx % 3) - batch,
    gradient: `fn gradient(s: f32, at: Position) -> f32 { return weight(at.head); }
fn index_weights(at: Position) -> u32 { return at.head % arrayLength(&weights); }
fn gradient_weights(s: f32, at: Position) -> f32 { return s; }`,
    slope: {
      derivative: (_, { head }) => WEIGHTS[head % 4],
      captures: { weights: 4 },
      captured: (s, { head }) => [{ name: "weights", index: head % 4, derivative: s }],
    },
    captures: (make) => ({ weights: make([4], { data: WEIGHTS }) }),
  },
  // One query in five sees no key; for the others one key in three is hidden.
  hiding: {
    wgsl: `fn score(s: f32, at: Position) -> f32 {
  return select(s, HIDDEN, at.q_idx % 5u == 2u || (at.q_idx + at.kv_idx) % 3u == 1u);
}`,
    js: (s, { qIdx, kvIdx }) =>
      qIdx % 5 === 2 || (qIdx + kvIdx) % 3 === 1 ? Number.NEGATIVE_INFINITY : s,
    gradient: "fn gradient(s: f32, at: Position) -> f32 { return 1.0; }",
    slope: { derivative: () => 1 },
    captures: none,
  },
};

export const MASK_FUNCTIONS: Readonly<
  Record<"causal" | "window" | "dilated" | "heads" | "nothing", TwinMask>
> = {
  causal: {
    wgsl: "fn mask(at: Position) -> bool { return i32(at.kv_idx) <= at.position; }",
    js: ({ kvIdx, position }) => kvIdx <= position,
    captures: none,
  },
  window: {
    wgsl: "fn mask(at: Position) -> bool { return abs(at.position - i32(at.kv_idx)) <= reach; }",
    js: ({ kvIdx, position }) => Math.abs(position - kvIdx) <= 20,
    captures: () => ({ reach: { i32: 20 } }),
  },
  dilated: {
    wgsl: "fn mask(at: Position) -> bool { return (at.position - i32(at.kv_idx)) % 3 == 0; }",
    js: ({ kvIdx, position }) => (position - kvIdx) % 3 === 0,
    captures: none,
  },
  heads: {
    wgsl: "fn mask(at: Position) -> bool { return at.head % 2u == 0u || at.kv_idx % 2u == 0u; }",
    js: ({ head, kvIdx }) => head % 2 === 0 || kvIdx % 2 === 0,
    captures: none,
    perHead: true,
  },
  nothing: {
    wgsl: "fn mask(at: Position) -> bool { return false; }",
    js: () => false,
    captures: none,
  },
};
