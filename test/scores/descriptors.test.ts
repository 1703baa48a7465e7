// An example of every option of scores reaches the kernels, and whatever has to know of the option
// does.

import { describe, expect, it } from "vitest";
import { assemblePlan } from "../../src/attention/assemble.ts";
import type { AttentionBindings } from "../../src/attention/bindings.ts";
import { chooseKernels, preparePlan } from "../../src/attention/plan_attention.ts";
import type { TakenProblem } from "../../src/attention/problem.ts";
import { problemName } from "../../src/attention/tuned.ts";
import {
  type AdditiveSimilarity,
  blockMaskOf,
  maskFunction,
  type NormalizedSimilarity,
  type ScoreOptions,
  scoreFunction,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import { PARAMS } from "../../src/kernels/params.ts";
import type { SlotChoice } from "../../src/kernels/slots.ts";
import type { Keeps, PresentOption } from "../../src/scores/descriptor.ts";
import type { ExtendedOption, PlainOption } from "../../src/scores/extended_options.ts";
import type { TakenScores } from "../../src/scores/options.ts";
import { SCORE_OPTIONS } from "../../src/scores/resolve.ts";
import { nowhere } from "../support/nowhere.ts";

const B = 2;
const H = 3;
const M = 20;
const N = 40;
const D = 8;
const device = nowhere();
const q = { shape: [B, H, M, D] };
const k = { shape: [B, H, N, D] };
const perHead = [0.5, 1, 2];
const columns = [1, 2, 3, 4, 5, 6, 7, 8];

interface Example {
  readonly options: TakenScores | ((device: GPUDevice) => TakenScores);
  readonly keeps: Keeps;
  /** The batch axis of q, k and v. Default B. */
  readonly batch?: number;
}

const packed: Example = {
  options: { cuSeqlensQ: [0, 5, 20], cuSeqlensKv: [0, 30, 40] },
  keeps: "all",
  batch: 1,
};
const blocks = { seqQ: M, seqKv: N, blockSize: [64, 32] } as const;

/** Examples of each option that use all that it has. */
const EXAMPLES = {
  queryOffset: [{ options: { queryOffset: [1, 2] }, keeps: "all" }],
  kvLengths: [{ options: { kvLengths: [40, 7] }, keeps: "all" }],
  qLengths: [{ options: { qLengths: [20, 7] }, keeps: "all" }],
  cuSeqlensQ: [packed],
  cuSeqlensKv: [packed],
  similarity: [
    { options: { similarity: "cosine" }, keeps: "nothing" },
    {
      options: { similarity: { kind: "rms", qWeights: columns, kWeights: columns } },
      keeps: "nothing",
    },
    {
      options: {
        similarity: { kind: "additive", vector: columns, innerBias: columns, normalize: true },
      },
      keeps: "nothing",
    },
  ],
  temperature: [{ options: { temperature: perHead }, keeps: "scores" }],
  logTemperature: [{ options: { logTemperature: perHead }, keeps: "scores" }],
  maxTemperature: [{ options: { logTemperature: perHead, maxTemperature: 7 }, keeps: "scores" }],
  softcap: [{ options: { softcap: 30 }, keeps: "nothing" }],
  mask: [
    { options: { mask: { shape: [M, N], dtype: "u8" } }, keeps: "nothing" },
    { options: { mask: { shape: [M, 2], dtype: "u32" } }, keeps: "nothing" },
  ],
  bias: [{ options: { bias: { shape: [H, M, N] } }, keeps: "nothing" }],
  scoreFunction: [
    {
      options: {
        scoreFunction: scoreFunction("fn score(s: f32, p: Position) -> f32 { return s * 2.0; }"),
      },
      keeps: "nothing",
    },
  ],
  maskFunction: [
    {
      options: {
        maskFunction: maskFunction("fn mask(p: Position) -> bool { return p.kv_idx > 3u; }"),
      },
      keeps: "nothing",
    },
  ],
  blockMask: [
    {
      options: (on) => ({ blockMask: blockMaskOf(on, ["full", "empty"], blocks) }),
      keeps: "scores",
    },
  ],
  alibiSlopes: [{ options: { alibiSlopes: perHead }, keeps: "nothing" }],
  relativeBias: [
    {
      options: { relativeBias: { table: [...perHead, ...perHead, ...perHead, ...perHead] } },
      keeps: "nothing",
    },
  ],
  sinks: [{ options: { sinks: perHead }, keeps: "all" }],
  dropout: [
    { options: { dropout: { p: 0.5, seed: 7 } }, keeps: "scores" },
    { options: { dropout: { p: 0.5, seed: 7, step: 3 } }, keeps: "scores" },
  ],
} satisfies Readonly<Record<ExtendedOption, readonly Example[]>>;

const examples = Object.entries<readonly Example[]>(EXAMPLES).flatMap(([name, list]) =>
  list.map((example, index) => ({ name, number: index + 1, ...example })),
);

/**
 * A problem with these options, the texts of its main kernels, what those would be if its options
 * filled no slots, and the texts of all of its kernels.
 */
async function planned({ options, batch = B }: Pick<Example, "options" | "batch">) {
  const texts: string[] = [];
  const bare: string[] = [];
  const all: string[] = [];
  const own = nowhere(all);
  const make = ({ shape }: typeof q) => ({ shape: [batch, ...shape.slice(1)] });
  const scores = typeof options === "function" ? options(own) : options;
  const problem = { q: make(q), k: make(k), v: make(k), ...scores } as TakenProblem;
  const { resolved } = await assemblePlan(own, problem, async (checked) => {
    const kernels = await chooseKernels(own, checked);
    const filled = checked.options.flatMap(({ slots = {} }) => Object.keys(slots));
    const stagesOf = async (slots: SlotChoice) => {
      const rest = Object.entries(slots).filter(([slot]) => !filled.includes(slot));
      const without = await kernels.stagesOf(Object.fromEntries(rest) as unknown as SlotChoice);
      const stages = await kernels.stagesOf(slots);
      bare.push(...without.map(({ source }) => source.code));
      texts.push(...stages.map(({ source }) => source.code));
      return stages;
    };
    return { ...kernels, stagesOf };
  });
  return { resolved, texts, bare, all };
}

/**
 * Returns the members of the uniform that an option gives, and those that say where its tables lie.
 */
const membersOf = ({ tables = [], params }: PresentOption) => [
  ...tables.map(({ at }) => at as string),
  ...Object.keys(params?.(new Map()) ?? {}),
];

/** The value of a constant of a kernel's text that is true, false, or an OR of such constants. */
function constantOf(text: string, name: string): boolean {
  const value = new RegExp(`^const ${name} = ([^;]*);`, "m").exec(text)?.[1];
  if (value === undefined) throw new Error(`the text has no constant ${name}`);
  if (value === "true" || value === "false") return value === "true";
  return value.split(" || ").some((term) => constantOf(text, term));
}

describe.each(examples)("$name, example $number", ({ options, keeps, batch = B }) => {
  const plan = planned({ options, batch });
  const plain = planned({ options: {} });

  it("is an option of the problem, which leaves of plain attention what it says", async () => {
    const { resolved } = await plan;
    expect(resolved.options.map((option) => option.keeps)).toEqual([keeps]);
  });

  it("changes the text of every kernel, whatever else does", async () => {
    const { texts, bare } = await plan;
    expect(texts.length).toBeGreaterThan(0);
    for (const [index, text] of texts.entries()) expect(text).not.toBe(bare[index]);
  });

  it("has members of the uniform that kernels read", async () => {
    const { resolved, all } = await plan;
    const read = new Set([...all.join("\n").matchAll(/\bparams\.(\w+)/g)].map(([, name]) => name));
    for (const member of resolved.options.flatMap(membersOf)) {
      expect(PARAMS.has(member), member).toBe(true);
      if (!member.startsWith("cu_") || batch === 1) expect(read, member).toContain(member);
    }
  });

  it("is in MODIFIED of shaders/lib/units.wesl if scores come about in another way", async () => {
    const { resolved, texts } = await plan;
    const [text] = texts.filter((one) => one.includes("const MODIFIED"));
    // Sums of additive scores take the place of products: what is done to them is plain.
    const isAdditive = resolved.similarity?.kind === "additive";
    expect(constantOf(text, "MODIFIED")).toBe(keeps === "nothing" && !isAdditive);
  });

  it("is in the name of the problem that tuning keeps", async () => {
    const names = [await plan, await plain].map(({ resolved }) => problemName(device, resolved));
    expect(names[0]).not.toBe(names[1]);
  });
});

describe("options of scores", () => {
  it("are those that calls read", () => {
    const plainOptions = {
      causal: true,
      scale: true,
      window: true,
      attentionChunk: true,
      sinkTokens: true,
      maxSeqlenQ: true,
      maxSeqlenKv: true,
    } satisfies Record<PlainOption, true>;
    const all = [...Object.keys(plainOptions), ...Object.keys(EXAMPLES)];
    expect(Object.keys(SCORE_OPTIONS).sort()).toEqual(all.sort());
  });

  it("fill every slot but those of tensors, caches and results", async () => {
    const SLOTS = {
      q: false,
      k: false,
      v: false,
      o: false,
      cache: false,
      sequence: true,
      tables: false,
      lse: false,
      rowMax: false,
      similarity: true,
      temperature: true,
      softcap: true,
      bias: true,
      relativeBias: true,
      alibi: true,
      sinks: true,
      dropout: true,
      largeScale: false,
      longRows: false,
      maskTensor: true,
      score: true,
      mask: true,
      probability: false,
      blocks: true,
    } satisfies Record<keyof SlotChoice, boolean>;
    const plans = await Promise.all(examples.map(planned));
    const filled = plans.flatMap(({ resolved }) =>
      resolved.options.flatMap(({ slots }) => Object.keys(slots ?? {})),
    );
    const expected = Object.entries(SLOTS).flatMap(([slot, isOptions]) => (isOptions ? slot : []));
    expect([...new Set(filled)].sort()).toEqual(expected.sort());
  });
});

/** The options that may be a tensor. */
type TensorOption<Options> = {
  [Name in keyof Options]-?: Tensor extends NonNullable<Options[Name]> ? Name : never;
}[keyof Options];

describe("tensors of options", () => {
  const make = (shape: readonly number[], dtype: "f32" | "i32" | "u8" = "f32") =>
    tensor(device, shape, { dtype });
  const entries = make([B], "i32");
  const heads = make([H]);
  const row = make([D]);
  const lists = {
    cuSeqlensQ: make([B + 1], "i32"),
    cuSeqlensKv: make([B + 1], "i32"),
    maxSeqlenQ: M,
    maxSeqlenKv: N,
  };
  const additive = { kind: "additive", innerBias: row, normalize: true, gain: heads } as const;
  const bound = {
    mask: { mask: make([M, N], "u8") },
    bias: { bias: make([M, N]) },
    qLengths: { qLengths: entries },
    kvLengths: { kvLengths: entries },
    queryOffset: { queryOffset: entries },
    cuSeqlensQ: lists,
    cuSeqlensKv: lists,
    alibiSlopes: { alibiSlopes: heads },
    sinks: { sinks: heads },
    temperature: { temperature: heads },
    logTemperature: { logTemperature: heads },
    relativeBias: { relativeBias: { table: make([8, H]) } },
    qWeights: { similarity: { kind: "l2", qWeights: row } },
    kWeights: { similarity: { kind: "l2", kWeights: row } },
    vector: { similarity: { ...additive, vector: row } },
    innerBias: { similarity: additive },
    gain: { similarity: additive },
  } satisfies Record<
    | TensorOption<ScoreOptions>
    | TensorOption<AdditiveSimilarity>
    | TensorOption<NormalizedSimilarity>
    | "relativeBias",
    TakenScores
  >;
  const names = Object.keys(bound) as (keyof typeof bound)[];

  it.each(names)("are bound by the name %s", async (name) => {
    const batch = name.startsWith("cu") ? 1 : B;
    const options = bound[name];
    const shape = (rows: number) => ({ shape: [batch, H, rows, D] });
    const problem = { q: shape(M), k: shape(N), v: shape(N), ...options } as TakenProblem;
    const { operands } = await preparePlan(device, problem);
    const bindable: keyof AttentionBindings = name;
    expect([...operands.keys()]).toContain(bindable);
  });
});
