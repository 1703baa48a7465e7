// Functions that WGSL lacks, or has for a part of the numbers only. FN stands for the name of the
// function.

export const ERF = `// Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26 is good to 1.5e-7; near 0 the series is better.
fn FN(x: f32) -> f32 {
  let a = abs(x);
  let t = 1f / (1f + 0.3275911f * a);
  let upper = 1.421413741f + t * (-1.453152027f + t * 1.061405429f);
  let tail = t * (0.254829592f + t * (-0.284496736f + t * upper));
  let square = a * a;
  let inner = 0.1128379167f - square * 0.02686617064f;
  let near = a * (1.1283791671f + square * (-0.3761263890f + square * inner));
  return sign(x) * select(1f - tail * exp(-a * a), near, a < 0.3f);
}
`;
/** This tanh doesn't overflow for large numbers, as a builtin may. */
export const TANH = `fn FN(x: f32) -> f32 {
  let e = exp(-2f * abs(x));
  return sign(x) * (1f - e) / (1f + e);
}
`;
/** This power takes negative bases, which a builtin's must not be. */
export const POW = `fn FN(x: f32, y: f32) -> f32 {
  let size = select(pow(abs(x), y), f32(y == 0f), x == 0f);
  return select(size, -size, x < 0f && floor(y / 2f) * 2f != y);
}
`;

/** The error function, computed as in the text above. */
export function erf(x: number): number {
  const a = Math.abs(x);
  const t = 1 / (1 + 0.3275911 * a);
  const tail =
    t *
    (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return Math.sign(x) * (1 - tail * Math.exp(-a * a));
}
