// What the functions around programs say to arguments of another kind: a FoveaError each.

import { expect, it } from "vitest";
import { FoveaError } from "../../src/index.ts";
import * as training from "../../src/training/index.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { HOSTILE } from "../support/hostile_values.ts";

failOnGpuErrors();

const define = (graph: training.Graph) => {
  const weight = graph.parameter("weight", [1, 4], new Float32Array(4).fill(1));
  return { loss: training.linear(graph.input("x", [1, 4]), weight).reshape(1) };
};
const optimizer = { kind: "SGD", lr: 0.1 } as const;

const OPERATIONS = { ...training } as unknown as Readonly<
  Record<string, (...args: unknown[]) => unknown>
>;

it("refuse what they cannot use", async () => {
  const device = await testDevice();
  using program = await training.recordProgram(device, define, { optimizer });
  const x = new Float32Array(4).fill(1);
  await program.run({ x });
  const checkpoint = await training.saveCheckpoint(program);
  const parameters = await training.saveParameters(program);
  const session = await training.Training.start(device, define, { optimizer });
  const calls: readonly (readonly [
    name: string,
    call: (...args: unknown[]) => unknown,
    args: readonly unknown[],
  ])[] = [
    ["recordProgram", OPERATIONS.recordProgram, [device, define, { optimizer }]],
    ["checkGradients", OPERATIONS.checkGradients, [program, { x }, {}]],
    ["saveCheckpoint", OPERATIONS.saveCheckpoint, [program]],
    ["loadCheckpoint", OPERATIONS.loadCheckpoint, [program, checkpoint]],
    ["saveParameters", OPERATIONS.saveParameters, [program, {}]],
    ["loadParameters", OPERATIONS.loadParameters, [program, parameters, {}]],
    ["fromSafetensors", OPERATIONS.fromSafetensors, [parameters]],
    ["run", (...args) => program.run(...(args as [never])), [{ x }, {}]],
    ["write", (...args) => program.write(...(args as [never])), [{ x }]],
    ["findNotFinite", (...args) => program.findNotFinite(...(args as [never])), [{ x }]],
    [
      "Training.start",
      (...args) => training.Training.start(...(args as [never, never, never])),
      [device, define, { optimizer }],
    ],
    ["Training.run", (...args) => session.run(...(args as [never])), [{ x }]],
    ["resume", (...args) => session.resume(...(args as [never])), [device]],
  ];
  const wrong: string[] = [];
  for (const [name, call, args] of calls) {
    for (const [at] of args.entries()) {
      for (const [what, value] of HOSTILE) {
        const given = args.map((one, index) => (index === at ? value : one));
        const where = `${name}, argument ${at}: ${what}`;
        try {
          const made = await call(...given);
          if (made && typeof made === "object" && "destroy" in made)
            (made as { destroy(): void }).destroy();
          // As options of all functions, null means none.
          if (what !== "null") wrong.push(`${where}: taken`);
        } catch (error) {
          if (!(error instanceof FoveaError)) wrong.push(`${where}: ${error}`);
        }
      }
    }
  }
  session.destroy();
  expect(wrong).toEqual([]);
});
