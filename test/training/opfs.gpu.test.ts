// Checkpoints in the browser's own file system, and a program that goes on from one.

import { expect, it } from "vitest";
import {
  crossEntropy,
  drawn,
  linearLayer,
  loadCheckpoint,
  parametersOf,
  readOpfs,
  recordProgram,
  removeOpfs,
  saveCheckpoint,
  writeOpfs,
} from "../../src/training/index.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

const PATH = "test/runs/one.safetensors";

it("keeps a checkpoint, from which a program goes on with the same bits", async () => {
  const begin = async (seed: number) =>
    recordProgram(
      await testDevice(),
      (graph) => {
        const logits = linearLayer(graph.input("x", [3, 4]), parametersOf(graph, drawn(seed)), 5);
        return { loss: crossEntropy(logits, graph.input("targets", [3], "i32")) };
      },
      { optimizer: { kind: "Adam", lr: 0.1 } },
    );
  using program = await begin(1);
  using other = await begin(2);
  const batch = { x: Array.from({ length: 12 }, (_, at) => Math.sin(at)), targets: [1, 4, 0] };
  for (let step = 0; step < 3; step++) await program.run(batch);
  await writeOpfs(PATH, await saveCheckpoint(program));
  await loadCheckpoint(other, (await readOpfs(PATH)) as Uint8Array);
  for (let step = 0; step < 3; step++) {
    const loss = await program.run(batch);
    expect(await other.run(batch)).toBe(loss);
  }
  await writeOpfs(PATH, Uint8Array.of(1, 2, 3));
  expect(await readOpfs(PATH)).toEqual(Uint8Array.of(1, 2, 3));
  await removeOpfs(PATH);
  expect(await readOpfs(PATH)).toBeUndefined();
  await removeOpfs(PATH);
});

it("refuses paths that are none", async () => {
  for (const path of ["", "/a", "a/../b", "a//b", 7 as unknown as string]) {
    await expectError(() => readOpfs(path), "argument", /^a path is names with "\/" between them/);
    await expectError(
      () => writeOpfs(path, new Uint8Array(1)),
      "argument",
      /^a path is names with "\/" between them/,
    );
  }
});
