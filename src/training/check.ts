// Checks the gradients of a program on its device, by differences of its loss.

import { check, reading, show } from "../errors.ts";
import { type OptionNames, readOptions } from "../given.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { seeded } from "../seeded.ts";
import type { Batch, Program } from "./program.ts";

/** Where and how {@link checkGradients} looks. */
export interface CheckGradientsOptions {
  /** Of the directions. Default 1. */
  readonly seed?: number;
  /** The part of a gradient's norm by which a slope may be off. Default 0.01. */
  readonly tolerance?: number;
}

const OPTIONS: OptionNames<CheckGradientsOptions> = { seed: "number", tolerance: "number" };

/** What {@link checkGradients} found of a parameter. */
export interface ParameterCheck {
  readonly name: string;
  /** The slope of the loss along a direction by the gradient, and by differences of the loss. */
  readonly given: number;
  readonly expected: number;
  /** How well differences of f32 losses tell the slope. */
  readonly resolution: number;
  /** Whether the two are as near as the tolerance says, beside the resolution. */
  readonly within: boolean;
}

/** A step, as a part of the parameter's root mean square. */
const STEP = 1 / 32;
/** The least root mean square that a step is a part of. */
const LEAST = 0.01;
/** Half the distance of f32 numbers from 1 to 2, over which a loss is rounded a few times. */
const ROUNDING = 4 * 2 ** -24;

/**
 * Whether the gradients of a program agree with central differences of its loss, on the device that
 * it runs on: along a random direction for each parameter,
 *
 *     (loss(p + h u) - loss(p - h u)) / 2h = sum(gradient * u),
 *
 * with two steps h, extrapolated (Richardson). It makes 4 runs for each parameter, changes no
 * parameter for good, and updates none. A loss with kinks between the points, or one that is
 * random, is not told well by differences.
 *
 * Rejects with FoveaError for a program without gradients, and as a run does.
 *
 * @example
 * const found = await checkGradients(program, batch);
 * for (const { name, within } of found) if (!within) console.warn(`wrong gradient of ${name}`);
 */
export async function checkGradients(
  program: Program,
  batch: Batch,
  options: CheckGradientsOptions = {},
): Promise<ParameterCheck[]> {
  const label = "checkGradients";
  const isProgram = reading(label, () => {
    return typeof program?.run === "function" && program.gradients instanceof Map;
  });
  check(
    isProgram,
    "argument",
    () => `${label}: expected a program of recordProgram, got ${show(program)}.`,
  );
  const { seed = 1, tolerance = 0.01 } = await readOptions(label, options, OPTIONS);
  check(
    program.gradients.size > 0,
    "argument",
    () => `${label}: the program computes no gradients; record it with a loss and gradients.`,
  );
  check(
    Number.isFinite(tolerance) && tolerance > 0,
    "argument",
    () => `${label}: tolerance must be a positive number, got ${tolerance}.`,
  );
  const random = seeded(seed);
  const lossOf = async () => (await program.run(batch, { update: false })) as number;
  await lossOf();
  const gradients = new Map<string, Float32Array>();
  for (const [name, gradient] of program.gradients)
    gradients.set(name, (await gradient.read()) as Float32Array);
  const found: ParameterCheck[] = [];
  for (const [name, gradient] of gradients) {
    const parameter = program.parameters.get(name) as Tensor;
    const values = (await parameter.read()) as Float32Array;
    // Sums of twelve even numbers are nearly normal.
    const direction = values.map(() => {
      let sum = -6;
      for (let i = 0; i < 12; i++) sum += random();
      return sum;
    });
    const step = STEP * Math.max(LEAST, norm(values) / Math.sqrt(values.length));
    let largest = 0;
    const slope = async (h: number) => {
      const losses: number[] = [];
      for (const sign of [h, -h]) {
        await parameter.write(values.map((value, at) => value + sign * direction[at]));
        losses.push(await lossOf());
      }
      largest = Math.max(largest, ...losses.map(Math.abs));
      return (losses[0] - losses[1]) / (2 * h);
    };
    try {
      const coarse = await slope(step);
      const fine = await slope(step / 2);
      const expected = (4 * fine - coarse) / 3;
      const given = gradient.reduce((sum, value, at) => sum + value * direction[at], 0);
      const resolution = Math.abs(fine - coarse) / 3 + (2 * ROUNDING * largest) / step;
      const bound = tolerance * norm(gradient) + resolution;
      // Numbers that are not finite are not within.
      const within = Math.abs(given - expected) <= bound;
      found.push({ name, given, expected, resolution, within });
    } finally {
      await parameter.write(values);
    }
  }
  return found;
}

const norm = (values: Float32Array) =>
  Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
