// Names, attributes, wanted outputs, and who frees what: every operator of fovea/onnx does these
// alike.

import { describe, expect, it } from "vitest";
import { FoveaError, type Tensor, tensor } from "../../src/index.ts";
import {
  Attention,
  MultiHeadAttention,
  operators,
  RotaryEmbedding,
} from "../../src/interop/onnx/index.ts";
import { onnxOperator } from "../../src/interop/onnx/operator.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

const made: Tensor[] = [];
/** An operator that returns some of what it makes, and fails if it is told to. */
const Made = onnxOperator(
  {
    operator: "test.Made",
    opsets: [3, 5],
    inputs: ["X", "lengths?"],
    outputs: ["Y", "extra?"],
    attributes: { fail: "flag", size: "int", names: "ints", mode: "string", alpha: "float" },
  },
  async (call) => {
    const { size = 1, fail = false } = call.attributes;
    const [Y, extra, scratch] = [1, 2, 3].map(() => call.make([size]));
    made.push(Y, extra, scratch);
    call.expect(!fail, () => `opset ${call.opset} fails with ${call.integers("lengths")}`);
    return { Y, ...(call.wants("extra") && { extra }) };
  },
);

describe("an operator of fovea/onnx", () => {
  it("gives the outputs that are wanted, and frees everything else", async () => {
    const X = tensor(await testDevice(), [1]);
    for (const [outputs, kept] of [
      [undefined, 1],
      [2, 2],
      [[true, false], 1],
      [[false, true], 1],
      [0, 0],
    ] as const) {
      made.length = 0;
      const results = await Made([X], { size: 2 }, outputs === undefined ? {} : { outputs });
      expect(results).toHaveLength(2);
      const alive = made.filter((one) => !one.destroyed);
      expect(alive).toHaveLength(kept);
      expect(new Set(results.filter(Boolean))).toEqual(new Set(alive));
      for (const one of alive) one.destroy();
    }
    X.destroy();
  });

  it("frees what it made when it fails", async () => {
    const X = tensor(await testDevice(), [1]);
    made.length = 0;
    await expectError(
      () => Made([X, [4, 5]], { fail: 1 }),
      "argument",
      "test.Made: opset 5 fails with 4,5.",
    );
    expect(made).toHaveLength(3);
    for (const one of made) expect(one.destroyed).toBe(true);
    X.destroy();
  });

  it("refuses what it does not know, by name", async () => {
    const X = tensor(await testDevice(), [1]);
    const cases: [() => unknown, string][] = [
      [() => Made([]), "test.Made: input 0, X, is required."],
      [() => Made([null]), "test.Made: input 0, X, is required."],
      [
        () => Made([X, null, X]),
        "test.Made: expected a list of at most 2 inputs (X, lengths), got 3.",
      ],
      [
        () => Made(X as never),
        "test.Made: expected a list of at most 2 inputs (X, lengths), got a Tensor.",
      ],
      [
        () => Made([X, "5" as never]),
        'test.Made: lengths must be a Tensor (make one with tensor()) or a list of numbers, got "5".',
      ],
      [
        () => Made([X], { axis: 1 } as never),
        "test.Made: no attribute axis; there are: fail, size, names, mode, alpha.",
      ],
      [
        () => Made([X], { toString: 1 } as never),
        "test.Made: no attribute toString; there are: fail, size, names, mode, alpha.",
      ],
      [() => Made([X], { sizes: 1 } as never), "test.Made: no attribute sizes; did you mean size."],
      [
        () => Made([X], { Alpha: 1 } as never),
        "test.Made: no attribute Alpha; did you mean alpha.",
      ],
      [
        () => Made([X], { lengths: 1 } as never),
        "test.Made: lengths is no attribute; it is input 1.",
      ],
      [
        () => Made([X], { outputs: 1 } as never),
        "test.Made: outputs is no attribute; it goes into the third argument, { outputs }.",
      ],
      [
        () => Attention([X, X, X], { causal: true } as never),
        "ai.onnx.Attention: no attribute causal; here it is is_causal.",
      ],
      [
        () => MultiHeadAttention([X], { num_head: 1 } as never),
        "com.microsoft.MultiHeadAttention: no attribute num_head; did you mean num_heads.",
      ],
      [
        () => MultiHeadAttention([X], { is_causal: 1 } as never),
        "com.microsoft.MultiHeadAttention: no attribute is_causal; here it is unidirectional.",
      ],
      [
        () => Made([X], {}, { output: 2 } as never),
        "test.Made: there is no option output; did you mean outputs.",
      ],
      [
        () => Made([X], new Map([["size", 1]]) as never),
        "test.Made: attributes are an object { name: value }, got a Map.",
      ],
      [
        () => Made([X], { size: true } as never),
        "test.Made: attribute size must be a whole number, got true.",
      ],
      [
        () => Made([X], { size: 2n ** 64n }),
        `test.Made: attribute size must be a whole number, got ${2n ** 64n}n.`,
      ],
      [() => Made([X], { mode: 1 } as never), "test.Made: attribute mode must be a string, got 1."],
      [
        () => Made([X], { alpha: 1e39 }),
        "test.Made: attribute alpha must be a finite number (of 32 bits), got 1e+39.",
      ],
      [() => Made([X, [Number.NaN]]), "test.Made: lengths must be finite numbers, got NaN."],
      [
        () => Made([X, [2.5]], { fail: 1 }),
        "test.Made: lengths must be whole numbers of 32 bits, got 2.5.",
      ],
      [
        () => Made([X, 2n ** 31n], { fail: 1 }),
        "test.Made: lengths must be whole numbers of 32 bits, got 2147483648.",
      ],
      [
        () => Made([new Proxy(X, {})]),
        "test.Made: X must be a Tensor (make one with tensor()) or a list of numbers, got a Tensor.",
      ],
      [
        () => Made([X], {}, { outputs: ["Y"] as never }),
        'test.Made: outputs must be a number, or a flag for each, got "Y" in it.',
      ],
      [
        () => Made([[1]], {}, { device: 5 as never }),
        "test.Made: device must be a GPUDevice, got 5.",
      ],
      [
        () => Made([X], { size: 1.5 }),
        "test.Made: attribute size must be a whole number, got 1.5.",
      ],
      [() => Made([X], { fail: 2 as never }), "test.Made: attribute fail must be 0 or 1, got 2."],
      [
        () => Made([X], { names: [0.5] }),
        "test.Made: attribute names must be a list of whole numbers, got [0.5].",
      ],
      [
        () => Made([X], { alpha: Number.NaN }),
        "test.Made: attribute alpha must be a finite number (of 32 bits), got NaN.",
      ],
      [() => Made([X], {}, { opset: 2 }), "test.Made: known from opset 3 on, got opset 2."],
      [() => Made([X], {}, { outputs: 3 }), "test.Made: has 2 outputs (Y, extra), asked for 3."],
      [() => Made([[1]]), "test.Made: no input is a tensor; say which device to run on."],
      [
        () => RotaryEmbedding([[1], X, X]),
        "ai.onnx.RotaryEmbedding: X must be a Tensor, not numbers.",
      ],
      [
        () => RotaryEmbedding([X, X, X]),
        "ai.onnx.RotaryEmbedding: X must be [B, H, S, D] or [B, S, H * D], got [1].",
      ],
    ];
    for (const [work, message] of cases) await expectError(work, "argument", message);
    X.destroy();
  });

  it("takes integers as int64 has them, and copies them as it is called", async () => {
    const X = tensor(await testDevice(), [1]);
    const kinds = [
      [4, 5],
      new Int32Array([4, 5]),
      new BigInt64Array([4n, 5n]),
      [4n, 5n],
      new Uint8Array([4, 5]),
    ];
    for (const lengths of kinds) {
      const call = Made([X, lengths], {
        fail: 1n,
        size: 2n,
        names: new BigInt64Array([1n]),
        mode: null,
      });
      lengths[0] = typeof lengths[0] === "bigint" ? 9n : 9;
      await expectError(() => call, "argument", "test.Made: opset 5 fails with 4,5.");
    }
    await expectError(
      () => Made([X, 7], { fail: true }),
      "argument",
      "test.Made: opset 5 fails with 7.",
    );
    await expectError(
      () => Made([X, [true, false]], { fail: 1 }),
      "argument",
      "test.Made: opset 5 fails with 1,0.",
    );
    X.destroy();
  });

  it("answers whatever it is given with FoveaError", async () => {
    const X = tensor(await testDevice(), [2, 3, 8]);
    const cyclic: Record<string, unknown> = {};
    cyclic.self = cyclic;
    const thrower = {
      get num_heads() {
        throw new RangeError("no");
      },
    };
    const revoked = Proxy.revocable([], {});
    revoked.revoke();
    const strange = [
      5,
      "x",
      Symbol("s"),
      1n,
      () => 1,
      [],
      [[1]],
      cyclic,
      thrower,
      revoked.proxy,
      new Map(),
      new Date(Number.NaN),
    ];
    const all = [
      ...Object.values(operators["ai.onnx"]),
      ...Object.values(operators["com.microsoft"]),
    ];
    for (const operator of [...all, operators["ai.onnx.preview"].FlexAttention]) {
      const call = operator as (...given: unknown[]) => Promise<unknown>;
      for (const value of strange) {
        const heads = {
          num_heads: value,
          q_num_heads: value,
          scale: value,
          axis: value,
          score_mod: value,
        };
        for (const work of [
          () => call(value),
          () => call([X, X, X], { unknown: value }),
          () => call([X, X, X], {}, { outputs: value, opset: value, device: value }),
          () => call([value, X, X, X, X, X, value]),
          ...Object.entries(heads).map(
            ([name, one]) =>
              () =>
                call([X], { [name]: one }),
          ),
        ]) {
          const error = await work().then(
            () => undefined,
            (reason) => reason,
          );
          if (error !== undefined) expect(error).toBeInstanceOf(FoveaError);
        }
      }
    }
    X.destroy();
  });
});
