// The tokens of a text, and where the model looked when it chose one of them.

/** A token that is shown. */
export interface ShownToken {
  readonly text: string;
  /** Probabilities of attention by layers, each [H, keys]; none for those of the prompt. */
  readonly looks: ReadonlyMap<number, { readonly heads: number; readonly data: Float32Array }>;
}

/** How many tokens the summary names. */
const NAMED = 3;

/** Shows tokens in an element, and what one of them looked at in another. */
export class TokenView {
  readonly #text: HTMLElement;
  readonly #summary: HTMLElement;
  readonly #choice: () => { readonly layer: number; readonly head: number };
  #tokens: ShownToken[] = [];
  #chosen: number | undefined;

  constructor(
    text: HTMLElement,
    summary: HTMLElement,
    choice: () => { readonly layer: number; readonly head: number },
  ) {
    this.#text = text;
    this.#summary = summary;
    this.#choice = choice;
    const choose = ({ target }: Event) => {
      const at = (target as HTMLElement).dataset?.at;
      if (at !== undefined) this.#choose(Number(at));
    };
    for (const name of ["pointerover", "focusin", "click"]) text.addEventListener(name, choose);
    text.addEventListener("keydown", (event) => this.#move(event));
  }

  clear(): void {
    this.#tokens = [];
    this.#chosen = undefined;
    this.#text.replaceChildren();
    this.#summary.textContent = "";
  }

  add(token: ShownToken): void {
    const at = this.#tokens.push(token) - 1;
    const button = Object.assign(document.createElement("button"), {
      type: "button",
      className: token.looks.size > 0 ? "token new" : "token",
      textContent: token.text,
      tabIndex: at === 0 ? 0 : -1,
    });
    button.dataset.at = String(at);
    this.#text.append(button);
  }

  /** Shows the chosen token again, after another layer or head was chosen. */
  show(): void {
    if (this.#chosen !== undefined) this.#choose(this.#chosen);
  }

  #choose(at: number): void {
    const { layer, head } = this.#choice();
    this.#chosen = at;
    const { text, looks } = this.#tokens[at];
    const buttons = [...this.#text.children] as HTMLElement[];
    const look = looks.get(layer);
    const keys = look ? look.data.length / look.heads : 0;
    const row = look?.data.subarray(head * keys, (head + 1) * keys) ?? new Float32Array();
    const most = Math.max(...row, Number.MIN_VALUE);
    for (const [index, button] of buttons.entries()) {
      button.tabIndex = index === at ? 0 : -1;
      button.classList.toggle("chosen", index === at);
      button.style.setProperty("--shade", `${Math.round(100 * ((row[index] ?? 0) / most))}%`);
    }
    if (!look) {
      this.#summary.textContent =
        looks.size > 0
          ? `Layer ${layer} was not kept of this text; go on again to see it.`
          : "A token of the prompt: the model did not choose it.";
      return;
    }
    const best = [...row.keys()].sort((one, other) => row[other] - row[one]).slice(0, NAMED);
    const named = best.map(
      (key) => `“${this.#tokens[key].text}” ${key + 1} (${(100 * row[key]).toFixed(0)} %)`,
    );
    this.#summary.textContent = `To choose “${text}” ${at + 1}, layer ${layer}, head ${head} looked most at ${named.join(", ")}.`;
  }

  #move(event: KeyboardEvent): void {
    const last = this.#tokens.length - 1;
    const at = this.#chosen ?? 0;
    const to: Readonly<Record<string, number>> = {
      ArrowLeft: at - 1,
      ArrowRight: at + 1,
      Home: 0,
      End: last,
    };
    const next = to[event.key];
    if (next === undefined) return;
    event.preventDefault();
    const index = Math.min(Math.max(next, 0), last);
    (this.#text.children[index] as HTMLElement | undefined)?.focus();
  }
}
