// What a deliberate fault is. Each room of the project lists its faults in a file beside this one.

/** A fault that the tests must notice. */
export interface Mutant {
  /** Path from the root of the file that gets the fault. */
  readonly file: string;
  /** The text that is replaced. It occurs exactly once in the file. */
  readonly text: string;
  readonly replacement: string;
  /** Test files of which at least one must fail, from the root: the fewest and fastest. */
  readonly tests: readonly string[];
  /**
   * A pattern for the full names of the tests to run, as vitest's `-t` takes it. Default all tests
   * of the files.
   */
  readonly filter?: string;
  /** Why nothing can notice the fault. Such mutants are listed and not run. */
  readonly equivalent?: string;
}

/** The lists that files of mutants export as MUTANTS, by the file's stem. */
export type Rooms = Readonly<Record<string, readonly Mutant[]>>;
