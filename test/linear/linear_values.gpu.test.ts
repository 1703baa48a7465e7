// The kernels of linear attention against the float64 reference. Cases vary in what needs no other
// kernel.

import { describe, expect, it } from "vitest";
import { linearAttention, type Tensor, tensor } from "../../src/index.ts";
import { normal } from "../../src/reference/random.ts";
import { failOnGpuErrors, overridden, testDevice } from "../support/device.ts";
import { type LinearCase, runLinearCase } from "../support/linear.ts";

failOnGpuErrors();

const title = (problem: object) =>
  JSON.stringify(problem).replace(/["{}]/g, "").replaceAll(",", " ");
const run = (
  shared: Omit<LinearCase, "N">,
  cases: readonly (Partial<LinearCase> & { readonly N: number })[],
) =>
  it.each(cases.map((one) => [title(one), { ...shared, ...one }] as const))(
    "%s",
    async (_, problem) => {
      await runLinearCase(await testDevice(), problem);
    },
  );

describe("all keys for every query", () => {
  run({ D: 16, keeps: "present" }, [
    { N: 1, M: 1 },
    { N: 17, M: 33, H: 4, Hkv: 2, Hk: 1, B: 2 },
    { N: 255, M: 31 },
    { N: 257, M: 32, past: true, layout: "bmhd", H: 2 },
    { N: 600, M: 65, maxDispatchFlops: 1, past: true, B: 2 },
    { N: 0, M: 3, past: true },
    { N: 0, M: 3 },
    { N: 5, M: 0 },
  ]);
  run({ D: 16, B: 3, M: 40, kvLengths: [300, 0, 77], keyMask: { keep: 0.5 }, poison: true }, [
    { N: 300 },
    { N: 300, onGpu: true, keyMask: { keep: 0.5, shared: true }, planned: true },
  ]);
});

describe("causal, in chunks", () => {
  run({ D: 16, causal: true, variant: "chunked", keeps: "present" }, [
    { N: 1 },
    { N: 31, past: true },
    { N: 32, B: 2, H: 4, Hkv: 2, Hk: 1 },
    { N: 65, past: true, layout: "bmhd", H: 2 },
    { N: 200, maxDispatchFlops: 1, keeps: "place", past: true },
    { N: 0, past: true },
  ]);
  run(
    { D: 40, Dv: 72, updateRule: "gated", H: 2, variant: "chunked", keeps: "present", past: true },
    [
      { N: 97 },
      { N: 97, decaySpread: 0.001 },
      { N: 131, decaySpread: 30 },
      { N: 100, forget: 0.1 },
    ],
  );
  // Tokens past the end of an entry neither are written nor make what came before them decay.
  const lengths = { kvLengths: [70, 40, 0], poison: true } as const;
  run(
    {
      D: 16,
      B: 3,
      updateRule: "gated",
      variant: "chunked",
      keeps: "present",
      past: true,
      ...lengths,
    },
    [{ N: 70 }],
  );
});

describe("with the tiles for GPUs, in chunks of 64", () => {
  const shared = { D: 16, causal: true, keeps: "present", past: true, H: 2 } as const;
  it.each<LinearCase>([
    { N: 130, ...shared, updateRule: "gated", normalized: true, featureMap: "elu" },
    {
      N: 64,
      ...shared,
      updateRule: "gated",
      normalized: true,
      featureMap: "elu",
      decaySpread: 30,
      forget: 0.05,
    },
    { N: 70, M: 129, ...shared, causal: false },
  ])("$N", async (problem) => {
    const device = await testDevice();
    const { vendor, architecture, description } = device.adapterInfo;
    // Without a choice, a software adapter gets smaller tiles, which it compiles sooner.
    await runLinearCase(
      overridden(device, { adapterInfo: { vendor, architecture, description } }),
      problem,
    );
  });
});

describe("causal, token by token", () => {
  run({ D: 16, causal: true, variant: "recurrent", keeps: "place", past: true }, [
    { N: 8 },
    { N: 17, B: 2, H: 2, Hk: 1 },
    { N: 50, maxDispatchFlops: 5e3, keeps: "present", past: false },
  ]);
  run({ D: 16, causal: true, keeps: "place", past: true }, [{ N: 1, B: 2, H: 3 }, { N: 7 }]);
  run(
    {
      D: 72,
      Dv: 5,
      updateRule: "gated_delta",
      rowDecay: true,
      H: 4,
      Hkv: 2,
      keeps: "present",
      past: true,
    },
    [{ N: 33 }, { N: 33, sharedBeta: true, forget: 0.1, layout: "bmhd" }],
  );
  run(
    {
      D: 16,
      updateRule: "delta",
      H: 1,
      Hkv: 2,
      keyMask: { keep: 0.6 },
      poison: true,
      keeps: "present",
    },
    [{ N: 40, B: 2 }],
  );
});

describe("16 bits", () => {
  run(
    {
      D: 16,
      causal: true,
      variant: "chunked",
      dtype: ["f16", "bf16", "f16", "f32", "bf16"],
      keeps: "present",
    },
    [{ N: 70, H: 2 }],
  );
  run({ D: 5, Dv: 3, updateRule: "gated_delta", dtype: "f16", keeps: "present" }, [{ N: 3, H: 2 }]);
});

describe("linear attention", () => {
  const inputs = async (N: number) => {
    const device = await testDevice();
    const put = (seed: number) => tensor(device, [1, 2, N, 16], { data: normal(seed, 2 * N * 16) });
    return [put(1), put(2), put(3)] as const;
  };
  const destroy = (...tensors: (Tensor | undefined)[]) => {
    for (const one of tensors) one?.destroy();
  };

  it("gives the same bits for the same inputs", async () => {
    const [q, k, v] = await inputs(200);
    const results = [];
    for (let turn = 0; turn < 2; turn++) {
      const { output } = await linearAttention(q, k, v, { causal: true });
      results.push(await output.read());
      output.destroy();
    }
    expect(results[0]).toEqual(results[1]);
    destroy(q, k, v);
  });

  it("in two parts, the state handed on, is as in one, to rounding", async () => {
    const [q, k, v] = await inputs(200);
    const whole = await linearAttention(q, k, v, { causal: true });
    const part = (from: number, to: number) =>
      [q, k, v].map((one) => one.slice(2, from, to)) as [Tensor, Tensor, Tensor];
    const first = await linearAttention(...part(0, 90), { causal: true, presentState: true });
    const second = await linearAttention(...part(90, 200), {
      causal: true,
      pastState: first.presentState as Tensor,
      pastNormalizer: first.presentNormalizer as Tensor,
    });
    for (const [result, from, to] of [
      [first, 0, 90],
      [second, 90, 200],
    ] as const) {
      const values = await result.output.read();
      const expected = await whole.output.slice(2, from, to).read();
      const worst = Math.max(...Array.from(values, (x, i) => Math.abs(x - expected[i])));
      expect(worst).toBeLessThan(1e-5);
    }
    destroy(
      q,
      k,
      v,
      whole.output,
      first.output,
      first.presentState,
      first.presentNormalizer,
      second.output,
    );
  });

  it.each([
    ["recurrent", true],
    ["recurrent", false],
    ["chunked", true],
    ["chunked", false],
  ] as const)(
    "shows a NaN of q, k or decay wherever it counts, %s, normalized %s",
    async (variant, normalized) => {
      const device = await testDevice();
      const N = 40;
      const H = 2;
      const D = 16;
      const run = async (what: "q" | "k" | "decay") => {
        const put = (name: string, seed: number, width: number) => {
          const data = normal(seed, H * N * width).map((x) =>
            name === "decay" ? -Math.abs(x) / 8 : x,
          );
          if (name === what) data[17 * width] = Number.NaN; // token 17 of the first head
          return tensor(device, [1, H, N, width], { data });
        };
        const q = put("q", 1, D);
        const k = put("k", 2, D);
        const v = put("v", 3, D);
        const decay = put("decay", 4, 1);
        const options = {
          updateRule: "gated",
          featureMap: "elu",
          normalized,
          decay,
          variant,
        } as const;
        const { output } = await linearAttention(q, k, v, options);
        const values = await output.read();
        destroy(q, k, v, decay, output);
        return Array.from({ length: H * N }, (_, row) =>
          values.slice(row * D, (row + 1) * D).every(Number.isNaN),
        );
      };
      const rows = Array.from({ length: H * N }, (_, row) => row);
      expect(await run("q")).toEqual(rows.map((row) => row === 17));
      expect(await run("k")).toEqual(rows.map((row) => row >= 17 && row < N));
      expect(await run("decay")).toEqual(rows.map((row) => row >= 17 && row < N));
    },
  );

  it("of equal values is that value, and does not mind the order of the keys", async () => {
    const [q, k, v] = await inputs(150);
    const device = q.device;
    const threes = tensor(device, [1, 2, 150, 16], {
      data: new Float32Array(2 * 150 * 16).fill(3),
    });
    const equal = await linearAttention(q, k, threes);
    for (const value of await equal.output.read()) expect(value).toBeCloseTo(3, 4);
    const turned = (one: Tensor, values: ArrayLike<number>) => {
      const back = Array.from({ length: 2 * 150 * 16 }, (_, i) => {
        const h = Math.floor(i / (150 * 16));
        const n = Math.floor(i / 16) % 150;
        const d = i % 16;
        return values[(h * 150 + 149 - n) * 16 + d];
      });
      return tensor(device, one.shape, { data: back });
    };
    const kBack = turned(k, await k.read());
    const vBack = turned(v, await v.read());
    const ahead = await linearAttention(q, k, v);
    const back = await linearAttention(q, kBack, vBack);
    const expected = await ahead.output.read();
    const worst = Math.max(
      ...Array.from(await back.output.read(), (x, i) => Math.abs(x - expected[i])),
    );
    expect(worst).toBeLessThan(1e-5);
    destroy(q, k, v, threes, kBack, vBack, equal.output, ahead.output, back.output);
  });
});
