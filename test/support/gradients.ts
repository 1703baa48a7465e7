// What tests of gradients share: tensors on the GPU and for the reference, results that are
// poisoned, and the comparison of all gradients with float64.

import { type Tensor, tensor } from "../../src/index.ts";
import type { ReferenceTensor } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { type Float, product, ROUND } from "./cases.ts";
import { expectClose } from "./closeness.ts";

/** A tensor on the GPU, and what it holds. */
export interface Both {
  readonly gpu: Tensor;
  readonly cpu: ReferenceTensor & { readonly data: Float32Array };
}

export interface Made {
  readonly dtype?: Float;
  /** Standard deviation, and what is added to every element. */
  readonly spread?: number;
  readonly mean?: number;
  /** Elements that lie between rows of the last axis in memory. Default: the tensor is dense. */
  readonly gap?: number;
  /** The order of the axes in memory. Default: the last one is fastest. */
  readonly order?: readonly number[];
}

/** Tensors of a test, which are destroyed together. */
export class GradientTensors {
  readonly #device: GPUDevice;
  readonly #used: Tensor[] = [];

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** A tensor of normal numbers. */
  make(seed: number, shape: readonly number[], { mean = 0, spread = 1, ...more }: Made = {}): Both {
    const round = ROUND[more.dtype ?? "f32"];
    const data = normal(seed, product(shape)).map((value) => round(value * spread + mean));
    return this.of(data, shape, more);
  }

  /** A tensor of given numbers. */
  of(data: Float32Array, shape: readonly number[], made: Made = {}): Both {
    const gpu = tensor(this.#device, shape, { ...layoutOf(shape, made), data });
    this.#used.push(gpu);
    return { gpu, cpu: { data, shape } };
  }

  /** A tensor for a result. It holds NaN. */
  poisoned(shape: readonly number[], made: Made = {}): Tensor {
    return this.of(new Float32Array(product(shape)).fill(Number.NaN), shape, made).gpu;
  }

  destroy(): void {
    for (const one of this.#used) one.destroy();
  }
}

function layoutOf(
  shape: readonly number[],
  { dtype = "f32", gap = 0, order = shape.map((_, axis) => axis) }: Made,
) {
  const strides = shape.map(() => 0);
  let step = 1;
  for (const [place, axis] of [...order].reverse().entries()) {
    strides[axis] = step;
    step *= Math.max(1, shape[axis]);
    if (place === 0) step += gap;
  }
  return { dtype, strides };
}

type Numbers = Readonly<Record<string, ArrayLike<number>>>;

/** Compares each gradient with float64, and with what f32 costs on the same numbers. */
export async function expectGradientsClose(
  results: Readonly<Record<string, Tensor | undefined>>,
  f64: Numbers,
  plain: Numbers,
): Promise<void> {
  for (const [name, result] of Object.entries(results)) {
    if (!result) continue;
    const dtype = result.dtype as Float;
    const reference = { f64: f64[name], plain: Float64Array.from(plain[name], ROUND[dtype]) };
    expectClose(name, await result.read(), reference, result.shape, dtype);
  }
}
