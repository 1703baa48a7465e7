// The hot kernels as devices get them, and what their instructions have to be.

import { DECODE_SHAPES, type DecodeShape, decodeKernel } from "../../src/kernels/decode.ts";
import { forwardKernel } from "../../src/kernels/forward.ts";
import { FORWARD_TILES, type ForwardTile } from "../../src/kernels/forward_tiles.ts";
import { backwardKernel } from "../../src/kernels/gradients/backward.ts";
import { BACKWARD_TILES } from "../../src/kernels/gradients/backward_tiles.ts";
import { TURNED_TILES, turnedKernel } from "../../src/kernels/gradients/matmul_turned.ts";
import { MATMUL_TILES, type MatmulTile, matmulKernel } from "../../src/kernels/matmul.ts";
import { matvecKernel, matvecShape } from "../../src/kernels/products/matvec.ts";
import { PLAIN, type SlotChoice } from "../../src/kernels/slots.ts";
import type { IsaKernel } from "./compiler.ts";
import type { IsaReport } from "./disassembly.ts";

/** The limits that a report must keep to. */
export interface IsaLimits {
  /**
   * Least share of multiply-adds among the vector instructions of a turn of the key loop, rescales
   * aside.
   */
  readonly fmaShare?: number;
  readonly vgprs: number;
  readonly workgroupBytes: number;
  /** Registers that may be spilled. Default none. */
  readonly spills?: number;
  /** Least multiply-adds for each word that moves to or from workgroup memory. */
  readonly fmaPerWord?: number;
  /**
   * Least multiply-adds of the formula for each vector instruction of such a turn, for kernels
   * whose instructions do two: `count` of them a lane. Sums of bursts don't count, though the
   * compiler makes multiply-adds of them.
   */
  readonly fmaPerInstruction?: { readonly least: number; readonly count: number };
}

export interface HotKernel extends IsaKernel {
  readonly limits: IsaLimits;
}

const HALF: SlotChoice = { q: "f16-packed", k: "f16-packed", v: "f16-packed", o: "f16-packed" };

const READ_AS_HALF: SlotChoice = { q: "f16", k: "f16", v: "f16", o: "f16" };

const named = <T extends { readonly name: string }>(rows: readonly T[], name: string): T => {
  const found = rows.find((row) => row.name === name);
  if (!found) throw new Error(`there is no ${name}`);
  return found;
};
const tile = (name: string): ForwardTile => named(FORWARD_TILES, name);
const shape = (name: string): DecodeShape => named(DECODE_SHAPES, name);
const matmulTile = (name: string): MatmulTile => named(MATMUL_TILES, name);

async function forward(
  name: string,
  headDim: number,
  limits: IsaLimits,
  slots: SlotChoice = PLAIN,
): Promise<HotKernel> {
  const { code } = await forwardKernel({ headDim, vDim: headDim, tile: tile(name), ...slots });
  return { name: `forward ${name} D=${headDim}${slots === PLAIN ? "" : " f16"}`, code, limits };
}

/** A lane's share of a turn is 4 rows x 64 keys, or half as many with twice the head dim. */
async function half(name: string, headDim: number): Promise<HotKernel> {
  const kernel = await forward(
    name,
    headDim,
    { vgprs: 192, workgroupBytes: 32768, fmaPerWord: 2.4 },
    READ_AS_HALF,
  );
  return {
    ...kernel,
    limits: { ...kernel.limits, fmaPerInstruction: { least: 1.3, count: 4096 } },
  };
}

async function decode(name: string, rows: number, limits: IsaLimits): Promise<HotKernel> {
  const specialisation = { headDim: 64, vDim: 64, tile: { ...shape(name), rows }, ...PLAIN };
  return {
    name: `${name} D=64 rows=${rows}`,
    code: (await decodeKernel("decode", specialisation)).code,
    limits,
  };
}

function matmul(name: string, limits: IsaLimits): HotKernel {
  const access = { x: "dense", weight: "dense", bias: "dense", y: "dense" } as const;
  const specialisation = {
    tile: matmulTile(name),
    ...access,
    columnsAdjacent: false,
    oddColumns: undefined,
  };
  return { name: `matmul ${name}`, code: matmulKernel(specialisation).code, limits };
}

/** A product of few rows with a weight of f32, or of integers of so many bits. */
function matvec(weight: 8 | 4 | "f32" | "columns", rows: number, limits: IsaLimits): HotKernel {
  const isInteger = typeof weight === "number";
  const group = weight === 4 ? 32 : 128;
  const { code } = matvecKernel({
    shape: matvecShape({ rows, columnsAdjacent: weight === "columns" }, { software: false }),
    x: "dense",
    weight: isInteger ? "words" : "dense",
    quantised: isInteger ? { bits: weight, group } : undefined,
    bias: "dense",
    y: "dense",
    oddColumns: undefined,
    endsWithinVec4: false,
  });
  return { name: `matvec ${isInteger ? `int${weight}` : weight} rows=${rows}`, code, limits };
}

function backward(
  kernel: "queries" | "keys",
  name: string,
  headDim: number,
  limits: IsaLimits,
): HotKernel {
  const tile = named(BACKWARD_TILES, name);
  const gradients = { dOutput: "dense", dV: "dense", dLse: false } as const;
  const specialisation = { ...PLAIN, ...gradients, kernel, headDim, vDim: headDim, tile };
  const { code } = backwardKernel(specialisation);
  return { name: `backward ${kernel} ${name} D=${headDim}`, code, limits };
}

/** The gradient of a weight, `dW`, or of what it is multiplied by, `dX`. */
function turned(name: string, which: "dW" | "dX", limits: IsaLimits, carried = false): HotKernel {
  const { code } = turnedKernel({
    tile: named(TURNED_TILES, name),
    source: "dense",
    weight: "dense",
    o: "dense",
    sourceTurned: which === "dW",
    grouped: false,
    carried,
    oddColumns: undefined,
  });
  return { name: `matmul_turned ${name} ${which}${carried ? " long" : ""}`, code, limits };
}

/** The guaranteed limit of WebGPU. */
const SMALL = 16384;

export const hotKernels = (): Promise<HotKernel[]> =>
  Promise.all([
    forward("64x64", 64, { fmaShare: 0.88, vgprs: 224, workgroupBytes: 32768, fmaPerWord: 3.5 }),
    forward("64x32", 64, { fmaShare: 0.84, vgprs: 192, workgroupBytes: SMALL, fmaPerWord: 2.4 }),
    forward(
      "64x32",
      64,
      { fmaShare: 0.82, vgprs: 192, workgroupBytes: SMALL, fmaPerWord: 2.39 },
      HALF,
    ),
    forward("64x32", 128, { fmaShare: 0.87, vgprs: 256, workgroupBytes: SMALL, fmaPerWord: 2.4 }),
    forward("64x32-wide", 128, {
      fmaShare: 0.87,
      vgprs: 256,
      workgroupBytes: 32768,
      fmaPerWord: 2.9,
    }),
    forward("32x32", 256, { fmaShare: 0.88, vgprs: 256, workgroupBytes: SMALL }),
    forward("64x4", 64, { fmaShare: 0.94, vgprs: 168, workgroupBytes: 1024 }),
    forward("64x4", 96, { fmaShare: 0.94, vgprs: 232, workgroupBytes: 1024 }),
    half("64x64-f16", 64),
    half("64x32-f16", 128),
    // Memory limits decoding, so registers count: fewer of them leave room for waves that hide its
    // latency.
    decode("decode-64", 1, { vgprs: 64, workgroupBytes: SMALL }),
    decode("decode-64", 4, { vgprs: 128, workgroupBytes: SMALL }),
    decode("decode-64", 8, { vgprs: 256, workgroupBytes: SMALL }),
    decode("decode-64-quad", 1, { vgprs: 128, workgroupBytes: 2048 }),
    decode("decode-64-quad", 4, { vgprs: 256, workgroupBytes: 2048, spills: 3 }),
    backward("queries", "32x64", 64, { fmaShare: 0.85, vgprs: 256, workgroupBytes: SMALL }),
    backward("keys", "32x64", 64, { fmaShare: 0.85, vgprs: 256, workgroupBytes: SMALL }),
    backward("queries", "32x64", 128, { fmaShare: 0.8, vgprs: 256, workgroupBytes: SMALL }),
    backward("keys", "32x64", 128, { fmaShare: 0.8, vgprs: 256, workgroupBytes: SMALL }),
    matmul("64x64", { fmaShare: 0.87, vgprs: 168, workgroupBytes: SMALL, fmaPerWord: 2.4 }),
    // Memory limits these, too.
    matvec("f32", 1, { vgprs: 64, workgroupBytes: 2048 }),
    matvec("f32", 8, { vgprs: 128, workgroupBytes: SMALL }),
    matvec("columns", 1, { vgprs: 64, workgroupBytes: 2048 }),
    matvec(8, 1, { vgprs: 64, workgroupBytes: 2048 }),
    matvec(8, 8, { vgprs: 128, workgroupBytes: SMALL }),
    matvec(4, 1, { vgprs: 64, workgroupBytes: 2048 }),
    matvec(4, 8, { vgprs: 168, workgroupBytes: SMALL }),
    turned("64x64", "dX", { fmaShare: 0.89, vgprs: 128, workgroupBytes: SMALL, fmaPerWord: 2.4 }),
    turned("64x64", "dW", { fmaShare: 0.92, vgprs: 128, workgroupBytes: SMALL, fmaPerWord: 2.4 }),
    // The loop that the report counts is that of blocks, with the end of a block after one chunk.
    turned("64x64", "dW", { vgprs: 176, workgroupBytes: SMALL, fmaPerWord: 2.4 }, true),
    turned("32x32", "dX", { fmaShare: 0.82, vgprs: 64, workgroupBytes: SMALL }),
    turned("32x32", "dW", { fmaShare: 0.86, vgprs: 64, workgroupBytes: SMALL }),
  ]);

/** Returns the share of multiply-adds among vector instructions. */
export const fmaShare = ({ loop }: IsaReport): number => loop.fma / loop.valu;
/** Returns the same share, without what most turns branch over. */
export const steadyShare = ({ steady }: IsaReport): number => steady.fma / steady.valu;
export const fmaPerWord = ({ steady }: IsaReport): number => steady.fmaOps / steady.ldsWords;

export const fmaPerInstruction = (
  { steady }: IsaReport,
  { fmaPerInstruction: asked }: IsaLimits,
): number => (asked?.count ?? steady.fmaOps) / steady.valu;

/** Says in words which limits a report breaks. */
export function broken(report: IsaReport, limits: IsaLimits): string[] {
  const checks: [holds: boolean, what: string][] = [
    [report.spills <= (limits.spills ?? 0), `${report.spills} registers spilled`],
    [
      report.vgprs <= limits.vgprs,
      `${report.vgprs} vector registers, at most ${limits.vgprs} allowed`,
    ],
    [
      report.workgroupBytes <= limits.workgroupBytes,
      `${report.workgroupBytes} bytes of workgroup memory, at most ${limits.workgroupBytes} allowed`,
    ],
    [
      !(steadyShare(report) < (limits.fmaShare ?? 0)),
      `${percent(steadyShare(report))} multiply-adds, at least ${percent(limits.fmaShare ?? 0)} asked for`,
    ],
    [
      !(fmaPerWord(report) < (limits.fmaPerWord ?? 0)),
      `${fmaPerWord(report).toFixed(2)} multiply-adds a word, at least ${limits.fmaPerWord} asked for`,
    ],
    [
      !(fmaPerInstruction(report, limits) < (limits.fmaPerInstruction?.least ?? 0)),
      `${fmaPerInstruction(report, limits).toFixed(3)} multiply-adds an instruction, at least ${limits.fmaPerInstruction?.least} asked for`,
    ],
  ];
  return checks.filter(([holds]) => !holds).map(([, what]) => `${report.name}: ${what}`);
}

export const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
