// What was made and may be needed again: kept while it is among the last that were used.

/** Values by key, at most a number of them: the one that was not used for longest goes first. */
export class Recent<Value extends object> {
  readonly #most: number;
  readonly #values = new Map<string, Value>();

  constructor(most: number) {
    this.#most = most;
  }

  /** The value of a key, made if it is not there. */
  get(key: string, make: () => Value): Value {
    const value = this.#values.get(key) ?? make();
    this.#values.delete(key);
    this.#values.set(key, value);
    if (this.#values.size > this.#most) {
      const [oldest] = this.#values.keys();
      this.#values.delete(oldest);
    }
    return value;
  }

  /** Keeps a value no longer. One that took its place stays. */
  drop(key: string, value: Value): void {
    if (this.#values.get(key) === value) this.#values.delete(key);
  }
}
