// Calls that need other kernels each time. What is kept of these is bounded, belongs to the device,
// and can be released.

import {
  attention,
  createBlockMask,
  maskFunction,
  planAttention,
  release,
  type ScoreFunction,
  scoreFunction,
  softmax,
  tensor,
} from "../../src/index.ts";
import { overridden } from "../support/overridden.ts";
import { drop, type LeakCase, rejected } from "./lab.ts";

const SHAPE = [1, 2, 4, 8];
/** Text that a compiler refuses: `head` is an unsigned number. */
const BROKEN = "fn score(s: f32, at: Position) -> f32 { return s + at.head; }";
const BROKEN_MASK = "fn mask(at: Position) -> bool { return at.head; }";
/** As long as the texts of models are. */
const PADDING = `// ${"a line that makes the text longer. ".repeat(30)}`;

const scoreText = (n: number) =>
  `fn score(s: f32, at: Position) -> f32 {\n  ${PADDING}\n  return s + ${n}.0;\n}`;
const scored = (n: number): ScoreFunction => scoreFunction(scoreText(n));

export const TEXT_CASES: readonly LeakCase[] = [
  {
    name: "texts: another score function each time",
    links: true,
    start: (lab) => {
      const q = lab.rows(SHAPE);
      return async (n) => drop(await attention(q, q, q, { scoreFunction: scored(n) }));
    },
  },
  {
    name: "texts: another mask function each time",
    links: true,
    start: (lab) => {
      const q = lab.rows(SHAPE);
      return async (n) => {
        const mask = maskFunction(`fn mask(at: Position) -> bool { return at.kv_idx != ${n}u; }`);
        const blockMask = await createBlockMask(lab.device, mask, { seqQ: 4, seqKv: 4 });
        drop(await attention(q, q, q, { blockMask }));
        blockMask.destroy();
      };
    },
  },
  {
    name: "texts: functions with captures",
    start: (lab) => {
      const q = lab.rows(SHAPE);
      const text = "fn score(s: f32, at: Position) -> f32 { return s * factor + table[at.head]; }";
      return async (n) => {
        const table = tensor(lab.device, [2], { data: [n, 1] });
        const score = scoreFunction(text, { captures: { factor: n, table } });
        drop(await attention(q, q, q, { scoreFunction: score }));
        table.destroy();
        await rejected("destroyed", () =>
          attention(q, q, q, { scoreFunction: score, kvLengths: [3] }),
        );
      };
    },
  },
  {
    name: "texts: that do not compile",
    links: true,
    start: (lab) => {
      const q = lab.rows(SHAPE, "f32", lab.real);
      return async (n) => {
        const options = {
          scoreFunction: scoreFunction(n % 2 ? BROKEN : `${BROKEN}\n// ${n}`),
          kvLengths: [3],
        };
        if (n % 4 < 2) await rejected("shader", () => attention(q, q, q, options));
        else
          await rejected("shader", () =>
            planAttention(lab.real, { q, k: q, v: q, kvSplits: 2, ...options }),
          );
        await rejected("shader", () =>
          createBlockMask(lab.real, maskFunction(BROKEN_MASK), { seqQ: 4, seqKv: 4 }),
        );
      };
    },
  },
  {
    name: "texts: that are refused at the door",
    start: () => async (n) => {
      await rejected("argument", () =>
        scoreFunction(`fn score(s: f32) -> f32 { return s + ${n}.0; }`),
      );
      await rejected("argument", () => scoreFunction("enable f16;"));
    },
  },
  {
    name: "300 head dims",
    links: true,
    start: (lab) => async (n) => {
      const q = tensor(lab.device, [1, 1, 4, 1 + (n % 300)]);
      drop(await attention(q, q, q));
      drop(await softmax(q));
      q.destroy();
    },
  },
  {
    name: "release of a device with texts",
    links: true,
    start: (lab) => {
      const q = lab.rows(SHAPE);
      return async (n) => {
        for (const text of [2 * n, 2 * n + 1])
          drop(await attention(q, q, q, { scoreFunction: scored(text) }));
        if (n % 8 === 7) release(lab.device);
      };
    },
  },
  {
    name: "devices that are forgotten",
    links: true,
    start: (lab) => async (n) => {
      // a device that nobody has seen before
      const device = overridden(lab.device, { lost: new Promise(() => {}) });
      const q = tensor(device, SHAPE);
      drop(await attention(q, q, q, { scoreFunction: scored(n % 300) }));
      q.destroy();
    },
  },
];
