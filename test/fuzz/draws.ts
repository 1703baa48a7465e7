// What the problems of every suite are drawn with.

import fc from "fast-check";

/** The most entries of packed sequences; batches have fewer. */
export const MOST_ENTRIES = 5;

type Weighted<T> = readonly (readonly [weight: number, arbitrary: fc.Arbitrary<T>])[];
export const weighted = <T>(choices: Weighted<T>): fc.Arbitrary<T> =>
  fc.oneof(...choices.map(([weight, arbitrary]) => ({ weight, arbitrary })));
export const maybe = <T>(arbitrary: fc.Arbitrary<T>, percent = 20): fc.Arbitrary<T | undefined> =>
  weighted<T | undefined>([
    [100 - percent, fc.constant(undefined)],
    [percent, arbitrary],
  ]);

/** Whole numbers that are drawn from `draws` and shrink to 0 one by one. */
export class WholeNumber extends fc.Arbitrary<number> {
  readonly #draws: fc.Arbitrary<number>;
  readonly #shrinks: fc.Arbitrary<number>;

  constructor(draws: fc.Arbitrary<number>, most: number) {
    super();
    this.#draws = draws;
    this.#shrinks = fc.integer({ min: -most, max: most });
  }
  override generate(random: fc.Random, bias: number | undefined): fc.Value<number> {
    return new fc.Value(this.#draws.generate(random, bias).value, undefined);
  }
  override canShrinkWithoutContext(value: unknown): value is number {
    return this.#shrinks.canShrinkWithoutContext(value);
  }
  override shrink(value: number, context: unknown): fc.Stream<fc.Value<number>> {
    return this.#shrinks.shrink(value, context);
  }
}

/** Percent of the problems that have hostile values: one kind of those given, two or three. */
export const EXTREME_PERCENT = 30;
export const extremesOf = <Kind>(
  kinds: readonly Kind[],
): fc.Arbitrary<readonly Kind[] | undefined> =>
  maybe(fc.uniqueArray(fc.constantFrom(...kinds), { minLength: 1, maxLength: 3 }), EXTREME_PERCENT);

// Lengths around the tiles of 32 and 64 rows and of 32 keys, and numbers that divide nothing.
const EDGES = [0, 1, 2, 7, 13, 31, 32, 33, 63, 64, 65, 95, 96, 97, 127, 128, 129, 191, 257];
export const size = (most: number) => {
  const draws: Weighted<number> = [
    [8, fc.constantFrom(...EDGES.filter((edge) => edge <= most))],
    [4, fc.integer({ min: 1, max: Math.min(most, 100) })],
    [2, fc.integer({ min: 1, max: Math.min(most, 300) })],
    [1, fc.integer({ min: Math.min(most, 300), max: most })],
  ];
  return new WholeNumber(weighted(most > 300 ? draws : draws.slice(0, 3)), most);
};
export const perEntry = <T>(arbitrary: fc.Arbitrary<T>) =>
  fc.array(arbitrary, { minLength: MOST_ENTRIES, maxLength: MOST_ENTRIES });
