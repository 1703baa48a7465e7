// Tensors and timers that are made, refused, read, written and looked at.

import { attention, createGpuTimer, layerNorm, type Tensor, tensor } from "../../src/index.ts";
import { drop, type LeakCase, rejected } from "./lab.ts";

const SHAPE = [1, 2, 4, 8];

export const TENSOR_CASES: readonly LeakCase[] = [
  {
    name: "tensor: make, look at, destroy",
    start:
      ({ device }) =>
      async (n) => {
        const made = tensor(device, [4, 1 + (n % 7)], {
          data: new Float32Array(4 * (1 + (n % 7))),
        });
        await made.permute(1, 0).slice(1, 1, 3).allocated;
        made.destroy();
      },
  },
  {
    name: "tensor: memory refused",
    start: (lab) => async () => {
      const refused = lab.refused(SHAPE);
      await rejected("out-of-memory", () => refused.allocated);
      await rejected("out-of-memory", () => refused.read());
      refused.destroy();
    },
  },
  {
    name: "tensor: beyond limits, malformed",
    start:
      ({ device }) =>
      async () => {
        await rejected("limit", () => tensor(device, [2 ** 40]));
        await rejected("argument", () => tensor(device, [2, -1]));
        await rejected("argument", () => tensor(device, [2], { data: [1] }));
      },
  },
  {
    name: "tensor: read and write",
    start: (lab) => {
      const whole = lab.rows([8, 16]);
      const halves = lab.rows([9], "f16");
      return async () => {
        await whole.write(await whole.read());
        await halves.slice(0, 1, 4).write([1, 2, 3]); // words with other elements are read first
        await whole.permute(1, 0).slice(0, 2, 5).read();
      };
    },
  },
  {
    name: "tensor: read without memory to read into",
    start: (lab) => {
      const whole = lab.rows([8, 16]);
      const halves = lab.rows([9], "f16");
      const staging = (label: string) => label.endsWith("staging");
      return async () => {
        await rejected("out-of-memory", () => lab.without(() => whole.read(), staging));
        await rejected("out-of-memory", () =>
          lab.without(() => halves.slice(0, 1, 4).write([1, 2, 3]), staging),
        );
      };
    },
  },
  {
    name: "tensor: a part of one is written again and again",
    start: (lab) => {
      const q = lab.rows(SHAPE);
      const memory = lab.rows([1000]);
      const output: Tensor = memory.view({ shape: SHAPE, offset: 64 });
      return async () => {
        await attention(q, q, q, { output });
        await layerNorm(q, { output });
      };
    },
  },
  {
    name: "tensor: a part of one, from what has no memory",
    start: (lab) => {
      const q = lab.rows(SHAPE);
      const memory = lab.rows([1000]);
      const output: Tensor = memory.view({ shape: SHAPE, offset: 64 });
      return async () => {
        const k = lab.refused(SHAPE);
        await rejected("out-of-memory", () => attention(q, k, q, { output }));
        k.destroy();
      };
    },
  },
  {
    name: "tensor: a wrapped buffer",
    start: (lab) => {
      const { buffer } = lab.rows(SHAPE);
      return async () => {
        const wrapped = tensor(lab.device, SHAPE, { buffer });
        drop(await attention(wrapped, wrapped, wrapped));
        wrapped.destroy();
      };
    },
  },
  {
    name: "timer: make, time, destroy",
    start:
      ({ device }) =>
      async () => {
        const timer = createGpuTimer(device);
        await timer.time(() => {});
        timer.destroy();
      },
  },
];
