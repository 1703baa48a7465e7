// Functions of single elements on the CPU, each with its derivative.

/** A function of one number. */
interface Activation {
  readonly apply: (x: number, round: (x: number) => number) => number;
  readonly derivative: (x: number, round: (x: number) => number) => number;
}

/** The names of the functions. */
export type ReferenceActivation = "gelu" | "gelu-tanh" | "relu" | "silu" | "sigmoid" | "tanh";

/** 1 / (1 + exp(-x)) */
export const sigmoid = (x: number, round: (x: number) => number = (y) => y) =>
  round(1 / round(1 + round(Math.exp(-x))));

export const ACTIVATIONS: Readonly<Record<ReferenceActivation, Activation>> = {
  // x Phi(x), Phi the normal distribution. Gaussian Error Linear Units, arXiv 1606.08415
  gelu: {
    apply: (x, round) => round(x * round(normalCdf(x))),
    derivative: (x, round) => {
      const phi = round(normalCdf(x));
      const inside = Math.abs(x) < Number.POSITIVE_INFINITY;
      return inside ? round(phi + round(x * round(density(x)))) : phi;
    },
  },
  // x (1 + tanh u) / 2, u = sqrt(2 / pi) (x + 0.044715 x^3), of the same paper
  "gelu-tanh": {
    apply: (x, round) => {
      const u = round(Math.sqrt(2 / Math.PI) * round(x + round(0.044715 * x ** 3)));
      return round(0.5 * x * round(1 + round(Math.tanh(u))));
    },
    derivative: (x, round) => {
      const u = round(Math.sqrt(2 / Math.PI) * round(x + round(0.044715 * x ** 3)));
      const t = round(Math.tanh(u));
      const slope = round(Math.sqrt(2 / Math.PI) * round(1 + round(3 * 0.044715 * x ** 2)));
      const bend = round(tanhDerivative(u));
      const bent = bend === 0 ? 0 : round(0.5 * x * round(bend * slope));
      return round(round(0.5 * (1 + t)) + bent);
    },
  },
  // max(x, 0), with slope 0 at 0
  relu: {
    apply: (x) => (x < 0 ? 0 : x),
    derivative: (x) => (Number.isNaN(x) ? x : Number(x > 0)),
  },
  // x sigmoid(x)
  silu: {
    apply: (x, round) => round(x * sigmoid(x, round)),
    derivative: (x, round) => {
      const y = sigmoid(x, round);
      const bent = y === 0 || y === 1 ? 0 : round(x * round(y * round(1 - y)));
      return round(y + bent);
    },
  },
  // 1 / (1 + exp(-x))
  sigmoid: {
    apply: sigmoid,
    derivative: (x, round) => {
      const e = round(Math.exp(-Math.abs(x)));
      return round(e / round(round(1 + e) ** 2));
    },
  },
  tanh: {
    apply: (x, round) => round(Math.tanh(x)),
    derivative: (x, round) => round(tanhDerivative(x)),
  },
};

/** The density of the standard normal distribution. */
const density = (x: number) => Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);

/** The standard normal distribution function, (1 + erf(x / sqrt 2)) / 2, to 1e-15 of itself. */
export function normalCdf(x: number): number {
  if (Number.isNaN(x)) return x;
  const a = Math.abs(x);
  let tail = 0; // Phi(-a)
  if (a < 3) {
    // Phi(a) - 1/2 = density(a) * (a + a^3 / 3 + a^5 / (3 5) + ...): no terms of both signs.
    let term = a;
    let sum = a;
    for (let n = 3; term > sum * 1e-17; n += 2) {
      term *= (a * a) / n;
      sum += term;
    }
    tail = 0.5 - density(a) * sum;
  } else {
    // Phi(-a) = density / (a + 1 / (a + 2 / (a + 3 / (a + ...)))).
    let fraction = a;
    for (let n = 200; n >= 1; n--) fraction = a + n / fraction;
    tail = density(a) / fraction;
  }
  return x < 0 ? tail : 1 - tail;
}

/** 1 - tanh^2(x), right also where tanh is nearly 1. */
export const tanhDerivative = (x: number): number => 1 / Math.cosh(x) ** 2;
