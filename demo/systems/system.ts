// What a small system is: a model, its data, how it learns, what it has learned, and a picture of
// what it looks at. The pages and `npm run train` use the same ones.

import type { Batch, Training } from "../../src/training/index.ts";

/** Weights between words, or over a picture, for people to look at. */
export type Picture =
  | {
      readonly kind: "map";
      readonly title: string;
      /** What looks, and what it looks at. */
      readonly rows: readonly string[];
      readonly columns: readonly string[];
      readonly rowLabel?: string;
      readonly columnLabel?: string;
      /** Weights [rows][columns]. */
      readonly weights: readonly (readonly number[])[];
    }
  | {
      readonly kind: "image";
      readonly title: string;
      /** Brightness from 0 to 1, [height][width]. */
      readonly pixels: readonly (readonly number[])[];
      /** A weight for each patch, [rows][columns] of the grid. */
      readonly weights: readonly (readonly number[])[];
    };

/** What a model says to an input, and where it looked. */
export interface Answer {
  readonly text: string;
  readonly pictures: readonly Picture[];
}

/** What is measured on data that is not learned from: `loss`, `accuracy` from 0 to 1. */
export type Metrics = Readonly<Record<string, number>>;

/** A system that is being trained. */
export interface Session {
  readonly training: Training;
  /** The batch of a step, the same one for the same seed. */
  batch(step: number): Batch;
  /** The batches of the test data. */
  test(): Batch[];
  /** Measures on the test data. */
  evaluate(): Promise<Metrics>;
  /** What the model says now to an example of the test data, or to the text or pixels given. */
  answer(input?: string | readonly number[]): Promise<Answer>;
  destroy(): void;
}

/** How a session starts. */
export interface SessionOptions {
  /** Of the first parameters and the order of batches: a whole number. */
  readonly seed: number;
  /** What to go on from. Default: the first parameters. */
  readonly checkpoint?: Uint8Array | undefined;
  /** Is told of each checkpoint. */
  readonly onCheckpoint?: (checkpoint: Uint8Array<ArrayBuffer>, step: number) => unknown;
}

/** A small system. */
export interface System {
  readonly name: string;
  readonly title: string;
  /** A sentence or two: the model, the data, where the idea is from. */
  readonly about: string;
  /** Steps after which it has learned what it can. */
  readonly steps: number;
  /** Steps between two measurements. */
  readonly every: number;
  /** What `answer` takes, and an example of it. */
  readonly input:
    | { readonly kind: "text"; readonly label: string; readonly example: string }
    | { readonly kind: "drawing"; readonly label: string; readonly size: number };
  start(device: GPUDevice, options: SessionOptions): Promise<Session>;
}
