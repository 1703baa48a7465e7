// What `npm start` and `npm run bench` do once they have a device. Runs in a page and in Node
// alike.

import { adapterName, isSoftware } from "../src/gpu/device.ts";
import { createGpuTimer, planAttention, type TensorOptions, tensor } from "../src/index.ts";
import type { Dims } from "./cost.ts";
import { type Measurement, measureTogether, stepsOf, summarize, type Times } from "./harness.ts";
import { among, type Contest, contestSteps, LIBRARIES, runContests } from "./peers/contest.ts";
import { type Case, SUITES } from "./suites.ts";
import { type Verdict, verify } from "./verify.ts";

/** The adapter that computes. */
export interface Adapter {
  readonly description: string;
  readonly software: boolean;
  readonly features: readonly string[];
}

/** Reports events as they happen. */
export type Report = (event: {
  steps?: number;
  step?: string;
  done?: number;
  /** Names something that was to be measured, and was not. */
  missing?: string;
}) => void;

export function describeAdapter(device: GPUDevice): Adapter {
  return {
    description: adapterName(device),
    software: isSoftware(device),
    features: [...device.features].sort(),
  };
}

export interface SuiteOptions {
  readonly suites: readonly string[];
  readonly rounds: number;
  /** The libraries that take part if a suite has them. Default all. */
  readonly peers?: readonly string[];
  /** Only the cases whose name has this text. Default all. */
  readonly of?: string;
}

/** Runs suites, case after case. */
export async function runSuites(
  device: GPUDevice,
  options: SuiteOptions,
  report: Report,
): Promise<Measurement[]> {
  const { software } = describeAdapter(device);
  const { of = "" } = options;
  const chosen = ({ name }: Case | Contest) => name.includes(of);
  const cases = options.suites.flatMap((suite) =>
    SUITES[suite](software)
      .filter(chosen)
      .map((item): [string, Case | Contest] => [
        suite,
        "contestants" in item ? among(item, options.peers ?? LIBRARIES) : item,
      ]),
  );
  const { rounds } = options;
  const steps = (item: Case | Contest) =>
    "contestants" in item
      ? contestSteps(item, rounds)
      : stepsOf({ implementations: item.implementations, rounds });
  report({ steps: cases.reduce((sum, [, item]) => sum + steps(item), 0) });
  const measurements: Measurement[] = [];
  const onStep = () => report({ done: 1 });
  const note = (text: string) => report({ step: text, missing: text });
  let left = [...cases];
  while (left.length) {
    const [[suite, item]] = left;
    report({ step: item.together === true ? suite : `${suite}: ${item.name}` });
    if ("contestants" in item) {
      const beside = left.flatMap((entry) =>
        entry[0] === suite && (entry[1] === item || takeTurns(item, entry[1])) ? [entry] : [],
      );
      left = left.filter((entry) => !beside.includes(entry));
      const contests = beside.map(([, one]) => one as Contest);
      const told = { rounds, onStep, note };
      measurements.push(...(await runContests(device, suite, contests, told)));
      continue;
    }
    const turns = ([other, one]: (typeof left)[number]) =>
      one === item || (item.together && other === suite && "together" in one && one.together);
    const together = left
      .filter(turns)
      .map(([, one]) => ({ suite, rounds, onStep, note, ...(one as Case) }));
    left = left.filter((entry) => !turns(entry));
    measurements.push(...(await measureTogether(device, together)));
  }
  return measurements;
}

/** Whether another item of the suite takes turns with a contest. */
const takeTurns = ({ together }: Contest, other: Case | Contest) =>
  together !== undefined && "contestants" in other && other.together === together;

/** The user's q, k and v, dense [B, H, rows, D]. */
export interface OwnInput {
  readonly dims: Dims;
  readonly q: Float32Array;
  readonly k: Float32Array;
  readonly v: Float32Array;
}

export interface OwnResult {
  readonly kernel: string;
  readonly output: Float32Array;
  readonly lse: Float32Array;
  readonly verdict: Verdict;
  readonly ms: Times;
}

/** Computes attention of the user's tensors, checks it and times it. */
export async function runInput(
  device: GPUDevice,
  { dims, ...arrays }: OwnInput,
  rounds = 5,
): Promise<OwnResult> {
  const { B, H, Hkv, M, N, D, Dv } = dims;
  const made: { destroy(): void }[] = [];
  const make = (shape: number[], options: TensorOptions) => {
    const created = tensor(device, shape, options);
    made.push(created);
    return created;
  };
  try {
    const q = make([B, H, M, D], { data: arrays.q, label: "q" });
    const k = make([B, Hkv, N, D], { data: arrays.k, label: "k" });
    const v = make([B, Hkv, N, Dv], { data: arrays.v, label: "v" });
    const output = make([B, H, M, Dv], { label: "output" });
    const lse = make([B, H, M], { label: "lse" });
    const plan = await planAttention(device, { q, k, v, output, lse, causal: dims.causal });
    const timer = createGpuTimer(device);
    made.push(plan, timer);
    await timer.time((pass) => plan.encode(pass));
    const values = (await output.read()) as Float32Array;
    const verdict = verify(dims, arrays, values);
    const times: number[] = [];
    for (let round = 0; round < rounds; round++)
      times.push(await timer.time((pass) => plan.encode(pass)));
    const kernel = plan.kernel;
    const sums = (await lse.read()) as Float32Array;
    return { kernel, output: values, lse: sums, verdict, ms: summarize(times) };
  } finally {
    for (const one of made) one.destroy();
  }
}
