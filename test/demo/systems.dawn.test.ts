// The small systems, headless: what they learn in a few steps, that a run may stop and go on, what
// they say, and what pictures show.

import { afterAll, describe, expect, it } from "vitest";
import { svgOf } from "../../bench/svg.ts";
import { SYSTEMS } from "../../demo/systems/index.ts";
import { type Progress, train } from "../../demo/systems/loop.ts";
import { batchOf, shuffled } from "../../demo/systems/order.ts";
import { lossPlot, picturePlot } from "../../demo/systems/pictures.ts";
import type { Session, System } from "../../demo/systems/system.ts";
import { idsOf, loadDates, pieceOf } from "../../demo/systems/translation/data.ts";
import { MOST_BEAMS, makeDecoder } from "../../demo/systems/translation/decode.ts";
import { translator } from "../../demo/systems/translation/model.ts";
import { drawn, parametersOf, recordProgram } from "../../src/training/index.ts";
import { breadth } from "../support/breadth.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";

failOnGpuErrors();

const named = (name: string) => SYSTEMS.find((system) => system.name === name) as System;
const sessions: Session[] = [];
const begin = async (system: System, checkpoint?: Uint8Array) => {
  const session = await system.start(await testDevice(), { seed: 1, checkpoint });
  sessions.push(session);
  return session;
};
afterAll(() => {
  for (const session of sessions) session.destroy();
});

/** Runs a loop to its end. */
async function learned(session: Session, steps: number, every = steps): Promise<Progress[]> {
  const told: Progress[] = [];
  for await (const one of train(session, { every }, { steps })) told.push(one);
  return told;
}

describe("the loop", () => {
  it("tells all losses in order, measures, pauses, and goes on with the same bits", async () => {
    const system = named("attention_model");
    const whole = await begin(system);
    const told = await learned(whole, 100, 30);
    expect(told.map(({ step }) => step)).toEqual(Array.from({ length: 100 }, (_, at) => at + 1));
    const measured = told.filter(({ metrics }) => metrics).map(({ step }) => step);
    expect(measured).toEqual([30, 60, 90, 100]);
    expect(told[99].loss).toBeLessThan(told[0].loss - 0.2);
    const half = await begin(system);
    const first: Progress[] = [];
    let isPaused = false;
    const settings = { steps: 100, every: 30, isPaused: () => isPaused };
    for await (const one of train(half, system, settings)) {
      first.push(one);
      isPaused ||= one.step === 40;
    }
    expect(half.training.step).toBeLessThan(50);
    const other = await begin(system, await half.training.save());
    const second = await learned(other, 100, 30);
    expect([...first, ...second].map(({ loss }) => loss)).toEqual(told.map(({ loss }) => loss));
  });

  it("gives each epoch all examples once, in an order of its own", () => {
    const epoch = (first: number) =>
      [0, 1, 2].flatMap((at) => batchOf(first + at, 13, 4, 7)).sort((a, b) => a - b);
    expect(new Set(epoch(0)).size).toBe(12);
    expect(batchOf(0, 13, 4, 7)).not.toEqual(batchOf(3, 13, 4, 7));
    expect(batchOf(1, 13, 4, 7)).toEqual(batchOf(1, 13, 4, 7));
    expect(shuffled(50, 3).sort((a, b) => a - b)).toEqual(
      Array.from({ length: 50 }, (_, at) => at),
    );
  });
});

describe("systems", () => {
  const few: readonly [string, number][] = [
    ["attention_model_literal", 100],
    ...breadth<[string, number]>(
      ["encoder_classifier", 40],
      ["text_classifier", 30],
      ["translation", 30],
      ["gpt", 30],
      ["vit", 40],
    ),
  ];
  it.each(few)(
    "%s learns in %d steps, answers, and shows where it looks",
    async (name, steps) => {
      const session = await begin(named(name));
      const { loss: before } = await session.evaluate();
      const told = await learned(session, steps);
      const { metrics } = told[told.length - 1];
      expect(metrics?.loss).toBeLessThan(before);
      const { text, pictures } = await session.answer();
      expect(text).not.toBe("");
      expect(pictures.length).toBeGreaterThan(0);
      for (const picture of pictures) {
        for (const row of picture.weights) expect(row.every(Number.isFinite)).toBe(true);
        const svg = svgOf((canvas) => picturePlot(picture, canvas));
        expect(svg).toMatch(/^<svg .*<rect .*<\/svg>\n$/s);
        // Probabilities of words add up to 1 but in the literal form, whose weights are scores.
        if (picture.kind !== "map" || name === "attention_model_literal" || name === "gpt")
          continue;
        for (const row of picture.weights)
          expect(row.reduce((sum, weight) => sum + weight, 0)).toBeCloseTo(1, 4);
      }
      expect(svgOf((canvas) => lossPlot(told, canvas))).toMatch(/^<svg .*<path .*<\/svg>\n$/s);
    },
    300_000,
  );
});

describe("decoding", () => {
  it("gives what the translator gives under teacher forcing, and a beam that is no worse", async () => {
    const device = await testDevice();
    const sizes = { sourceVocab: 9, targetVocab: 8, embedding: 6, hidden: 8 };
    const S = 5;
    const T = 4;
    using program = await recordProgram(device, (graph) => {
      const inputs = {
        source: graph.input("source", [1, S], "i32"),
        lengths: graph.input("lengths", [1], "i32"),
        before: graph.input("before", [1, T], "i32"),
      };
      return { outputs: translator(inputs, parametersOf(graph, drawn(4)), sizes) };
    });
    const lengths = { sourceLength: S, targetLength: T };
    const decoder = await makeDecoder(device, sizes, lengths, program.parameters);
    const source = [3, 7, 4];
    /** The score of ids under the translator, and the weights that it gives. */
    const forced = async (ids: readonly number[]) => {
      const before = [1, ...ids.slice(0, T - 1)];
      const batch = { source: [...source, 0, 0], lengths: [3] };
      await program.run({ ...batch, before: [...before, ...new Array(T - before.length).fill(0)] });
      const logits = (await program.outputs.logits.read()) as Float32Array;
      const alignments = (await program.outputs.alignments.read()) as Float32Array;
      let score = 0;
      for (const [t, id] of ids.slice(0, T).entries()) {
        const own = Array.from(logits.subarray(t * 8, (t + 1) * 8));
        const kept = own.filter((_, at) => at > 1); // no padding, and no beginning
        const sum = kept.reduce((all, value) => all + Math.exp(value), 0);
        score += own[id] - Math.log(sum);
        if (t === 0) expect(own[id]).toBe(Math.max(...kept));
      }
      return { score, alignments };
    };
    const greedy = await decoder.decode(source, 1);
    const { score, alignments } = await forced(greedy.ids);
    if (greedy.ids.length <= T) expect(greedy.score).toBeCloseTo(score, 4);
    for (const [t, row] of greedy.weights.slice(0, T).entries())
      for (const [at, weight] of row.entries())
        expect(weight).toBeCloseTo(alignments[t * S + at], 5);
    const beam = await decoder.decode(source, MOST_BEAMS);
    expect(beam.score).toBeGreaterThanOrEqual(greedy.score - 1e-4);
    decoder.destroy();
  });

  it("reads dates as people write them", async () => {
    const { test, sources, targets, read } = await loadDates();
    for (const { source, target } of test.slice(0, 20)) {
      expect(target.join("")).toMatch(/^\d{4}-\d\d-\d\d$/);
      const date = new Date(`${source.join("")} UTC`);
      expect(date.toISOString().slice(0, 10)).toBe(target.join(""));
      expect(idsOf(source, sources)).toHaveLength(source.length);
      expect(idsOf(target, targets).map((id) => pieceOf(id, targets))).toEqual(target);
    }
    expect(read("Dec 1").join("")).toBe("dec 1");
  });
});
