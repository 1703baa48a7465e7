// Derivatives of a score function as WGSL, from its own text: for functions that return one
// expression, of s and of elements of captured tensors, and may hide keys before it.

/** Expressions as trees. Leaves that the derivatives are 0 of are texts. */
type Node =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "s" }
  | { readonly kind: "read"; readonly name: string; readonly index: string }
  | { readonly kind: "negative"; readonly of: Node }
  | {
      readonly kind: "operator";
      readonly sign: string;
      readonly left: Node;
      readonly right: Node;
    }
  | { readonly kind: "call"; readonly name: string; readonly of: readonly Node[] };

/** The derivatives of functions of one number by it. */
const CALLS: Readonly<Record<string, (x: string) => string>> = {
  tanh: (x) => `(1.0 - tanh(${x}) * tanh(${x}))`,
  exp: (x) => `exp(${x})`,
  exp2: (x) => `(0.6931471805599453 * exp2(${x}))`,
  log: (x) => `(1.0 / (${x}))`,
  log2: (x) => `(1.4426950408889634 / (${x}))`,
  sqrt: (x) => `(0.5 / sqrt(${x}))`,
  sin: (x) => `cos(${x})`,
  cos: (x) => `(-sin(${x}))`,
  abs: (x) => `sign(${x})`,
};

/**
 * The text that `scoreFunction` takes as the option `gradient`, with derivatives by all captured
 * tensors that the function reads. Throws for a function of another form.
 *
 * @param captures The names of captured tensors
 */
export function differentiate(wgsl: string, captures: readonly string[]): string {
  const head = /^\s*fn score\(s: f32, at: Position\) -> f32 \{/.exec(wgsl);
  const body = head && wgsl.slice(head[0].length);
  // Where a key is hidden nobody asks for a derivative.
  const rest = body?.replace(/if \([^{]*\) \{\s*return HIDDEN;\s*\}/g, "");
  const returned = rest && /^\s*return ([^;]*);\s*\}\s*$/.exec(rest);
  if (!returned) throw new Error(`no derivative is known of the form of ${wgsl}`);
  const reads: (Node & { kind: "read" })[] = [];
  const tree = parse(returned[1], captures, reads);
  const given = "(s: f32, at: Position)";
  const texts = [`fn gradient${given} -> f32 {\n  return ${derivative(tree, "s")};\n}`];
  for (const name of new Set(reads.map((read) => read.name))) {
    const all = reads.filter((read) => read.name === name);
    const many = (type: string) => (all.length === 1 ? type : `array<${type}, ${all.length}>`);
    const list = (type: string, parts: readonly string[]) =>
      all.length === 1 ? parts[0] : `${many(type)}(${parts.join(", ")})`;
    const indices = all.map(({ index }) => `u32(${index})`);
    const derivatives = all.map((read) => derivative(tree, read));
    texts.push(
      `fn index_${name}(at: Position) -> ${many("u32")} {\n  return ${list("u32", indices)};\n}`,
      `fn gradient_${name}${given} -> ${many("f32")} {\n  return ${list("f32", derivatives)};\n}`,
    );
  }
  return texts.join("\n");
}

/** Reads an expression; elements of captures are added to `reads`, each once. */
function parse(text: string, captures: readonly string[], reads: Node[]): Node {
  const tokens = text.match(/[A-Za-z_][\w.]*|[\d.]+(?:e[+-]?\d+)?[fu]?|[<>=!]=|&&|\|\||\S/g) ?? [];
  let at = 0;
  const expect = (sign: string) => {
    if (tokens[at++] !== sign) throw new Error(`expected ${sign} in ${text}`);
  };
  /** The text up to the bracket that closes one which is open. */
  const untilClosed = (): string => {
    const from = at;
    for (let depth = 1; depth > 0; at++) {
      if (at === tokens.length) throw new Error(`a bracket of ${text} is not closed`);
      if ("([".includes(tokens[at])) depth++;
      if (")]".includes(tokens[at])) depth--;
    }
    return tokens.slice(from, at - 1).join(" ");
  };
  const primary = (): Node => {
    const token = tokens[at++];
    if (token === "-") return { kind: "negative", of: primary() };
    if (token === "(") {
      const inside = sum();
      expect(")");
      return inside;
    }
    if (token === "s") return { kind: "s" };
    if (tokens[at] === "[" && captures.includes(token)) {
      at++;
      const index = untilClosed();
      const known = reads.find(
        (one) => one.kind === "read" && one.name === token && one.index === index,
      );
      if (known) return known;
      const read: Node = { kind: "read", name: token, index };
      reads.push(read);
      return read;
    }
    if (tokens[at] === "(" && token in CALLS) {
      at++;
      const of = sum();
      expect(")");
      return { kind: "call", name: token, of: [of] };
    }
    if (tokens[at] === "(" || tokens[at] === "[") {
      const [open, close] = tokens[at++] === "(" ? "()" : "[]";
      const inside = untilClosed();
      const uses = captures.some((name) => new RegExp(`\\b${name}\\b`).test(inside));
      if (uses || /\bs\b/.test(inside)) throw new Error(`no derivative of ${token} is known`);
      return { kind: "text", text: token + open + inside + close };
    }
    return { kind: "text", text: token };
  };
  const chain = (next: () => Node, signs: string): Node => {
    let left = next();
    while (at < tokens.length && signs.includes(tokens[at])) {
      const sign = tokens[at++];
      left = { kind: "operator", sign, left, right: next() };
    }
    return left;
  };
  const product = (): Node => chain(primary, "*/");
  const sum = (): Node => chain(product, "+-");
  const tree = sum();
  if (at !== tokens.length) throw new Error(`${tokens[at]} in ${text} is not known`);
  return tree;
}

function written(node: Node): string {
  if (node.kind === "text") return node.text;
  if (node.kind === "s") return "s";
  if (node.kind === "read") return `${node.name}[${node.index}]`;
  if (node.kind === "negative") return `(-${written(node.of)})`;
  if (node.kind === "call") return `${node.name}(${node.of.map(written).join(", ")})`;
  return `(${written(node.left)} ${node.sign} ${written(node.right)})`;
}

/** The derivative by s, or by an element that is read. */
function derivative(node: Node, by: "s" | Node): string {
  if (node === by || (node.kind === "s" && by === "s")) return "1.0";
  if (node.kind === "negative") return `(-${derivative(node.of, by)})`;
  if (node.kind === "call") {
    const [of] = node.of;
    return `(${CALLS[node.name](written(of))} * ${derivative(of, by)})`;
  }
  if (node.kind !== "operator") return "0.0";
  const left = derivative(node.left, by);
  const right = derivative(node.right, by);
  const a = written(node.left);
  const b = written(node.right);
  if (node.sign === "*") return `(${left} * ${b} + ${a} * ${right})`;
  if (node.sign === "/") return `((${left} * ${b} - ${a} * ${right}) / (${b} * ${b}))`;
  return `(${left} ${node.sign} ${right})`;
}
