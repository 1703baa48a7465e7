// Mixtures of experts: computed a group at a time, and what gpt-oss' configs may say.

import { expect, it } from "vitest";
import { Config } from "../../src/models/config.ts";
import { expertsOf } from "../../src/models/families/experts.ts";
import { familyOf } from "../../src/models/families/index.ts";
import { Model } from "../../src/models/index.ts";
import { normal } from "../../src/reference/random.ts";
import { recordProgram } from "../../src/training/index.ts";
import { checkpointOf, smallConfig, smallWeights } from "../support/checkpoints.ts";
import { expectClose } from "../support/close.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { decoderLogits } from "../support/reference_decoder.ts";

failOnGpuErrors();

it("gives the same, however many experts are computed at once", async () => {
  const device = await testDevice();
  const experts = { count: 5, chosen: 2, inner: 6, limit: 1, alpha: 1.702 };
  const x = normal(1, 2 * 3 * 4);
  // Inner rows of one expert: 2 x 6 numbers for each of 6 tokens.
  const outputs = [1, 2, 5].map(async (group) => {
    const program = await recordProgram(device, (graph) => {
      const weight = (name: string, shape: readonly number[]) => {
        const size = shape.reduce((product, one) => product * one, 1);
        return graph.constant(shape, normal(name.length, size));
      };
      const rows = graph.input("x", [2, 3, 4]);
      return { outputs: { y: expertsOf(experts, weight, "mlp", rows, group * 72) } };
    });
    await program.run({ x });
    const found = await program.outputs.y.read();
    program.destroy();
    return found as Float32Array;
  });
  const [one, two, all] = await Promise.all(outputs);
  expect(all.some((value) => Math.abs(value) > 0.1)).toBe(true);
  expectClose(one, all);
  expectClose(two, all);
});

it("takes a plain feed-forward layer of a file without a router", async () => {
  const config = smallConfig("gpt_oss", {
    num_hidden_layers: 1,
    num_local_experts: 0,
    rope_scaling: { rope_type: "default" },
    sliding_window: 4,
  });
  const all = smallWeights(config);
  const plain = smallWeights(smallConfig("llama", { num_hidden_layers: 1 }));
  const tensors = Object.fromEntries([
    ...Object.entries(all).filter(([name]) => !name.includes(".mlp.")),
    ...Object.entries(plain).filter(([name]) => name.includes(".mlp.")),
  ]);
  const model = await Model.load(await testDevice(), checkpointOf(config, tensors));
  const ids = [3, 30, 7, 1, 12, 9];
  const { logits } = await model.run({ ids: [ids] });
  expectClose(logits.data, decoderLogits(config, tensors, ids));
  model.destroy();
});

it("refuses weights in mxfp4, and has transformers' own scaling by default", () => {
  const read = (given: object) =>
    familyOf(new Config({ ...smallConfig("gpt_oss"), ...given }), new Set());
  const quantised = { quantization_config: { quant_method: "mxfp4" } };
  expect(() => read(quantised)).toThrow(
    /quantised, which are not read; save the model dequantised/,
  );
  expect(read({ rope_scaling: null }).family).toBe("gpt_oss");
});
