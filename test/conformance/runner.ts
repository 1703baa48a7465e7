// Runs vectors on a GPU, one after the other, and compares on the host. It works in pages, Node and
// Deno alike.

import { type Tensor, tensor } from "../../src/index.ts";
import { KeptDevice } from "../support/kept_device.ts";
import { describeWorst, isWithin, type Worst, worstOf } from "./compare.ts";
import { missingOf, PACKED, type PackedFixture, runFixture } from "./fixtures.ts";
import { runNamed } from "./named.ts";
import { namedOperatorOf, operatorOf } from "./operators.ts";
import { isSampling, type PackedSampling, runSampling } from "./sampling.ts";
import { ourDtype, parseVector, type Vector, type VectorTensor } from "./vector.ts";

/** How a vector went. */
export interface Outcome {
  /** Vectors are skipped if their operator or element type is not there. */
  readonly status: "passed" | "failed" | "skipped";
  /** What failed, why it was skipped, or what of a model was not compared; else empty. */
  readonly message: string;
  /** The element that is furthest off, or null if there was none to look at. */
  readonly worst: Worst | null;
}

/** Runs vectors on a device that it keeps. */
export class Runner {
  readonly #kept: KeptDevice;

  constructor(request: () => Promise<GPUDevice>) {
    this.#kept = new KeptDevice(request);
  }

  device(): Promise<GPUDevice> {
    return this.#kept.get();
  }

  /**
   * @param text The vector's file. Never rejects: whatever is wrong with it, or with the run, is a
   *   failure.
   */
  async run(text: string): Promise<Outcome> {
    try {
      if (text.startsWith(PACKED)) return await this.#runFixture(JSON.parse(text));
      const vector = parseVector(text);
      const missing = missingFor(vector);
      if (missing) return { status: "skipped", message: missing, worst: null };
      const worst = await this.#kept.run((device) => runVector(device, vector));
      return worst && !isWithin(worst)
        ? { status: "failed", message: describeWorst(worst), worst }
        : { status: "passed", message: "", worst };
    } catch (error) {
      return {
        status: "failed",
        message: error instanceof Error ? error.message : String(error),
        worst: null,
      };
    }
  }

  async #runFixture(packed: PackedFixture | PackedSampling): Promise<Outcome> {
    if (isSampling(packed)) {
      const worst = await this.#kept.run((device) => runSampling(device, packed));
      return { status: "passed", message: "", worst };
    }
    const missing = missingOf(packed);
    if (missing) return { status: "skipped", message: missing, worst: null };
    const { worst, left } = await this.#kept.run((device) => runFixture(device, packed));
    const message = left.length ? `nothing was compared with ${left.join(", ")}` : "";
    return { status: "passed", message, worst };
  }
}

/** Returns what a vector needs and is not there, if anything. */
function missingFor({ op, inputs }: Vector): string | undefined {
  if (!operatorOf(op) && !namedOperatorOf(op)) return `no operator ${op}`;
  const stranger = inputs.find((input) => input && !ourDtype(input.dtype));
  return stranger && `no element type ${stranger.dtype}`;
}

/**
 * Runs a vector and returns its worst element. Throws if an output is missing or has another shape
 * or type.
 */
async function runVector(device: GPUDevice, vector: Vector): Promise<Worst | null> {
  const { op, opset, inputs, outputs, attributes, tolerance, tolerances, noise } = vector;
  const given = Object.fromEntries(
    Object.entries(attributes).filter(([, value]) => value !== null),
  );
  const wanted = outputs.map((output) => output !== undefined);
  const used: Tensor[] = [];
  try {
    const uploaded = inputs.map((input) => {
      if (!input) return null;
      used.push(upload(device, input));
      return used[used.length - 1];
    });
    const operator = operatorOf(op);
    const named = namedOperatorOf(op);
    const results = operator
      ? await operator(uploaded, given, {
          device,
          outputs: wanted,
          ...(opset !== null && { opset }),
        })
      : named
        ? await runNamed(named, device, vector, { uploaded, used })
        : [];
    used.push(...results.filter((result) => result !== undefined));
    let worst: Worst | null = null;
    for (const [index, expected] of outputs.entries()) {
      if (!expected) continue;
      const actual = expectLike(index, expected, results[index]);
      const { name = "" } = expected;
      const bound = tolerances[name] ?? tolerance;
      const found = worstOf(index, expected, await actual.read(), bound, noise[name]);
      if (found && (!worst || share(found) > share(worst))) worst = found;
    }
    return worst;
  } finally {
    for (const one of used) one.destroy();
  }
}

/** The part of its tolerance that an element is off by. */
const share = ({ error, tolerance }: Worst) =>
  Number(error) / Math.max(tolerance, Number.MIN_VALUE);

function upload(device: GPUDevice, { dtype, shape, data }: VectorTensor): Tensor {
  const ours = ourDtype(dtype) ?? "f32";
  if (ours === "i32" && data.some((value) => value !== (value | 0))) {
    throw new Error(`${dtype} [${shape}] has values beyond 32 bits`);
  }
  return tensor(device, shape, { data, dtype: ours });
}

function expectLike(index: number, expected: VectorTensor, actual: Tensor | undefined): Tensor {
  if (!actual) throw new Error(`output ${index} is missing`);
  if (actual.shape.join() !== expected.shape.join()) {
    throw new Error(
      `output ${index} is [${actual.shape.join(", ")}], expected [${expected.shape.join(", ")}]`,
    );
  }
  const dtype = ourDtype(expected.dtype);
  if (dtype && actual.dtype !== dtype)
    throw new Error(`output ${index} is ${actual.dtype}, expected ${dtype}`);
  return actual;
}
