// Mixtures of experts: feed-forward layers of which a router chooses some for each token.

import { planPointwise } from "../../operations/activations.ts";
import type { Activation } from "../../operations/pointwise_problem.ts";
import { planTopSoftmax } from "../../operations/routing/top_softmax.ts";
import { linear } from "../../training/operations/dense.ts";
import { add, contiguous, multiply, sumOf } from "../../training/operations/elements.ts";
import { Value } from "../../training/value.ts";
import type { Weight } from "../definition.ts";
import { linearOf } from "./rows.ts";

/** The experts of each layer, as gpt-oss has them. */
export interface Experts {
  readonly count: number;
  /** How many of them a token has. */
  readonly chosen: number;
  /** The inner width of each. */
  readonly inner: number;
  /** Gates are at most this, and what they multiply is at most this far from 0. */
  readonly limit: number;
  /** Gates are g sigmoid(alpha g). */
  readonly alpha: number;
}

/**
 * Elements of the inner rows that are in memory at once: experts are computed a group at a time so
 * that there are no more, but for one expert.
 */
const MOST_INNER = 2 ** 25;

/**
 * The sum over the experts of share * (down((up + 1) * gate)), where gate = g sigmoid(alpha g). g
 * and up are clamped, and the shares of a token are the softmax of its router's largest logits.
 *
 * All experts are computed for all tokens; those that were not chosen have the share 0.
 *
 * @param x [B, T, W]
 * @param most Elements of inner rows that may be in memory at once
 */
export function expertsOf(
  experts: Experts,
  weight: Weight,
  path: string,
  x: Value,
  most = MOST_INNER,
): Value {
  const { count, inner } = experts;
  const [B, T, W] = x.shape;
  const N = B * T;
  const rows = contiguous(x).reshape(N, W);
  const logits = linearOf(rows, weight, `${path}.router`, count);
  const shares = sharesOf(logits, experts.chosen);
  const { gateUp, gateUpBias, down, downBias } = weightsOf(experts, weight, path, W);
  const size = Math.max(1, Math.floor(most / (2 * N * inner)));
  const sums: Value[] = [linear(shares, downBias.permute(1, 0))];
  for (let begin = 0; begin < count; begin += size) {
    const end = Math.min(count, begin + size);
    const group = end - begin;
    const all = repeated(rows, [group, N, W], [0, W, 1]);
    const product = linear(all, gateUp.slice(0, begin, end).permute(0, 2, 1));
    const bias = gateUpBias.slice(0, begin, end);
    const both = add(product, repeated(bias, product.shape, [2 * inner, 0, 1]));
    const own = shares.slice(1, begin, end).reshape(N, group, 1);
    const weighed = multiply(gated(experts, both).permute(1, 0, 2), own);
    const to = down.slice(0, begin, end).reshape(group * inner, W);
    sums.push(linear(weighed.reshape(N, group * inner), to.permute(1, 0)));
  }
  return sumOf(sums).reshape(B, T, W);
}

function weightsOf({ count, inner }: Experts, weight: Weight, path: string, W: number) {
  const of = (name: string, ...shape: readonly number[]) =>
    weight(`${path}.experts.${name}`, shape);
  return {
    gateUp: of("gate_up_proj", count, W, 2 * inner),
    gateUpBias: of("gate_up_proj_bias", count, 2 * inner),
    down: of("down_proj", count, inner, W),
    downBias: of("down_proj_bias", count, W),
  };
}

/** The same elements along axes on which nothing changes, which have stride 0. */
const repeated = (
  { graph, memory, offset }: Value,
  shape: readonly number[],
  strides: readonly number[],
): Value => new Value(graph, memory, shape, strides, offset);

/** The softmax of the largest logits of each row, and 0 for the others. */
function sharesOf(logits: Value, kept: number): Value {
  const output = logits.graph.computed("shares of experts", logits.shape, []);
  logits.graph.add({
    label: "shares of experts",
    inputs: [logits],
    outputs: [output],
    plan: (device, at) => planTopSoftmax(device, { x: at(logits), kept, output: at(output) }),
  });
  return output;
}

/** (up + 1) * g sigmoid(alpha g) of rows in which g and up take turns, [E, N, I]. */
function gated({ inner, limit, alpha }: Experts, both: Value): Value {
  const [E, N] = both.shape;
  const pairs = both.reshape(E, N, inner, 2);
  const [gate, up] = [0, 1].map((part) => pairs.slice(3, part, part + 1).reshape(E, N, inner));
  const number = (value: number) => both.graph.constant([1], Float32Array.of(value));
  const minus = number(-1);
  const below = number(-limit);
  // What is beyond the limit is taken away again, which is exact.
  const beyond = (x: Value, factor?: Value) =>
    pointwise(x, { bias: below, activation: "relu", ...(factor && { factor }) });
  const g = add(gate, beyond(gate, minus));
  const clamped = sumOf([up, beyond(up, minus), beyond(multiply(up, minus))]);
  // g sigmoid(alpha g) = silu(alpha g) / alpha.
  const swish = pointwise(multiply(g, number(alpha)), {
    activation: "silu",
    factor: number(1 / alpha),
  });
  return pointwise(clamped, { bias: number(1), factor: swish });
}

/** activation(x + bias) * factor, in one pass. */
function pointwise(
  x: Value,
  { bias, activation, factor }: { bias?: Value; activation?: Activation; factor?: Value },
): Value {
  const output = x.graph.computed("gate", x.shape, []);
  x.graph.add({
    label: "gate",
    inputs: [x, bias, factor].filter((value) => value !== undefined),
    outputs: [output],
    plan: (device, at) =>
      planPointwise(device, {
        x: at(x),
        ...(bias && { bias: at(bias) }),
        ...(activation && { activation }),
        ...(factor && { factor: at(factor) }),
        output: at(output),
      }),
  });
  return output;
}
