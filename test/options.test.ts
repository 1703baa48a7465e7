// The options of a call are read once, at the moment of the call, and only options that exist are
// taken.

import { describe, expect, it } from "vitest";
import { numbersOf, type OptionNames, readGiven, readOptions } from "../src/given.ts";
import { takeOptions } from "../src/options.ts";
import { expectError } from "./support/errors.ts";

interface Options {
  readonly causal?: boolean | string | null;
  readonly mask?: object;
  readonly bias?: object;
  readonly scale?: number;
  readonly window?: readonly number[] | Int32Array;
  readonly alibiSlopes?: readonly number[];
  readonly label?: string;
}
const NAMES: OptionNames<Options> = {
  causal: "any?",
  mask: "any",
  bias: "any",
  scale: "number",
  window: "any",
  alibiSlopes: "any",
  label: "string",
};
const take = (given: unknown) =>
  takeOptions("call", given as Options, NAMES) as Readonly<Record<string, unknown>>;

describe("names", () => {
  it.each([
    ["is_causal", "Did you mean causal|Here it is causal"],
    ["attn_mask", "Here it is mask or bias"],
    ["alibi", "Here it is alibiSlopes"],
    ["use_causal_mask", "Here it is causal"],
    ["softmax_scale", "Here it is scale"],
    ["sliding_window", "Here it is window"],
    ["Causal", "Did you mean causal"],
    ["alibi_slopes", "Did you mean alibiSlopes"],
    ["casual", "Did you mean causal"],
    ["scael", "Did you mean scale"],
    ["windw", "Did you mean window"],
    ["return_attn_probs", "attentionWeights\\(\\) gives probabilities"],
    ["enable_gqa", "groups without an option"],
    ["nothing_like_it", "Options: causal, mask, bias, scale, window, alibiSlopes, label"],
  ])("%s is refused: %s", async (name, advice) => {
    await expectError(
      () => take({ [name]: true }),
      "argument",
      new RegExp(`^call: there is no option "${name}"\\. .*(${advice})`),
    );
  });

  it("are refused whatever the value, but for none at all", async () => {
    await expectError(() => take({ nonsense: null }), "argument", /no option "nonsense"/);
    await expectError(() => take({ nonsense: undefined }), "argument", /no option "nonsense"/);
    await expectError(
      () => take(Object.create({ nonsense: 1 })),
      "argument",
      /no option "nonsense"/,
    );
    expect(take({})).toEqual({});
    expect(take(undefined)).toEqual({});
    expect(take(null)).toEqual({});
  });

  it("of objects' own prototype are not options", async () => {
    for (const name of ["constructor", "toString", "__proto__", "hasOwnProperty"]) {
      const given = JSON.parse(`{ "${name}": 1 }`);
      await expectError(() => take(given), "argument", new RegExp(`no option "${name}"`));
    }
  });

  it("come before the label of the call, and after its name", async () => {
    await expectError(
      () => take({ label: "mine", nonsense: 1 }),
      "argument",
      /^mine: there is no option/,
    );
    await expectError(
      () => readOptions("call", { nonsense: 1 } as Options, NAMES),
      "argument",
      /^call: there is no option/,
    );
  });
});

describe("values", () => {
  it("are copied, so that later changes change nothing", () => {
    const window = [1, 2];
    const mask = { shape: [3, 4] };
    const given = { window, mask };
    const taken = take(given);
    window[0] = 9;
    mask.shape.push(5);
    given.window = [7, 7];
    expect(taken).toEqual({ window: [1, 2], mask: { shape: [3, 4] } });
  });

  it("are read once", () => {
    let reads = 0;
    const given = {
      get scale() {
        reads++;
        return reads;
      },
    };
    expect(take(given)).toEqual({ scale: 1 });
    expect(reads).toBe(1);
  });

  it("of null are as none if the type has null", () => {
    expect(take({ causal: null, scale: undefined, mask: null })).toEqual({ mask: null });
    expect(take({ mask: { offset: null, shape: undefined } })).toEqual({ mask: { offset: null } });
  });

  it("of typed arrays of every kind become lists of numbers", () => {
    const kinds = [
      Int8Array,
      Uint8Array,
      Int16Array,
      Uint16Array,
      Int32Array,
      Uint32Array,
      Float32Array,
      Float64Array,
    ];
    for (const Kind of kinds) expect(take({ window: Kind.of(7, 20) })).toEqual({ window: [7, 20] });
    expect(take({ window: BigInt64Array.of(7n, -1n) })).toEqual({ window: [7, -1] });
    expect(take({ mask: { shape: Uint32Array.of(2, 3) }, scale: 3n })).toEqual({
      mask: { shape: [2, 3] },
      scale: 3,
    });
    expect(numbersOf(BigUint64Array.of(5n))).toEqual([5]);
    expect(numbersOf("text")).toBe("text");
  });

  it("of instances stay what they are", () => {
    const instance = new Map();
    expect(take({ mask: instance }).mask).toBe(instance);
  });
});

describe("hostile values", () => {
  const cyclic: Record<string, unknown> = {};
  cyclic.self = cyclic;
  const list: unknown[] = [];
  list.push(list);
  const thrower = () => {
    throw new TypeError("no");
  };
  it.each<[what: string, given: unknown, message: RegExp]>([
    ["a number", 5, /^call: options are an object \{ name: value \}, got 5\.$/],
    ["a list", [1], /got \[1\]\.$/],
    ["a symbol", Symbol("s"), /got Symbol\(s\)\.$/],
    ["a function", () => 1, /got a JavaScript function\.$/],
    ["an object that holds itself", { mask: cyclic }, /nested too deeply, or holds itself/],
    ["a list that holds itself", { mask: list }, /nested too deeply, or holds itself/],
    ["a symbol in place of a value", { scale: Symbol("s") }, /scale cannot be Symbol\(s\)/],
    ["a function in place of a value", { mask: { valueOf: thrower } }, /valueOf cannot be a JavaScript function/],
    ["a BigInt beyond numbers", { scale: 2n ** 80n }, /scale cannot be 1208925819614629174706176n/],
    ["a getter that throws", { get scale() { return thrower(); } }, /cannot be read: it throws an error/],
    ["a proxy that throws", new Proxy({}, { ownKeys: thrower }), /cannot be read/],
    ["an instance that can't be shown", { mask: new (class { toString = thrower; })() }, /cannot be read/],
    ["a sparse list beyond all memory", { window: new Array(2 ** 32 - 1) }, /window is too long/],
    ["a label that isn't a string", { label: 7 }, /label must be a string, got 7/],
    ["a string for a number", { scale: "1" }, /scale must be a number, got "1"/],
    ["a list for a number", { scale: [] }, /scale must be a number, got \[\]/],
    ["null for a number", { scale: null }, /scale must be a number, got null/],
    ["a boolean for a number", { scale: true }, /scale must be a number, got true/],
  ])("%s", async (_, given, message) => {
    await expectError(() => take(given), "argument", message);
  }); // biome-ignore format: a table

  it("of any other object without a prototype are data", () => {
    const bare = Object.assign(Object.create(null), { scale: 2 });
    expect(readGiven("call", bare as Options, NAMES).options).toEqual({ scale: 2 });
  });
});
