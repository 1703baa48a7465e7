// Seeded inputs of ONNX operators, on the CPU as they are stored, and on the GPU.

import { type Dtype, type Tensor, tensor } from "../../src/index.ts";
import { normal } from "../../src/reference/random.ts";
import { type Float, product, ROUND } from "./cases.ts";

/** An input: what the reference takes, and the tensor. */
export interface Input {
  readonly data: ArrayLike<number>;
  readonly shape: readonly number[];
  readonly gpu: Tensor;
}

/** Makes inputs and keeps what has to be destroyed. */
export class Inputs {
  readonly device: GPUDevice;
  readonly dtype: Float;
  readonly #made = new Set<Tensor>();
  #seed: number;

  constructor(
    device: GPUDevice,
    { dtype = "f32", seed = 1 }: { dtype?: Float; seed?: number } = {},
  ) {
    this.device = device;
    this.dtype = dtype;
    this.#seed = 1000 * seed;
  }

  /** Makes an input of normal numbers, rounded as they are stored. */
  random(shape: readonly number[], deviation = 1): Input {
    const data = normal(this.#seed++, product(shape), deviation).map(ROUND[this.dtype]);
    return this.given(shape, data, this.dtype);
  }

  /** Makes an input of these numbers. */
  given(shape: readonly number[], data: ArrayLike<number>, dtype: Dtype): Input {
    return {
      data,
      shape,
      gpu: this.keep(tensor(this.device, shape, { data: Array.from(data), dtype })),
    };
  }

  /** Keeps a tensor to be destroyed with the rest. */
  keep<T extends Tensor | undefined>(made: T): T {
    if (made) this.#made.add(made);
    return made;
  }

  destroy(): void {
    for (const made of this.#made) made.destroy();
  }
}

/** Brings rows [B, S, H * D] into the reference's heads [B, H, S, D]. */
export function headsOf(
  { data, shape }: Pick<Input, "data" | "shape">,
  heads: number,
  first = 0,
  headDim?: number,
) {
  const [B, S, width] = shape;
  const D = headDim ?? width / heads;
  return { data, shape: [B, heads, S, D], strides: [S * width, D, width, 1], offset: first };
}

/** Brings heads [B, H, S, D] into rows [B, S, H * D]. */
export function rowsOf(data: ArrayLike<number>, [B, H, S, D]: readonly number[]): Float64Array {
  const rows = new Float64Array(B * H * S * D);
  for (let i = 0; i < rows.length; i++) {
    const d = i % D;
    const s = Math.floor(i / D) % S;
    const h = Math.floor(i / (D * S)) % H;
    const b = Math.floor(i / (D * S * H));
    rows[((b * S + s) * H + h) * D + d] = data[i];
  }
  return rows;
}
