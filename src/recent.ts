// A store of values that may be needed again: a value is kept while it is among those that were
// used last.

/** Values by key, up to a most number of them. The one that was not used for longest goes first. */
export class Recent<Value extends object> {
  readonly #most: number;
  readonly #values = new Map<string, Value>();

  constructor(most: number) {
    this.#most = most;
  }

  /** Gives the value of a key, and makes it if it is not there. */
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

  /** Drops a value, unless another one has taken its place under the key. */
  drop(key: string, value: Value): void {
    if (this.#values.get(key) === value) this.#values.delete(key);
  }
}
