// The library needs no document: the same code runs in a worker.

import { expect, it } from "vitest";
import { attention as reference, worstElement } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";

it("attention runs in a worker", async () => {
  const shape = [1, 2, 40, 16];
  const [q, k, v] = [1, 2, 3].map((seed) => normal(seed, 2 * 40 * 16));
  const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
  const answer = await new Promise<{ output: Float32Array; hasDocument: boolean }>(
    (resolve, reject) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = (event) => reject(new Error(event.message));
      worker.postMessage({ shape, q, k, v });
    },
  );
  worker.terminate();
  expect(answer.hasDocument).toBe(false);
  const [a, b, c] = [q, k, v].map((data) => ({ data, shape }));
  const expected = reference(a, b, c, { causal: true }).output;
  expect(worstElement(answer.output, expected, shape).error).toBeLessThan(1e-5);
});
