// Block masks of known kinds in kernels that look at all keys. An empty list has no block, not even
// the first, and a function is asked in partial blocks only.

import { expect, it } from "vitest";
import {
  attentionWeights,
  type BlockKind,
  blockMaskOf,
  type MaskFunction,
  maskFunction,
  tensor,
} from "../../src/index.ts";
import { attentionScores } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { expectClose } from "../support/closeness.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";

failOnGpuErrors();

/**
 * Compares the weights of a mask of four blocks of queries and three of keys with those of the
 * blocks that are `seen`.
 */
async function compare(
  kinds: readonly (readonly BlockKind[])[],
  seen: BlockKind,
  function_?: MaskFunction,
) {
  const device = await testDevice();
  const M = 200;
  const N = 192;
  const D = 8; // whole blocks of keys, because keys of a shorter block are looked at one by one
  const cpu = (rows: number, seed: number) => ({
    shape: [1, 1, rows, D],
    data: normal(seed, rows * D),
  });
  const q = cpu(M, 1);
  const k = cpu(N, 2);
  const own = function_ ? { maskFunction: function_ } : {};
  const blockMask = blockMaskOf(device, kinds.flat(), { seqQ: M, seqKv: N, ...own });
  const gpu = [q, k].map(({ shape, data }) => tensor(device, shape, { data }));
  const weights = await attentionWeights(gpu[0], gpu[1], { blockMask });
  const sees = ({ qIdx, kvIdx }: { qIdx: number; kvIdx: number }) =>
    kinds[Math.floor(qIdx / 64)][Math.floor(kvIdx / 64)] === seen;
  const scores = (precision: "f64" | "f32") =>
    attentionScores(q, k, { stage: "probabilities", maskFunction: sees, precision });
  const f64 = scores("f64");
  expect([...f64.subarray(0, 64 * N)].every((p) => p === 0)).toBe(true);
  expect(f64[64 * N + 64]).toBeGreaterThan(0);
  expectClose("weights", await weights.read(), { f64, plain: scores("f32") }, [1, 1, M, N]);
  for (const one of [...gpu, weights, blockMask]) one.destroy();
}

it("blocks that a block mask does not list weigh nothing", () =>
  compare(
    [
      ["empty", "empty", "empty"],
      ["empty", "full", "empty"],
      ["empty", "empty", "full"],
      ["full", "empty", "empty"],
    ],
    "full",
  ));

it("a function is asked in partial blocks, and not in full ones", () =>
  compare(
    [
      ["partial", "empty", "partial"],
      ["partial", "full", "empty"],
      ["empty", "partial", "full"],
      ["full", "partial", "partial"],
    ],
    "full",
    maskFunction("fn mask(at: Position) -> bool { return at.kv_idx > 1000u; }"),
  ));
