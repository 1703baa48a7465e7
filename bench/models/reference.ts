// The decoders in float64, and in plain f32: token after token, with keys and values kept.

import { rotaryFrequencies } from "../../src/reference/rotary.ts";
import { EPSILON, type Llama, THETA, type Weight } from "./llama.ts";

/** Keys and values of a layer, [tokens][kvHeads * headDim]; keys are turned. */
export interface KeptRows {
  readonly keys: Float64Array[];
  readonly values: Float64Array[];
}

type Round = (x: number) => number;
const exact: Round = (x) => x;

/**
 * Rows of a matrix times a vector. Four sums at a time, and roundings that are written out, because
 * everything else takes many times as long.
 */
function timesMatrix({ shape, data }: Weight, x: Float64Array, round: Round): Float64Array {
  const [outputs, inputs] = shape;
  const result = new Float64Array(outputs);
  const times = round === exact ? timesRow : timesPlainRow;
  const own = round === exact ? x : Float32Array.from(x);
  for (let row = 0; row < outputs; row++)
    result[row] = times(data as never, own as never, row * inputs, inputs);
  return result;
}

function timesRow(data: Float32Array, x: Float64Array, at: number, count: number): number {
  let a = 0;
  let b = 0;
  let c = 0;
  let d = 0;
  const whole = count - (count % 4);
  for (let i = 0; i < whole; i += 4) {
    a += data[at + i] * x[i];
    b += data[at + i + 1] * x[i + 1];
    c += data[at + i + 2] * x[i + 2];
    d += data[at + i + 3] * x[i + 3];
  }
  for (let i = whole; i < count; i++) a += data[at + i] * x[i];
  return a + b + (c + d);
}

function timesPlainRow(data: Float32Array, x: Float32Array, at: number, count: number): number {
  const { fround } = Math;
  let a = fround(0);
  let b = fround(0);
  let c = fround(0);
  let d = fround(0);
  const whole = count - (count % 4);
  for (let i = 0; i < whole; i += 4) {
    a = fround(a + fround(data[at + i] * x[i]));
    b = fround(b + fround(data[at + i + 1] * x[i + 1]));
    c = fround(c + fround(data[at + i + 2] * x[i + 2]));
    d = fround(d + fround(data[at + i + 3] * x[i + 3]));
  }
  for (let i = whole; i < count; i++) a = fround(a + fround(data[at + i] * x[i]));
  return fround(fround(a + b) + fround(c + d));
}

/** A text that a decoder reads on the CPU. */
export class ReferenceText {
  readonly kept: readonly KeptRows[];
  readonly #llama: Llama;
  readonly #round: Round;
  /** cos and sin by the position, in turn. */
  readonly #frequencies: ArrayLike<number>;
  /** Keys before they are turned and values of the first layer, which follow from the token. */
  readonly #first = new Map<number, readonly [Float64Array, Float64Array]>();

  constructor(llama: Llama, precision: "f64" | "f32") {
    const { layers, headDim } = llama.sizes;
    this.#llama = llama;
    this.#round = precision === "f64" ? exact : Math.fround;
    this.#frequencies = rotaryFrequencies(headDim, { base: THETA }).frequencies;
    this.kept = Array.from({ length: layers }, () => ({ keys: [], values: [] }));
  }

  /** Takes a token. Gives the logits [vocab] of its row if they are asked for. */
  read(token: number, logits = false): Float64Array | undefined {
    const { sizes } = this.#llama;
    const round = this.#round;
    const table = this.#weight("model.embed_tokens");
    let x = Float64Array.from(table.data.subarray(token * sizes.width, (token + 1) * sizes.width));
    const add = (more: Float64Array) => x.map((value, at) => round(value + more[at]));
    for (let layer = 0; layer < sizes.layers; layer++) {
      const at = `model.layers.${layer}`;
      const isLast = layer === sizes.layers - 1 && !logits;
      const known = layer === 0 ? this.#first.get(token) : undefined;
      if (isLast && known) {
        this.#keep(layer, known);
        return undefined;
      }
      const normed = this.#norm(x, `${at}.input_layernorm`);
      const times = (name: string, rows: Float64Array) =>
        timesMatrix(this.#weight(`${at}.${name}_proj`), rows, round);
      const rows = known ?? ([times("self_attn.k", normed), times("self_attn.v", normed)] as const);
      if (layer === 0) this.#first.set(token, rows);
      this.#keep(layer, rows);
      if (isLast) return undefined;
      const position = this.kept[layer].keys.length - 1;
      const q = this.#turned(times("self_attn.q", normed), position);
      x = add(times("self_attn.o", this.#attention(q, this.kept[layer])));
      const inner = this.#norm(x, `${at}.post_attention_layernorm`);
      const up = times("mlp.up", inner);
      const gated = times("mlp.gate", inner).map((gate, i) =>
        round(round(gate / round(1 + round(Math.exp(-gate)))) * up[i]),
      );
      x = add(times("mlp.down", gated));
    }
    return timesMatrix(this.#weight("lm_head"), this.#norm(x, "model.norm"), round);
  }

  #weight(name: string): Weight {
    return this.#llama.weights.get(`${name}.weight`) as Weight;
  }

  #keep(layer: number, [k, v]: readonly [Float64Array, Float64Array]): void {
    const { keys, values } = this.kept[layer];
    keys.push(this.#turned(k, keys.length));
    values.push(v);
  }

  #norm(x: Float64Array, name: string): Float64Array {
    const round = this.#round;
    const { data } = this.#weight(name);
    let squares = 0;
    for (const value of x) squares = round(squares + round(value * value));
    const inverse = round(1 / Math.sqrt(squares / x.length + EPSILON));
    return x.map((value, at) => round(round(value * inverse) * data[at]));
  }

  /** Turns the halves of each head against each other. */
  #turned(x: Float64Array, position: number): Float64Array {
    const round = this.#round;
    const { headDim } = this.#llama.sizes;
    const half = headDim / 2;
    const result = new Float64Array(x.length);
    for (let d = 0; d < half; d++) {
      const angle = position * this.#frequencies[d];
      const cos = round(Math.cos(angle));
      const sin = round(Math.sin(angle));
      for (let at = d; at < x.length; at += headDim) {
        result[at] = round(round(x[at] * cos) - round(x[at + half] * sin));
        result[at + half] = round(round(x[at + half] * cos) + round(x[at] * sin));
      }
    }
    return result;
  }

  #attention(q: Float64Array, { keys, values }: KeptRows): Float64Array {
    const round = this.#round;
    const { heads, kvHeads, headDim } = this.#llama.sizes;
    const result = new Float64Array(q.length);
    const scale = headDim ** -0.5;
    for (let head = 0; head < heads; head++) {
      const own = head * headDim;
      const shared = Math.floor((head * kvHeads) / heads) * headDim;
      const scores = keys.map((key) => {
        let sum = 0;
        for (let d = 0; d < headDim; d++) sum = round(sum + round(q[own + d] * key[shared + d]));
        return round(sum * scale);
      });
      const most = scores.reduce((a, b) => Math.max(a, b));
      let total = 0;
      for (const [at, score] of scores.entries()) {
        const weight = round(Math.exp(score - most));
        total = round(total + weight);
        const value = values[at];
        for (let d = 0; d < headDim; d++)
          result[own + d] = round(result[own + d] + round(weight * value[shared + d]));
      }
      for (let d = 0; d < headDim; d++) result[own + d] = round(result[own + d] / total);
    }
    return result;
  }
}

/** The lowest index of the largest element. */
export function largestAt(values: ArrayLike<number>): number {
  let best = 0;
  for (let at = 1; at < values.length; at++) if (values[at] > values[best]) best = at;
  return best;
}
