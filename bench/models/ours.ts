// The decoders by fovea/models: sessions, and generate.

import { generate, Model } from "../../src/models/index.ts";
import type { BoundBy } from "../peers/calls.ts";
import type { Contestant } from "../peers/contest.ts";
import { type Decoder, decodingContestant, type Task, TOKENS } from "./decoding.ts";
import { checkpointOf, type LlamaSizes, rowBytes, weightBytes } from "./llama.ts";

const KERNEL = "recorded program";

/** The logits of the row of the last token of a text. */
async function logitsAfter(stream: ReturnType<typeof generate>): Promise<Float32Array> {
  for await (const { logits } of stream) return logits as Float32Array;
  throw new Error("no token came");
}

/** Goes on with a text that was read before. */
export async function oursDecoding(device: GPUDevice, task: Task): Promise<Contestant> {
  const { llama, ids } = task;
  const model = await Model.load(device, checkpointOf(llama));
  const session = await model.session({ capacity: capacityOf(llama.sizes) });
  await session.append([...ids]);
  const last = [ids[ids.length - 1]];
  let stream: ReturnType<typeof generate> | undefined;
  const decoder: Decoder = {
    kernel: KERNEL,
    workspaceBytes: session.bytes,
    readShare: (boundBy) => readShareOf(task, boundBy),
    async restart() {
      await stream?.return();
      await session.truncate(ids.length - 1);
      stream = undefined;
    },
    async next() {
      // All steps that are submitted are waited for: the last one after the last token of a run.
      stream ??= generate(model, last, { session, maxNewTokens: TOKENS + 2 });
      const { value } = await stream.next();
      if (!value) throw new Error("the text has ended");
      return value.token;
    },
    idle: () => device.queue.onSubmittedWorkDone(),
    logits: () => logitsAfter(generate(model, last, { session, maxNewTokens: 1, logits: true })),
    destroy: () => model.destroy(),
  };
  return decodingContestant(decoder, task);
}

/**
 * Bytes of weights and caches that a run reads, of those that it has to read once for each token. A
 * weight is read by each dispatch that has it bound, of the embedding one row, and a cache by every
 * second one: the other appends the token.
 */
function readShareOf({ llama, ids }: Task, boundBy: BoundBy): number {
  const { sizes, weights } = llama;
  const names = new Map([...weights].map(([name, one]) => [name.replace(/^model\./, ""), one]));
  // The first of the steps is the one after the untimed one.
  const rows = ids.length + (TOKENS + 1) / 2;
  let bytes = 0;
  for (const [{ label, size }, times] of boundBy) {
    const weight = names.get(label);
    if (label === "embed_tokens.weight") bytes += times * 4 * sizes.width;
    else if (weight) bytes += times * 4 * weight.data.length;
    else if (/ cache [kv]$/.test(label)) bytes += (times / 2) * size * (rows / sizes.positions);
  }
  return bytes / (TOKENS * (weightBytes(sizes) + rows * rowBytes(sizes)));
}

/** Reads a text, and tells the first token after it. */
export async function oursPrompt(
  device: GPUDevice,
  { llama, ids }: Task,
  chunk?: number,
): Promise<Contestant> {
  const model = await Model.load(device, checkpointOf(llama));
  const capacity = capacityOf(llama.sizes);
  const session = await model.session({ capacity, ...(chunk !== undefined && { chunk }) });
  const answer = async (logits: boolean) => {
    const stream = generate(model, [...ids], { session, maxNewTokens: 1, logits });
    const { value } = await stream.next();
    await stream.return();
    if (!value) throw new Error("no token came");
    return value;
  };
  const prepare = () => session.truncate(0);
  return {
    kernel: KERNEL,
    workspaceBytes: session.bytes,
    prepare,
    run: () => answer(false),
    async read() {
      await prepare();
      const { logits } = await answer(true);
      await prepare();
      const { token } = await answer(false);
      return [...(logits as Float32Array), token];
    },
    destroy: () => model.destroy(),
  };
}

/** Tokens that caches have room for. */
export const capacityOf = ({ positions }: LlamaSizes) => positions;
