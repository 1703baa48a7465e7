// Files from anywhere: well-formed files are read, and all others get one clear error.

import { describe, expect, it } from "vitest";
import { readNpy, writeNpy } from "../../bench/npy.ts";
import { readSafetensors, writeSafetensors } from "../../src/files/safetensors.ts";
import { expectError } from "../support/errors.ts";

const safetensors = (
  header: unknown,
  data: ArrayLike<number> = [],
  claimed?: bigint,
): Uint8Array => {
  const json = new TextEncoder().encode(
    typeof header === "string" ? header : JSON.stringify(header),
  );
  const bytes = new Uint8Array(8 + json.length + data.length);
  new DataView(bytes.buffer).setBigUint64(0, claimed ?? BigInt(json.length), true);
  bytes.set(json, 8);
  bytes.set(data, 8 + json.length);
  return bytes;
};
const bytesOf = (values: ArrayBufferView) =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

describe("safetensors", () => {
  it("come back as they were written", () => {
    const data = Float32Array.of(1, -2, 3.5, 4, 5, 6);
    const read = readSafetensors(
      "f",
      writeSafetensors({
        q: { shape: [2, 3], data },
        lse: { shape: [1], data: Float32Array.of(7) },
      }),
    );
    expect([...read.keys()]).toEqual(["q", "lse"]);
    expect(read.get("q")).toEqual({ shape: [2, 3], dtype: "F32", data });
    expect(read.get("lse")?.data).toEqual(Float32Array.of(7));
  });
  it("are read in every float dtype, at any offset, beside metadata and tensors of other dtypes", () => {
    const data = [255, 0x80, 0x3f, 0, 0x3c, ...bytesOf(Float64Array.of(-0.25))];
    const read = readSafetensors(
      "f",
      safetensors(
        {
          __metadata__: { format: "pt" },
          mask: { dtype: "BOOL", shape: [1], data_offsets: [0, 1] },
          ids: { dtype: "I64", shape: [2, 0], data_offsets: [13, 13] },
          later: { dtype: "F3_OF_2031", shape: [7], data_offsets: [13, 13] },
          b: { dtype: "BF16", shape: [1], data_offsets: [1, 3] },
          h: { dtype: "F16", shape: [1, 1], data_offsets: [3, 5] },
          d: { dtype: "F64", shape: [], data_offsets: [5, 13] },
        },
        data,
      ),
    );
    expect(["b", "h", "d"].map((name) => read.get(name)?.data[0])).toEqual([1, 1, -0.25]);
  });

  it("are read if they are empty, however large their other sizes", () => {
    const shape = [...new Array<number>(30).fill(2 ** 50), 0];
    const read = readSafetensors(
      "f",
      safetensors({ q: { dtype: "F32", shape, data_offsets: [0, 0] } }),
    );
    expect(read.get("q")).toEqual({ shape, dtype: "F32", data: new Float32Array(0) });
  });

  const entry = (change: object) => ({
    q: { dtype: "F32", shape: [2], data_offsets: [0, 8], ...change },
  });
  const BAD: readonly [what: string, file: Uint8Array, message: string | RegExp][] = [
    [
      "an empty file",
      new Uint8Array(0),
      "f: 0 bytes are no safetensors file; it starts with 8 bytes of header length.",
    ],
    [
      "a header longer than the file",
      safetensors({}, [], 99n),
      "f: the header claims 99 bytes; the file has 2 after its first 8. Is it a safetensors file?",
    ],
    [
      "a header of 2^63 bytes",
      safetensors({}, [], 2n ** 63n),
      /^f: the header claims 9223372036854775808 bytes/,
    ],
    ["a header that isn't JSON", safetensors("{q:"), /^f: the header is no JSON: /],
    [
      "a header that isn't UTF-8",
      safetensors("{}", [], 2n).fill(0xff, 8),
      /^f: the header is no JSON: /,
    ],
    ["a header that is a list", safetensors([1]), "f: the header is no JSON object."],
    ["an entry that is null", safetensors({ q: null }), "f: q has no dtype."],
    [
      "integers that are asked for",
      safetensors(entry({ dtype: "I32" }), new Uint8Array(8)),
      "f: q is I32; what is read are F64, F32, F16, BF16.",
    ],
    [
      "a dtype from the prototype",
      safetensors(entry({ dtype: "constructor" }), new Uint8Array(8)),
      /^f: q is constructor/,
    ],
    [
      "a dtype that isn't text",
      safetensors(entry({ dtype: ["F32"] }), new Uint8Array(8)),
      "f: q has no dtype.",
    ],
    [
      "a float64 that f32 can't hold",
      safetensors(entry({ dtype: "F64", shape: [1] }), bytesOf(Float64Array.of(1e300))),
      "f: q: element 0 is 1e+300, which f32 can't hold.",
    ],
    [
      "an unused tensor of another size than it says",
      safetensors(entry({ dtype: "I64" }), new Uint8Array(8)),
      "f: q: shape [2] of I64 takes 16 bytes; the file has 8 for it.",
    ],
    [
      "a shape nested 100,000 deep",
      safetensors(
        `{"q":{"dtype":"F32","shape":${"[".repeat(1e5)}${"]".repeat(1e5)},"data_offsets":[0,0]}}`,
      ),
      "f: the header nests brackets more than 3 deep.",
    ],
    [
      "a name that stands twice, written in two ways",
      safetensors(
        `{"q":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"\\u0071":{"dtype":"F32","shape":[0],"data_offsets":[8,8]}}`,
        new Uint8Array(8),
      ),
      'f: the header has "\\u0071" twice.',
    ],
    [
      "an offset that stands twice",
      safetensors(
        `{"q":{"dtype":"F32","shape":[0],"data_offsets":[0,0], "data_offsets" : [8,8]}}`,
        new Uint8Array(8),
      ),
      'f: the header has "data_offsets" twice.',
    ],
    [
      "tensors that share bytes",
      safetensors(
        { ...entry({}), k: { dtype: "F32", shape: [1], data_offsets: [4, 8] } },
        new Uint8Array(8),
      ),
      "f: q and k overlap in the file.",
    ],
    [
      "tensors that share all their bytes",
      safetensors({ ...entry({}), k: entry({}).q }, new Uint8Array(8)),
      "f: q and k overlap in the file.",
    ],
    [
      "bytes before the first tensor",
      safetensors(entry({ data_offsets: [4, 12] }), new Uint8Array(12)),
      "f: bytes 0 to 4 of the data belong to no tensor.",
    ],
    [
      "bytes after the last tensor",
      safetensors(entry({}), new Uint8Array(9)),
      "f: bytes 8 to 9 of the data belong to no tensor.",
    ],
    [
      "metadata that isn't text",
      safetensors({ __metadata__: { a: 1 } }),
      /^f: __metadata__ must be an object of strings/,
    ],
    [
      "metadata that is nothing",
      safetensors({ __metadata__: null }),
      /^f: __metadata__ must be an object of strings/,
    ],
    ["a byte order mark", safetensors("\ufeff{}"), /^f: the header is no JSON: /],
    ["a header after a space", safetensors(" {}"), "f: the header must begin with {."],
    ["a header of nothing", safetensors(""), /^f: the header is no JSON: /],
    [
      "a header of more than 16 MiB",
      safetensors(`{}${" ".repeat(2 ** 24)}`),
      /^f: the header has 16777218 bytes/,
    ],
    [
      "half an offset",
      safetensors(entry({ data_offsets: [0, 7.5] }), new Uint8Array(8)),
      /data_offsets \[0, 7.5\]/,
    ],
    [
      "an infinite offset",
      safetensors('{"q":{"dtype":"F32","shape":[],"data_offsets":[0,1e999]}}'),
      /data_offsets/,
    ],
    [
      "a null in a shape",
      safetensors(entry({ shape: [null] }), new Uint8Array(8)),
      /a shape is a list of whole numbers/,
    ],
    [
      "a name with escape sequences",
      safetensors({ "\u001b[2Jq\u0007": { dtype: "F32", shape: [-1], data_offsets: [0, 0] } }),
      'f: "\\u001b[2Jq\\u0007": a shape is a list of whole numbers, got [-1].',
    ],
    [
      "a dtype with escape sequences",
      safetensors(entry({ dtype: "\u001b[2J" }), new Uint8Array(8)),
      'f: q is "\\u001b[2J"; what is read are F64, F32, F16, BF16.',
    ],
    [
      "a negative size",
      safetensors(entry({ shape: [-2] }), new Uint8Array(8)),
      "f: q: a shape is a list of whole numbers, got [-2].",
    ],
    [
      "a size that is text",
      safetensors(entry({ shape: "2" }), new Uint8Array(8)),
      'f: q: a shape is a list of whole numbers, got "2".',
    ],
    [
      "offsets past the end",
      safetensors(entry({ data_offsets: [0, 80] }), new Uint8Array(8)),
      "f: q: data_offsets [0, 80] are not inside the file's 8 bytes of data.",
    ],
    [
      "offsets backwards",
      safetensors(entry({ data_offsets: [8, 0] }), new Uint8Array(8)),
      /data_offsets \[8, 0\]/,
    ],
    [
      "one offset",
      safetensors(entry({ data_offsets: [0] }), new Uint8Array(8)),
      /data_offsets \[0\]/,
    ],
    [
      "a shape that does not fit",
      safetensors(entry({ shape: [3] }), new Uint8Array(8)),
      "f: q: shape [3] of F32 takes 12 bytes; the file has 8 for it.",
    ],
    [
      "a shape of 2^100 elements",
      safetensors(entry({ shape: [2 ** 50, 2 ** 50] }), new Uint8Array(8)),
      /^f: q: shape \[1125899906842624, 1125899906842624\] has more elements than can be counted\.$/,
    ],
  ];
  it.each(BAD)("refuse %s", async (_, file, message) => {
    await expectError(() => readSafetensors("f", file).get("q")?.data, "file", message);
  });
});

/** Makes a version 1 file with this header, and data behind it. */
const npy = (header: string, data: ArrayLike<number> = [], version = 1): Uint8Array => {
  const text = new TextEncoder().encode(header);
  const start = version === 1 ? 10 : 12;
  const bytes = new Uint8Array(start + text.length + data.length);
  bytes.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, version, 0]);
  if (version === 1) new DataView(bytes.buffer).setUint16(8, text.length, true);
  else new DataView(bytes.buffer).setUint32(8, text.length, true);
  bytes.set(text, start);
  bytes.set(data, start + text.length);
  return bytes;
};
const describeArray = (descr: string, shape: string, fortran = "False") =>
  `{'descr': '${descr}', 'fortran_order': ${fortran}, 'shape': ${shape}, }\n`;

describe("npy", () => {
  it("come back as they were written", () => {
    const data = Float32Array.of(1, -2, 3.5, 4, 5, 6);
    expect(readNpy("f", writeNpy(data, [1, 2, 3]))).toEqual({
      shape: [1, 2, 3],
      dtype: "F32",
      data,
    });
  });
  it("are read in every float dtype and version, with headers of any length", () => {
    expect(
      readNpy("f", npy(describeArray("<f8", "(2,)"), bytesOf(Float64Array.of(1, -0.25)))).data,
    ).toEqual(Float32Array.of(1, -0.25));
    expect(readNpy("f", npy(describeArray("<f2", "(2,)"), [0, 0x3c, 0, 0xc0], 2)).data).toEqual(
      Float32Array.of(1, -2),
    );
    expect(readNpy("f", npy(describeArray("<f4", "()"), bytesOf(Float32Array.of(9)), 3))).toEqual({
      shape: [],
      dtype: "F32",
      data: Float32Array.of(9),
    });
    expect(readNpy("f", npy(describeArray("<f4", "(0, 3)"))).data).toHaveLength(0);
  });
  it("are read whatever the order, the quotes and the spaces of their headers, and with Python 2's long numbers", () => {
    const data = bytesOf(Float32Array.of(1, 2));
    for (const header of [
      "{'shape': (2L, 1), 'fortran_order': False, 'descr': '<f4'}",
      `{ "descr" :"<f4","shape": ( 2 , 1 ,) ,'fortran_order':True , }${" ".repeat(500)}\n`,
    ])
      expect(readNpy("f", npy(header, data))).toEqual({
        shape: [2, 1],
        dtype: "F32",
        data: Float32Array.of(1, 2),
      });
  });
  it("are turned from column-major to row-major", () => {
    const columns = bytesOf(Float32Array.of(1, 4, 2, 5, 3, 6));
    expect(readNpy("f", npy(describeArray("<f4", "(2, 3)", "True"), columns)).data).toEqual(
      Float32Array.of(1, 2, 3, 4, 5, 6),
    );
  });

  const BAD: readonly [what: string, file: Uint8Array, message: string | RegExp][] = [
    ["an empty file", new Uint8Array(0), "f: this is no .npy file."],
    [
      "another file",
      new TextEncoder().encode("PK\x03\x04 an archive of arrays"),
      /^f: this is no \.npy file but an archive/,
    ],
    [
      "a header longer than the file",
      npy("").fill(0xff, 8, 10).slice(0, 12),
      /^f: this is no|the header claims/,
    ],
    [
      "a cut header",
      npy(describeArray("<f4", "(2,)")).slice(0, 30),
      /^f: the header claims 58 bytes; the file has 20\.$/,
    ],
    [
      "a header without dtype",
      npy("{'shape': (1,)}"),
      `f: the header has no dtype: "{'shape': (1,)}".`,
    ],
    [
      "integers",
      npy(describeArray("<i8", "(1,)"), new Uint8Array(8)),
      "f: the array is <i8; attention takes <f8, <f4, <f2.",
    ],
    [
      "big-endian floats",
      npy(describeArray(">f4", "(1,)"), new Uint8Array(4)),
      "f: the array is >f4; attention takes <f8, <f4, <f2.",
    ],
    ["objects", npy(describeArray("|O", "(1,)"), new Uint8Array(8)), /^f: the array is \|O/],
    [
      "a dtype from the prototype",
      npy(describeArray("toString", "(1,)")),
      /^f: the array is toString/,
    ],
    [
      "a negative size",
      npy(describeArray("<f4", "(-1,)")),
      "f: a shape is a list of whole numbers, got (-1,).",
    ],
    [
      "a size that isn't a number",
      npy(describeArray("<f4", "(x,)")),
      "f: a shape is a list of whole numbers, got (x,).",
    ],
    [
      "a size of many digits",
      npy(describeArray("<f4", `(${"9".repeat(400)},)`)),
      /^f: a shape is a list of whole/,
    ],
    [
      "a shape of 2^100 elements",
      npy(describeArray("<f4", "(1125899906842624, 1125899906842624)")),
      /counted\.$/,
    ],
    [
      "a shape of 65 axes",
      npy(describeArray("<f4", `(${"1,".repeat(65)})`)),
      "f: 65 axes are more than NumPy's 64.",
    ],
    [
      "a shape with a gap",
      npy(describeArray("<f4", "(1,,2)")),
      /^f: a shape is a list of whole numbers, got \(1,,2\)/,
    ],
    [
      "a version of the future",
      npy(describeArray("<f4", "()"), [], 4),
      /^f: version 4\.0 is unknown/,
    ],
    ["version 0", npy(describeArray("<f4", "()"), [], 0), /^f: version 0\.0 is unknown/],
    [
      "a header that claims 4 GiB",
      npy("{}", [], 2).fill(0xff, 8, 12),
      /^f: the header claims 4294967295 bytes/,
    ],
    [
      "a header of 64 KiB",
      npy(" ".repeat(65536), [], 2),
      "f: the header has 65536 bytes; headers up to 65535 are read.",
    ],
    [
      "a record dtype",
      npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}"),
      /^f: the header is not/,
    ],
    [
      "a header without order",
      npy("{'descr': '<f4', 'shape': (1,)}"),
      /must have descr, fortran_order and shape/,
    ],
    [
      "an order that is 1",
      npy(describeArray("<f4", "(1,)", "1")),
      /^f: the header is not that of a plain array/,
    ],
    [
      "an unknown entry",
      npy("{'descr': '<f4', 'fortran_order': False, 'shape': (), 'x': ''}"),
      /and nothing else/,
    ],
    [
      "an entry that stands twice",
      npy("{'descr': '<f4', 'descr': '<f4', 'shape': ()}"),
      /^f: the header is not that/,
    ],
    [
      "text behind the header's dict",
      npy(`${describeArray("<f4", "()")} {}`),
      /^f: the header is not that/,
    ],
    [
      "a header with escape sequences",
      npy("{'descr': '\u001b[2J', 'fortran_order': False, 'shape': ()}"),
      'f: the array is "\\u001b[2J"; attention takes <f8, <f4, <f2.',
    ],
    [
      "too little data",
      npy(describeArray("<f4", "(2,)"), new Uint8Array(4)),
      "f: shape [2] of F32 takes 8 bytes; the file has 4 for it.",
    ],
    [
      "too much data",
      npy(describeArray("<f4", "(1,)"), new Uint8Array(8)),
      "f: shape [1] of F32 takes 4 bytes; the file has 8 for it.",
    ],
  ];
  it.each(BAD)("refuse %s", async (_, file, message) => {
    await expectError(() => readNpy("f", file), "file", message);
  });
});
