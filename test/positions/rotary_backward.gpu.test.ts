// The gradient of a rotary embedding against the float64 reference.

import { describe, expect, it } from "vitest";
import { type RotaryBackwardOptions, rotaryBackward, tensor } from "../../src/index.ts";
import {
  type ReferenceRotaryOptions,
  rotaryBackward as reference,
} from "../../src/reference/index.ts";
import type { Float } from "../support/cases.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import { expectGradientsClose, GradientTensors, type Made } from "../support/gradients.ts";

failOnGpuErrors();

interface Case {
  readonly shape: readonly number[];
  /** Options that the kernel and the reference call the same. */
  readonly options?: Pick<
    RotaryBackwardOptions,
    "rotaryDim" | "interleaved" | "base" | "scaling" | "conjugate" | "sectionLayout"
  > & { readonly sections?: readonly [number, number, number] };
  readonly dtype?: Float;
  readonly made?: Made;
  readonly inPlace?: boolean;
  readonly positionIds?: readonly number[];
  readonly positionOffset?: number;
}

async function run({ shape, options = {}, dtype = "f32", made, inPlace = false, ...at }: Case) {
  const tensors = new GradientTensors(await testDevice());
  const dOutput = tensors.make(1, shape, { dtype, ...made });
  const into = inPlace ? {} : { dX: tensors.poisoned(shape, { dtype }) };
  const { dX } = await rotaryBackward(dOutput.gpu, { ...options, ...at, inPlace, ...into });
  expect(dX === (inPlace ? dOutput.gpu : into.dX)).toBe(true);
  const [batch, , rows] = shape;
  const { positionIds, positionOffset = 0 } = at;
  const cpu = {
    ...options,
    position: (stream: number, entry: number, row: number) =>
      positionIds?.[(stream * batch + entry) * rows + row] ?? row + positionOffset,
  } as ReferenceRotaryOptions;
  const f64 = reference(dOutput.cpu, cpu);
  const plain = reference(dOutput.cpu, { ...cpu, precision: "f32" });
  await expectGradientsClose({ dX }, { dX: f64 }, { dX: plain });
  tensors.destroy();
}
const all = async (...cases: readonly Case[]) => {
  for (const one of cases) await run(one);
};

describe("rotaryBackward", () => {
  it("turns half pairs back, into another tensor and in place, at any magnitude", () =>
    all(
      { shape: [2, 3, 5, 16], positionOffset: 100 },
      { shape: [2, 3, 5, 16], made: { spread: 1e20 } },
      { shape: [2, 3, 5, 16], made: { spread: 1e-20 }, inPlace: true },
      { shape: [0, 3, 5, 16] },
    ));
  it("turns neighbours and a part of the channels, in 16 bits", () =>
    all(
      { shape: [1, 2, 3, 12], options: { interleaved: true, rotaryDim: 8 }, dtype: "bf16" },
      { shape: [1, 2, 3, 12], options: { rotaryDim: 8, conjugate: true }, made: { gap: 3 } },
    ));
  it("by the positions, sections and factor of the forward call", () =>
    all({
      shape: [2, 2, 3, 16],
      options: {
        sections: [4, 2, 2],
        scaling: { type: "yarn", factor: 4, originalMaxPositions: 64 },
      },
      positionIds: Array.from({ length: 18 }, (_, index) => (index * 7) % 40),
    }));

  it("takes cos and sin of the caller's", async () => {
    const tensors = new GradientTensors(await testDevice());
    const dOutput = tensors.make(1, [1, 2, 3, 8]);
    const cos = tensors.make(2, [3, 4]);
    const sin = tensors.make(3, [3, 4]);
    const { dX } = await rotaryBackward(dOutput.gpu, { cos: cos.gpu, sin: sin.gpu });
    const options = { cos: cos.cpu, sin: sin.cpu };
    const f64 = reference(dOutput.cpu, options);
    const plain = reference(dOutput.cpu, { ...options, precision: "f32" });
    await expectGradientsClose({ dX }, { dX: f64 }, { dX: plain });
    dX.destroy();
    tensors.destroy();
  });

  it("refuses what is wrong, by the names that it has", async () => {
    const device = await testDevice();
    const x = tensor(device, [1, 2, 3, 8]);
    await expectError(
      () => rotaryBackward(x, { dX: x }),
      "overlap",
      "rotaryBackward: dX is dOutput itself; { inPlace: true } writes the result there.",
    );
    await expectError(
      () => rotaryBackward(x, { dX: tensor(device, [1, 2, 3, 4]) }),
      "argument",
      "rotaryBackward: dX must be [1, 2, 3, 8] like dOutput, got [1, 2, 3, 4].",
    );
    x.destroy();
  });
});
