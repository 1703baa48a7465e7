// What a compiled kernel is made of: statistics of the driver, and instructions counted along its
// loops.

/** Instructions by kind, and words (4 bytes a lane) that move. */
export interface Counts {
  /** All instructions. */
  readonly all: number;
  /** Instructions of the vector unit. */
  readonly valu: number;
  /**
   * Multiply-adds among the vector unit's instructions, and how many of them a lane does: an
   * instruction on packed halves does two. A packed product counts as one, because it begins the
   * sum of a burst.
   */
  readonly fma: number;
  readonly fmaOps: number;
  /** Reciprocals, exponentials and their like. */
  readonly transcendental: number;
  /** Instructions between lanes: v_readlane and DPP. */
  readonly lane: number;
  readonly ldsWords: number;
  readonly loads: number;
  readonly scalarLoads: number;
  readonly barriers: number;
}

export interface IsaReport {
  readonly name: string;
  /**
   * Vector registers of a lane, registers that spilled to memory, and bytes of workgroup memory.
   */
  readonly vgprs: number;
  readonly spills: number;
  readonly workgroupBytes: number;
  /** Waves of 64 lanes that a SIMD holds at a time. */
  readonly waves: number;
  readonly instructions: number;
  /**
   * One turn of the outermost loop with the most multiply-adds: the loop over keys. Everything, if
   * there is no such loop.
   */
  readonly loop: Counts;
  /** What most turns do: no rescale, no masks of a tile at the edge. */
  readonly steady: Counts;
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

interface Block {
  readonly id: number;
  readonly instructions: string[];
}

/** A loop as a range of blocks, both inclusive. The compiler lays loops out in one piece. */
interface Loop {
  readonly first: number;
  readonly last: number;
}

const zero = (): Mutable<Counts> => ({
  all: 0,
  valu: 0,
  fma: 0,
  fmaOps: 0,
  transcendental: 0,
  lane: 0,
  ldsWords: 0,
  loads: 0,
  scalarLoads: 0,
  barriers: 0,
});

function add(to: Mutable<Counts>, counts: Counts, times = 1): void {
  for (const kind of Object.keys(to) as (keyof Counts)[]) to[kind] += counts[kind] * times;
}

/** Reads what RADV prints with RADV_DEBUG=shaders,shaderstats. */
export function parseReport(name: string, text: string): IsaReport {
  const statistics = text.slice(text.lastIndexOf("*** SHADER STATS ***"));
  const number = (label: string) =>
    Number(new RegExp(`^${label}: (\\d+)`, "m").exec(statistics)?.[1] ?? Number.NaN);
  const blocks = blocksOf(
    text.slice(text.lastIndexOf("disasm:"), text.lastIndexOf("*** SHADER STATS ***")),
  );
  const loops = loopsOf(blocks);
  const outermost = loops.filter(
    (one) => !loops.some((other) => other !== one && contains(other, one)),
  );
  const counted = outermost.map((one) => turn(one, blocks, loops));
  const most = counted.indexOf(counted.reduce((a, b) => (b.fmaOps > a.fmaOps ? b : a), counted[0]));
  const whole = zero();
  for (const block of blocks) add(whole, countsOf(block.instructions));
  return {
    name,
    vgprs: number("VGPRs"),
    spills: number("Spilled VGPRs"),
    workgroupBytes: number("LDS size"),
    waves: number("Subgroups per SIMD"),
    instructions: number("Instructions"),
    loop: counted[most] ?? whole,
    steady: outermost[most] ? steadyTurn(outermost[most], blocks, loops) : whole,
  };
}

function blocksOf(disassembly: string): Block[] {
  const blocks: Block[] = [];
  for (const line of disassembly.split("\n")) {
    const label = /^BB(\d+):/.exec(line);
    const instruction = /^\t(.+?)\s*;/.exec(line);
    if (label) blocks.push({ id: Number(label[1]), instructions: [] });
    else if (instruction) blocks.at(-1)?.instructions.push(instruction[1]);
  }
  return blocks;
}

/** Returns where an instruction jumps to, as an index of blocks. */
function jump(blocks: readonly Block[], instruction: string): number {
  const target = /^s_c?branch\w*\s+BB(\d+)/.exec(instruction)?.[1];
  return target === undefined ? -1 : blocks.findIndex(({ id }) => id === Number(target));
}

/** Finds the loops by their jumps back. */
function loopsOf(blocks: readonly Block[]): Loop[] {
  const ends = new Map<number, number>();
  for (const [index, { instructions }] of blocks.entries()) {
    for (const instruction of instructions) {
      const first = jump(blocks, instruction);
      if (first >= 0 && first <= index) ends.set(first, Math.max(ends.get(first) ?? -1, index));
    }
  }
  return [...ends].map(([first, last]) => ({ first, last }));
}

const contains = (outer: Loop, inner: Loop) =>
  outer.first <= inner.first && inner.last <= outer.last;

/** Returns the loops right inside another. */
const inside = (outer: Loop, loops: readonly Loop[]) => {
  const all = loops.filter((one) => one !== outer && contains(outer, one));
  return all.filter((one) => !all.some((other) => other !== one && contains(other, one)));
};

/** Counts one turn of a loop: every block of it, with all turns of the loops in it. */
function turn(loop: Loop, blocks: readonly Block[], loops: readonly Loop[]): Counts {
  const inner = inside(loop, loops);
  const sum = zero();
  for (let index = loop.first; index <= loop.last; index++) {
    const own = !inner.some(({ first, last }) => first <= index && index <= last);
    if (own) add(sum, countsOf(blocks[index].instructions));
  }
  for (const one of inner) add(sum, turn(one, blocks, loops), turnsOf(one, blocks, loops));
  return sum;
}

/**
 * Counts the way through a turn that multiplies the most, and does the least else: the longest path
 * through the blocks, in which an inner loop counts as one block.
 */
function steadyTurn(loop: Loop, blocks: readonly Block[], loops: readonly Loop[]): Counts {
  const inner = inside(loop, loops);
  const best = new Map<number, Counts>([[loop.first, zero()]]);
  let end: Counts = zero();
  const better = (a: Counts, b: Counts | undefined) =>
    !b || a.fmaOps > b.fmaOps || (a.fmaOps === b.fmaOps && a.valu < b.valu);
  for (let index = loop.first; index <= loop.last; index++) {
    const reached = best.get(index);
    if (!reached) continue;
    const within = inner.find(({ first }) => first === index);
    const counts = zero();
    add(counts, reached);
    if (within) add(counts, steadyTurn(within, blocks, loops), turnsOf(within, blocks, loops));
    else add(counts, countsOf(blocks[index].instructions));
    for (const next of leaving(within ?? { first: index, last: index }, blocks)) {
      if (next === loop.first && better(counts, end)) end = counts; // the turn is over
      if (next > index && next <= loop.last && better(counts, best.get(next)))
        best.set(next, counts);
    }
  }
  return end;
}

/** Returns the blocks that a range of blocks leads to. */
function leaving({ first, last }: Loop, blocks: readonly Block[]): number[] {
  const targets = blocks
    .slice(first, last + 1)
    .flatMap(({ instructions }) => instructions.map((one) => jump(blocks, one)));
  const ended = /^s_(?:branch|endpgm|setpc)/.test(blocks[last].instructions.at(-1) ?? "");
  return [...targets, ...(ended ? [] : [last + 1])].filter(
    (to) => to >= 0 && (to < first || to > last || to === first),
  );
}

/** Returns the turns of a loop whose counter meets a constant, or 1 if that can't be seen. */
function turnsOf(loop: Loop, blocks: readonly Block[], loops: readonly Loop[]): number {
  const inner = inside(loop, loops);
  const own = blocks
    .slice(loop.first, loop.last + 1)
    .filter(
      (_, at) =>
        !inner.some(({ first, last }) => first <= loop.first + at && loop.first + at <= last),
    )
    .flatMap(({ instructions }) => instructions);
  const before = blocks.slice(0, loop.first).flatMap(({ instructions }) => instructions);
  for (const instruction of own) {
    const compared = /^s_cmpk?_\w+ (s\d+), (\S+)/.exec(instruction);
    if (!compared) continue;
    const [, register, limit] = compared;
    const find = (list: readonly string[], pattern: string) =>
      Number(
        list
          .map((text) => new RegExp(pattern).exec(text)?.[1])
          .findLast((found) => found !== undefined),
      );
    const step = find(own, `^s_add\\w* ${register}, (?:${register}, )?(\\S+)`);
    const start = find(before, `^s_mov(?:k_i32|_b32) ${register}, (\\S+)`) || 0;
    const turns = Math.ceil((Number(limit) - start) / step);
    if (turns > 0 && turns <= 4096) return turns;
  }
  return 1;
}

function countsOf(instructions: readonly string[]): Counts {
  const counts = zero();
  for (const instruction of instructions) {
    const [name] = instruction.split(/\s/);
    counts.all++;
    if (name.startsWith("v_")) {
      counts.valu++;
      const packed = /^v_(?:pk_(?:fma|fmac|mul)_f16|dot2)/.test(name);
      if (packed || /^v_(?:fma_mix|(?:fma|fmac|fmaak|fmamk|mac|mad)_f)/.test(name)) {
        counts.fma++;
        counts.fmaOps += packed ? 2 : 1;
      }
      if (/^v_(?:exp|log|rcp|rsq|sqrt|sin|cos)_/.test(name)) counts.transcendental++;
      if (/readlane|permlane|_dpp/.test(name) || /quad_perm|row_/.test(instruction)) counts.lane++;
    } else if (/^ds_(?:read|write|load|store)/.test(name)) {
      counts.ldsWords += wordsOf(name) * (/(?:read|write)2|_2addr/.test(name) ? 2 : 1);
    } else if (/^(?:buffer|global|flat)_load/.test(name)) counts.loads++;
    else if (/^s_(?:buffer_)?load/.test(name)) counts.scalarLoads++;
    else if (name === "s_barrier") counts.barriers++;
  }
  return counts;
}

const wordsOf = (name: string) =>
  Math.max(1, Number(/_[bui](128|96|64|32)\b/.exec(name)?.[1] ?? 32) / 32);
