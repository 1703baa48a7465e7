// Operations of rows promise more than their numbers: what they compile and allocate, and that
// results repeat.

import { describe, expect, it } from "vitest";
import {
  addBias,
  copyTensor,
  gatedPositionBias,
  gelu,
  layerNorm,
  logSoftmax,
  rmsNorm,
  softmax,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import { normal } from "../../src/reference/random.ts";
import { counted } from "../support/counted.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";

failOnGpuErrors();

type Operation = (x: Tensor, row: Tensor, output?: Tensor) => Promise<{ readonly output: Tensor }>;
const into = (output: Tensor | undefined) => (output ? { output } : {});

/** The operations, each with one tensor of rows, and one row. */
const OPERATIONS: Readonly<Record<string, Operation>> = {
  softmax: (x, _, output) => softmax(x, into(output)),
  logSoftmax: (x, _, output) => logSoftmax(x, into(output)),
  layerNorm: (x, weight, output) => layerNorm(x, { weight, ...into(output) }),
  rmsNorm: (x, weight, output) => rmsNorm(x, { weight, ...into(output) }),
  gelu: (x, bias, output) => gelu(x, { bias, ...into(output) }),
  copyTensor: (x, _, output) => copyTensor(x, into(output)),
  addBias: (x, bias, output) => addBias(x, bias, into(output)),
};

describe.each(Object.entries(OPERATIONS))("%s", (_, operation) => {
  it("compiles nothing for other lengths and strides, gives the same bits, and leaves nothing behind", async () => {
    const { device, count, buffers } = counted(await testDevice());
    const put = (seed: number, shape: readonly number[], strides?: readonly number[]) => {
      const size = shape.reduce((a, b) => a * b, 1);
      return tensor(device, shape, { data: normal(seed, size), ...(strides && { strides }) });
    };
    const x = put(1, [3, 12]);
    const row = put(2, [12]);
    const first = (await operation(x, row)).output;
    const compiled = { pipelines: count.pipelines, modules: count.modules };
    const again = (await operation(x, row)).output;
    expect(await again.read()).toEqual(await first.read());
    const other = put(1, [7, 2, 40], [200, 80, 1]);
    const wide = put(2, [40]);
    const third = (await operation(other, wide)).output;
    expect({ pipelines: count.pipelines, modules: count.modules }).toEqual(compiled);
    const made = [x, row, first, again, other, wide, third];
    expect(buffers()).toBe(made.length);
    await expect(operation(x, row, put(3, [2, 12]))).rejects.toThrow("[2, 12]");
    await expect(operation(x, row, x)).rejects.toThrow("GPUBuffer");
    expect(buffers()).toBe(made.length + 1);
    for (const one of made) one.destroy();
    expect(buffers()).toBe(1);
  });
});

describe("gates of a position bias", () => {
  it("that are NaN make the biases of their query NaN", async () => {
    const device = await testDevice();
    const put = (data: number[]) => tensor(device, [1, 1, data.length, 1], { data });
    const update = put([Number.NaN, 0, 0, -1e30]);
    const reset = put([0, Number.NaN, 0, 1e30]);
    const { output } = await gatedPositionBias(put([1, 1, 1, Number.NaN]), {
      update,
      reset,
      scale: put([1]),
    });
    expect([...(await output.read())]).toEqual([Number.NaN, Number.NaN, 1.75, Number.NaN]);
  });
});
