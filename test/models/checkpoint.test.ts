// Files of checkpoints: where they come from, shards, and what is wrong with some.

import { describe, expect, it } from "vitest";
import { openCheckpoint } from "../../src/models/checkpoint.ts";
import { Config } from "../../src/models/config.ts";
import { familyOf } from "../../src/models/families/index.ts";
import { bytesSource, fileSource, urlSource } from "../../src/models/index.ts";
import { checkpointOf, filesOf, smallConfig, smallWeights } from "../support/checkpoints.ts";
import { expectError } from "../support/errors.ts";

const config = smallConfig("llama", { num_hidden_layers: 1 });
const tensors = smallWeights(config);
const files = filesOf(config, tensors);
const names = Object.keys(tensors);
const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));

/** The same in two files and an index. */
function sharded() {
  const [first, second] = [names.slice(0, 4), names.slice(4)].map((some) =>
    Object.fromEntries(some.map((name) => [name, tensors[name]])),
  );
  const shard = (part: typeof tensors) => filesOf(config, part)["model.safetensors"];
  const map = Object.fromEntries(
    names.map((name) => [name, name in first ? "one.safetensors" : "two.safetensors"]),
  );
  return {
    "config.json": files["config.json"],
    "model.safetensors.index.json": json({ metadata: {}, weight_map: map }),
    "one.safetensors": shard(first),
    "two.safetensors": shard(second),
  };
}

describe("a checkpoint", () => {
  it("is found in one file, in shards, in files of a visitor", async () => {
    const blobs = Object.entries(files).map(([name, bytes]) => {
      return new File([bytes as Uint8Array<ArrayBuffer>], name);
    });
    for (const source of [bytesSource(files), bytesSource(sharded()), fileSource(blobs)]) {
      const found = await openCheckpoint(source);
      expect(found.config).toEqual(config);
      expect([...found.tensors.keys()].sort()).toEqual([...names].sort());
      const stored = await found.tensors.get("model.norm.weight")?.read();
      const { buffer } = stored?.bytes.slice() ?? new Uint8Array();
      expect(Array.from(new Float32Array(buffer))).toEqual(
        Array.from(tensors["model.norm.weight"].data as Float32Array),
      );
    }
  });

  it.each<[string, Record<string, Uint8Array>, RegExp]>([
    ["without a config", { "model.safetensors": files["model.safetensors"] }, /no config\.json/],
    ["without weights", { "config.json": files["config.json"] }, /neither model\.safetensors nor/],
    ["with a config that is no JSON", { ...files, "config.json": json("x").slice(1) }, /no JSON/],
    [
      "whose file is cut",
      { ...files, "model.safetensors": files["model.safetensors"].slice(0, -4) },
      /data_offsets|belong to no tensor/,
    ],
    ["whose file is empty", { ...files, "model.safetensors": new Uint8Array(0) }, /0 bytes are no/],
    [
      "without a shard",
      Object.fromEntries(Object.entries(sharded()).filter(([name]) => !name.startsWith("two"))),
      /names two\.safetensors, which is not there/,
    ],
    [
      "whose index names another folder",
      { ...sharded(), "model.safetensors.index.json": json({ weight_map: { a: "../x" } }) },
      /weight_map must tell a file of the folder/,
    ],
    [
      "whose index forgets a tensor",
      {
        ...sharded(),
        "model.safetensors.index.json": json({ weight_map: { [names[0]]: "one.safetensors" } }),
      },
      /one\.safetensors has .*, which model\.safetensors\.index\.json does not know/,
    ],
    [
      "whose index tells too much",
      {
        ...sharded(),
        "model.safetensors.index.json": json({
          weight_map: { ...Object.fromEntries(names.map((n) => [n, "one.safetensors"])) },
        }),
      },
      /there is no .*, which model\.safetensors\.index\.json says is in it/,
    ],
  ])("%s is refused", async (_, given, message) => {
    await expectError(() => openCheckpoint(bytesSource(given)), "file", message);
  });
});

describe("an address", () => {
  const answer = (status: number, body: Uint8Array | null, range?: string) =>
    new Response(body as Uint8Array<ArrayBuffer> | null, {
      status,
      headers: range ? { "Content-Range": range } : {},
    });
  const asked: string[] = [];
  const fetchOf =
    (isRanged: boolean, failures = 0): typeof fetch =>
    async (input, init) => {
      if (failures-- > 0) return answer(503, null);
      const name = String(input).replace("https://host/model/", "");
      const bytes = (files as Record<string, Uint8Array>)[name];
      if (!bytes) return answer(404, null);
      const range = new Headers(init?.headers).get("Range") as string;
      asked.push(range);
      const [begin, end] = range.replace("bytes=", "").split("-").map(Number);
      return isRanged
        ? answer(206, bytes.slice(begin, end + 1), `bytes ${begin}-${end}/${bytes.length}`)
        : answer(200, bytes);
    };

  it.each([true, false])("is read in parts if the server has ranges: %s", async (isRanged) => {
    const source = urlSource("https://host/model", { fetch: fetchOf(isRanged, 2) });
    const { tensors: found } = await openCheckpoint(source);
    asked.length = 0;
    const read = await found.get(names[1])?.read();
    expect(read?.bytes.length).toBe(found.get(names[1])?.bytes);
    expect(asked.length).toBe(isRanged ? 1 : 0);
  });

  it("that fails is told after some attempts, and an aborted one with its reason", async () => {
    const failing = urlSource("https://host/model", { fetch: fetchOf(true, 9), retries: 1 });
    await expectError(() => openCheckpoint(failing), "file", /the server answers 503/);
    const broken = urlSource("https://host/model", {
      retries: 0,
      fetch: async () => {
        throw new TypeError("no network");
      },
    });
    await expectError(() => openCheckpoint(broken), "file", /cannot be fetched/);
    const signal = AbortSignal.abort(new Error("enough"));
    const aborted = urlSource("https://host/model", { fetch: fetchOf(true), signal });
    await expect(openCheckpoint(aborted)).rejects.toThrow("enough");
  });
});

describe("a config", () => {
  const read = (given: object) => familyOf(new Config(given), new Set(names));

  it.each<[string, object, RegExp]>([
    ["of another family", { model_type: "mamba" }, /model_type is "mamba"; families are gpt2/],
    ["of no family", {}, /model_type must be a text/],
    [
      "with an option that it does not know",
      { ...config, alibi: true },
      /"alibi" is an option that/,
    ],
    ["that is quantised", { ...config, quantization_config: {} }, /save the model dequantised/],
    ["without a size", { ...config, hidden_size: undefined }, /hidden_size must be a whole number/],
    [
      "with an activation of its own",
      { ...config, hidden_act: "mish" },
      /hidden_act must be one of/,
    ],
    [
      "with a scaling of its own",
      { ...config, rope_scaling: { type: "pi" } },
      /type must be one of/,
    ],
    [
      "with an unknown option of a scaling",
      { ...config, rope_scaling: { rope_type: "linear", factor: 2, odd: 1 } },
      /rope_scaling: "odd" is an option/,
    ],
    [
      "that looks ahead",
      {
        ...config,
        model_type: "gpt2",
        n_embd: 8,
        n_head: 2,
        n_layer: 1,
        n_positions: 8,
        add_cross_attention: true,
      },
      /add_cross_attention is true; only false is/,
    ],
    ["that is a list", [], /a config is an object/],
  ])("%s is refused", (_, given, message) => {
    expect(() => read(given)).toThrow(message);
  });

  it("may say what changes nothing", () => {
    const more = { torch_dtype: "float32", use_cache: true, architectures: ["X"], eos_token_id: 2 };
    expect(read({ ...config, ...more }).family).toBe("llama");
  });
});

it("files in memory are bytes", () => {
  const wrong = { "config.json": "text" } as unknown as Record<string, Uint8Array>;
  expect(() => bytesSource(wrong)).toThrow(/a file is a Uint8Array or an ArrayBuffer, got "text"/);
  expect(checkpointOf(config, tensors).label).toBe("a small model");
});
