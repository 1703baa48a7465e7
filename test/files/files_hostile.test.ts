// Files by chance and by malice: whatever their bytes, they are read, or refused by one FoveaError,
// in time and memory that grow with the length of the file only.

import fc from "fast-check";
import { parse } from "npyjs";
import { describe, expect, it } from "vitest";
import { readNpy, writeNpy } from "../../bench/npy.ts";
import { FoveaError } from "../../src/errors.ts";
import { readSafetensors, writeSafetensors } from "../../src/files/safetensors.ts";
import type { FileTensor } from "../../src/files/tensors.ts";

const RUNS = { numRuns: 400 };

/** Reads everything that the file has. */
const readAll = (file: Uint8Array): FileTensor[] =>
  [...readSafetensors("f", file).values()].map(({ shape, dtype, data }) => ({
    shape,
    dtype,
    data,
  }));

/**
 * Returns what was read, or nothing if the file was refused as files are, by a message without
 * control characters.
 */
function readOrRefused<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    expect(error).toBeInstanceOf(FoveaError);
    expect((error as FoveaError).code).toBe("file");
    expect((error as FoveaError).message).not.toMatch(/\p{Cc}/u);
    expect((error as FoveaError).message.length).toBeLessThan(600);
    return undefined;
  }
}

/** Changes to a file: bytes that become others, an end that is cut off, bytes that are put in. */
const changes = fc.array(
  fc.oneof(
    fc.record({ kind: fc.constant("set" as const), at: fc.nat(), value: fc.nat(255) }),
    fc.record({ kind: fc.constant("cut" as const), at: fc.nat(), value: fc.nat(255) }),
    fc.record({ kind: fc.constant("insert" as const), at: fc.nat(), value: fc.nat(255) }),
  ),
  { minLength: 1, maxLength: 4 },
);
/** Most changes fall into the header, where there is most to get wrong. */
function changed(
  file: Uint8Array,
  list: Iterable<{ kind: string; at: number; value: number }>,
  header: number,
) {
  let bytes = [...file];
  for (const { kind, at, value } of list) {
    const place = at % (at % 4 ? Math.min(header, bytes.length) : bytes.length + 1);
    if (kind === "set") bytes[place] = value;
    else if (kind === "cut") bytes = bytes.slice(0, place);
    else bytes.splice(place, 0, value);
  }
  return Uint8Array.from(bytes);
}

const shapes = fc.array(fc.nat(3), { maxLength: 4 });
const elements = (shape: readonly number[]) => shape.reduce((product, size) => product * size, 1);
const someFloats = (shape: readonly number[]) =>
  fc.array(fc.float({ noNaN: true }), { minLength: elements(shape), maxLength: elements(shape) });
const tensors = shapes.chain((shape) =>
  someFloats(shape).map((values) => ({ shape, data: Float32Array.from(values) })),
);

describe("safetensors", () => {
  it("are what was written, whatever the names", () => {
    const files = fc.dictionary(fc.string({ unit: "binary" }), tensors, { noNullPrototype: true });
    fc.assert(
      fc.property(files, (written) => {
        delete (written as Record<string, unknown>).__metadata__;
        const read = readSafetensors("f", writeSafetensors(written));
        expect(new Set(read.keys())).toEqual(new Set(Object.keys(written)));
        for (const [name, { shape, data }] of Object.entries(written)) {
          expect([read.get(name)?.shape, read.get(name)?.data]).toEqual([shape, data]);
        }
      }),
      RUNS,
    );
  });

  it("have names with quotes, backslashes and brackets", () => {
    const names = ['a"', "a\\", 'a\\"', '":[[[["', '{"a":[{"a":', "a\u2028]}"];
    for (const name of names) {
      const written = {
        [name]: { shape: [1], data: Float32Array.of(7) },
        a: { shape: [], data: Float32Array.of(8) },
      };
      const read = readSafetensors("f", writeSafetensors(written));
      expect([...read.keys()]).toEqual([name, "a"]);
    }
  });

  it("that were changed are read or refused", () => {
    const q = { shape: [2, 3], data: Float32Array.from({ length: 6 }, (_, i) => i) };
    const good = writeSafetensors({ q, k: q, "a.b": { shape: [], data: Float32Array.of(7) } });
    fc.assert(
      fc.property(changes, (list) => {
        const file = changed(good, list, 200);
        const bytes =
          readOrRefused(() => readAll(file))?.reduce((sum, { data }) => sum + data.byteLength, 0) ??
          0;
        expect(bytes).toBeLessThanOrEqual(2 * file.length);
      }),
      RUNS,
    );
  });

  it("with any entries at all are read or refused", () => {
    const value = fc.oneof(
      fc.jsonValue(),
      fc.constantFrom("F32", "I64", "BF16", "__proto__", 2 ** 53, -1, 0.5, [8, 0]),
    );
    const entry = fc.record(
      {
        dtype: fc.oneof(fc.constantFrom("F32", "F64", "U8", "constructor"), value),
        shape: fc.oneof(fc.array(fc.oneof(fc.nat(3), fc.constantFrom(2 ** 52, 2 ** 53))), value),
        data_offsets: fc.oneof(fc.tuple(fc.nat(16), fc.nat(16)), value),
        __proto__: value,
      },
      { requiredKeys: [] },
    );
    const names = fc.oneof(
      fc.constantFrom("q", "__proto__", "__metadata__", "\u001b[2J"),
      fc.string(),
    );
    const headers = fc.oneof(
      fc.dictionary(names, fc.oneof({ weight: 3, arbitrary: entry }, value)),
      value,
    );
    fc.assert(
      fc.property(headers, fc.nat(24), (header, length) => {
        const json = new TextEncoder().encode(JSON.stringify(header));
        const file = new Uint8Array(8 + json.length + length);
        new DataView(file.buffer).setBigUint64(0, BigInt(json.length), true);
        file.set(json, 8);
        readOrRefused(() => readAll(file));
      }),
      RUNS,
    );
  });

  /** Makes a file with this header, in front of so many zeros. */
  const withHeader = (header: string, length = 0) => {
    const json = new TextEncoder().encode(header);
    const file = new Uint8Array(8 + json.length + length);
    new DataView(file.buffer).setBigUint64(0, BigInt(json.length), true);
    file.set(json, 8);
    return file;
  };
  const entries = (count: number, offsets: (index: number) => string) =>
    `{${Array.from({ length: count }, (_, i) => `"${i}":{"dtype":"U8","shape":[0],"data_offsets":${offsets(i)}}`)}}`;
  it.each([
    [
      "names over the same bytes",
      withHeader(
        entries(40, () => "[0,8388608]"),
        8388608,
      ),
    ],
    [
      "names over nested bytes",
      withHeader(
        entries(20_000, (i) => `[${i},40000]`),
        40_000,
      ),
    ],
    ["brackets that open", withHeader("[".repeat(2 ** 24))],
    ["objects that open", withHeader('{"a":'.repeat(3_000_000))],
    ["names of nothing", withHeader(`{${Array.from({ length: 500_000 }, (_, i) => `"${i}":{}`)}}`)],
    ["quotes", withHeader(`{${'"'.repeat(2 ** 22)}`)],
    ["backslashes", withHeader(`{"${"\\".repeat(2 ** 22)}`)],
    ["spaces between a name and no colon", withHeader(`{${'"a" '.repeat(2 ** 20)}`)],
    [
      "a shape of a million ones",
      withHeader(`{"q":{"dtype":"F32","shape":[1${",1".repeat(1e6)}],"data_offsets":[0,5]}}`, 5),
    ],
  ])("refuse %s at once", (_, file) => {
    const begin = performance.now();
    expect(readOrRefused(() => readAll(file))).toBeUndefined();
    // files of this kind used to take quadratic time or all memory, not seconds
    expect(performance.now() - begin).toBeLessThan(5000);
  });
});

describe("npy", () => {
  const good = writeNpy(
    Float32Array.from({ length: 6 }, (_, i) => i),
    [2, 3],
  );

  it("are what was written, and what another reader finds", () => {
    fc.assert(
      fc.property(tensors, ({ shape, data }) => {
        const file = writeNpy(data, shape);
        expect(readNpy("f", file)).toEqual({ shape, dtype: "F32", data });
        expect(parse(file.slice().buffer)).toMatchObject({ shape, data });
      }),
      RUNS,
    );
  });

  it("that were changed are read or refused", () => {
    fc.assert(
      fc.property(changes, (list) => {
        const file = changed(good, list, 80);
        const read = readOrRefused(() => readNpy("f", file));
        expect(read?.data.byteLength ?? 0).toBeLessThanOrEqual(2 * file.length);
      }),
      RUNS,
    );
  });

  const named = fc.constantFrom("'descr'", "'fortran_order'", "'shape'", '"shape"', "'x'", "shape");
  const valued = fc.constantFrom(
    "'<f4'",
    "'<f8'",
    "'|O'",
    "True",
    "False",
    "None",
    "(1,)",
    "(2, 1)",
    "()",
    "(1e3)",
    "((1,),)",
    "[1]",
  );
  it("with any entries at all are read or refused", () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(named, valued), { maxLength: 4 }),
        fc.string(),
        fc.nat(9),
        (list, end, length) => {
          const header = new TextEncoder().encode(`{${list.map((pair) => pair.join(": "))}}${end}`);
          const file = new Uint8Array([
            0x93,
            0x4e,
            0x55,
            0x4d,
            0x50,
            0x59,
            1,
            0,
            header.length & 255,
            header.length >> 8,
          ]);
          readOrRefused(() =>
            readNpy("f", Uint8Array.from([...file, ...header, ...new Uint8Array(length)])),
          );
        },
      ),
      RUNS,
    );
  });

  it.each([
    ["spaces", " ".repeat(60_000)],
    ["spaces in a dict", `{${" ".repeat(60_000)}`],
    ["a dict of one-letter entries", `{${"'a': ''".concat(" ".repeat(40)).repeat(1000)}`],
    ["quotes", `{'descr': '${"x".repeat(60_000)}`],
    ["a tuple without an end", `{'shape': (${"1,".repeat(30_000)}`],
    [
      "a tuple of ones",
      `{'descr': '<f4', 'fortran_order': True, 'shape': (${"1,".repeat(30_000)})}`,
    ],
  ])("refuse %s at once", (_, header) => {
    const text = new TextEncoder().encode(header);
    const file = Uint8Array.from([
      ...good.subarray(0, 6),
      1,
      0,
      text.length & 255,
      text.length >> 8,
      ...text,
    ]);
    const begin = performance.now();
    expect(readOrRefused(() => readNpy("f", file))).toBeUndefined();
    expect(performance.now() - begin).toBeLessThan(2000);
  });
});
