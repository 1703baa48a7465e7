// Values of kinds that no argument of a program is, with their names.

const revoked = () => {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
};
export const HOSTILE: readonly (readonly [string, unknown])[] = [
  ["null", null],
  ["NaN", Number.NaN],
  ["-1", -1],
  ["1.5", 1.5],
  ["text", "x"],
  ["a symbol", Symbol("x")],
  ["a BigInt", 3n],
  ["an object", { odd: 1 }],
  ["a list", ["odd"]],
  ["a function", () => 1],
  ["a revoked proxy", revoked()],
];
