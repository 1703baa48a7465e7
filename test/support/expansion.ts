// Loops marked `// unroll`: a kernel means the same whether they are expanded or not.

import { expect } from "vitest";
import { assemblePlan } from "../../src/attention/assemble.ts";
import { tensor } from "../../src/index.ts";
import {
  forwardGrid,
  forwardKernel,
  forwardModules,
  forwardRoot,
} from "../../src/kernels/forward.ts";
import { chooseForwardTile } from "../../src/kernels/forward_tiles.ts";
import type { SlotChoice } from "../../src/kernels/slots.ts";
import { normal } from "../../src/reference/random.ts";
import { link } from "../../src/shader/link.ts";
import { product } from "./cases.ts";
import { testDevice } from "./device.ts";

/** Expects the same bits of a row of the tile table, for q, k and v of a shape [B, H, N, D]. */
export async function expectSameUnrolled(variant: string, shape: readonly number[]): Promise<void> {
  const device = await testDevice();
  const make = (seed: number) => tensor(device, shape, { data: normal(seed, product(shape)) });
  const q = make(1);
  const k = make(2);
  const v = make(3);
  const output = make(4);
  const lse = tensor(device, shape.slice(0, 3));
  const results = [];
  for (const unroll of [true, false]) {
    const problem = { q, k, v, output, lse, causal: true };
    const { plan } = await assemblePlan(device, problem, ({ headDim, vDim, seqQ }) => {
      const limits = { workgroupBytes: 16384, software: true, subgroups: true };
      const tile = chooseForwardTile({ headDim, vDim, seqQ, variant }, limits);
      const stagesOf = async (slots: SlotChoice) => {
        const spec = { headDim, vDim, tile, ...slots };
        const text = link(forwardRoot(tile), await forwardModules(spec), { unroll });
        return [
          {
            source: { ...(await forwardKernel(spec)), ...text },
            grid: forwardGrid(tile, headDim, vDim, seqQ),
          },
        ];
      };
      return { stagesOf };
    });
    const encoder = device.createCommandEncoder();
    plan.encode(encoder);
    device.queue.submit([encoder.finish()]);
    results.push([await output.read(), await lse.read()]);
    plan.destroy();
  }
  expect(results[1]).toEqual(results[0]);
}
