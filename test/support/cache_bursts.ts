// Makes calls of a cache one after the other without awaiting any, and overwrites at once what they
// were given; and makes calls that must be rejected and change nothing.

import { FoveaError, type Tensor, tensor } from "../../src/index.ts";
import { type CacheModel, type Drawing, newTokens } from "./cache_model.ts";
import type { Subject } from "./cache_subjects.ts";
import { product } from "./cases.ts";

/** What is wrong with a rejected append. */
export type Rejection = "shape" | "destroyed" | "buffer" | "counts" | "target";

export type BurstCall =
  | {
      readonly append: readonly number[];
      readonly batch?: readonly number[];
      readonly rejected?: Rejection;
    }
  | { readonly truncate: readonly [entry: number, tokens: number] }
  | { readonly free: number }
  | { readonly fork: readonly [from: number, to: number] }
  | { readonly reorder: readonly number[] };

/** Everything that a burst needs. */
export interface Burst {
  readonly drawing: Drawing;
  readonly model: CacheModel;
  readonly subject: Subject;
  batchOf(batch: readonly number[] | undefined): number[];
}

/** A call, and how it must end. */
interface Made {
  readonly done: Promise<unknown> | undefined;
  readonly ends: "well" | Rejection | "limit";
}

const CODES: Readonly<Record<Exclude<Made["ends"], "well">, readonly string[]>> = {
  shape: ["argument"],
  destroyed: ["destroyed"],
  buffer: ["validation"],
  counts: ["argument"],
  target: ["argument"],
  limit: ["limit"],
};

/**
 * Makes the calls without awaiting them, and then awaits each. The model behaves as if they had
 * been made one by one.
 */
export async function runBurst(burst: Burst, calls: readonly BurstCall[]): Promise<void> {
  const { subject } = burst;
  // Batches are made ahead, because they are asynchronous, and aren't calls of the cache.
  const targets = new Map<BurstCall, Awaited<ReturnType<Subject["batch"]>>>();
  for (const call of calls) {
    const entries = "append" in call ? burst.batchOf(call.batch) : [];
    if (entries.length) targets.set(call, await subject.batch(entries));
  }
  /** Entries whose length the cache cannot know yet, since an append is going to be rejected. */
  const unsure = new Set<number>();
  const made: Made[] = [];
  for (const call of calls) {
    const target = targets.get(call);
    const one =
      "append" in call
        ? target && append(burst, call, target, unsure)
        : change(burst, call, unsure);
    if (one) made.push(one);
  }
  const ends = await Promise.allSettled(made.map(({ done }) => done));
  for (const [index, end] of ends.entries()) {
    const expected = made[index].ends;
    if (end.status === "fulfilled" && expected === "well") continue;
    const code =
      end.status === "rejected" && end.reason instanceof FoveaError ? end.reason.code : undefined;
    if (expected !== "well" && code && CODES[expected].includes(code)) continue;
    throw new Error(
      `call ${index} ought to end ${expected}, got ${end.status} ${end.status === "rejected" ? end.reason : ""}`,
    );
  }
}

function append(
  { drawing, model, subject, batchOf }: Burst,
  { append: asked, batch, rejected: wish }: Extract<BurstCall, { append: unknown }>,
  target: Awaited<ReturnType<Subject["batch"]>>,
  unsure: Set<number>,
): Made | undefined {
  const entries = batchOf(batch);
  const counts = entries.map((_, index) => asked[index] ?? 0);
  // Nobody reads a tensor if none of its rows is asked for.
  const rejected = wish === "buffer" && counts.every((count) => count === 0) ? undefined : wish;
  subject.select(target, entries);
  const { k, v, tokens } = newTokens(
    drawing,
    entries.map((entry) => model.entries[entry].length),
    counts,
  );
  const room = subject.hasRoom(entries, counts);
  // Some tokens will not be there after all, so nobody can say yet whether there is room.
  if (!room && unsure.size) return undefined;
  const given = [...counts];
  const wrong = rejected && wrongAppend(drawing, rejected, { k, v, counts: given });
  const { k: own = k, counts: list = given } = wrong ?? {};
  const before = subject.lengths;
  const done = target.append(own, v, { counts: list });
  done.catch(() => {}); // the outcome is looked at in the end
  if (rejected && rejected !== "buffer" && `${subject.lengths}` !== `${before}`) {
    throw new Error(
      `lengths changed from ${before} to ${subject.lengths} by a call that is wrong (${rejected})`,
    );
  }
  // What the call was given is the caller's again.
  list.fill(0);
  const { queue } = drawing.device;
  for (const used of [k, v])
    queue.writeBuffer(used.buffer, 0, new Float32Array(used.buffer.size / 4).fill(Number.NaN));
  k.destroy();
  if (rejected) {
    if (rejected === "buffer") for (const entry of entries) unsure.add(entry);
    return { done, ends: room || rejected !== "buffer" ? rejected : "limit" };
  }
  if (!room) return { done, ends: "limit" };
  for (const [index, entry] of entries.entries()) model.append(entry, tokens[index]);
  return { done, ends: "well" };
}

/** Puts something wrong in place of what an append is given. */
function wrongAppend(
  { device, made }: Drawing,
  rejected: Rejection,
  { k, counts }: { readonly k: Tensor; readonly v: Tensor; readonly counts: number[] },
): { readonly k?: Tensor; readonly counts?: number[] } {
  if (rejected === "counts") return { counts: counts.map(() => 1000) };
  const shape = rejected === "shape" ? [...k.shape.slice(0, 3), k.shape[3] + 1] : k.shape;
  const buffer = device.createBuffer({ size: 4 * product(shape), usage: 128 });
  const other = tensor(device, shape, { buffer });
  made.push(other);
  if (rejected === "destroyed") other.destroy();
  if (rejected === "buffer") buffer.destroy(); // nobody here can know that
  return { k: other };
}

function change(
  { model, subject }: Burst,
  call: Exclude<BurstCall, { append: unknown }>,
  unsure: Set<number>,
) {
  const { length } = model.entries;
  if ("truncate" in call || "free" in call) {
    const entry = "free" in call ? call.free : call.truncate[0];
    if (entry >= length) return undefined;
    const left = "free" in call ? 0 : model.cut(entry, call.truncate[1]);
    // What is left in a ring depends on what the entry ever had.
    if (unsure.size && !subject.isPaged) return undefined;
    const done = subject.cut(entry, left);
    model.truncate(entry, left);
    return { done, ends: "well" } as const;
  }
  if ("fork" in call) {
    const [from, to] = call.fork;
    if (from >= length || to >= length || from === to || model.entries[to].length > 0)
      return undefined;
    if (unsure.size) return undefined;
    const done = subject.fork(from, to, model.entries[from].length) ?? undefined;
    model.fork(from, to, model.entries[from].length);
    return { done, ends: "well" } as const;
  }
  const sources = model.entries.map((_, entry) => (call.reorder[entry] ?? entry) % length);
  const given = [...sources];
  const done = subject.reorder(given) ?? undefined;
  given.fill(0);
  model.reorder(sources);
  return { done, ends: "well" } as const;
}

/** Appends that must be refused at once, with nothing changed. */
export async function runRejected(
  { drawing, model, subject, batchOf }: Burst,
  rejected: Rejection,
  batch: readonly number[] | undefined,
): Promise<void> {
  const entries = batchOf(batch);
  if (!entries.length) return;
  const target = await subject.batch(entries);
  const counts = entries.map(() => 1);
  const { k, v } = newTokens(
    drawing,
    entries.map((entry) => model.entries[entry].length),
    counts,
  );
  const before = subject.known();
  const room = subject.hasRoom(entries, counts);
  const wrong = wrongAppend(drawing, rejected === "target" ? "counts" : rejected, { k, v, counts });
  let code: string | undefined;
  try {
    if (rejected === "target") {
      const plan = await target.planAppend({ k, v });
      drawing.made.push(plan);
      plan.encode({} as GPUCommandEncoder);
    } else {
      await target.append(wrong.k ?? k, v, { counts: wrong.counts ?? counts });
    }
  } catch (error) {
    code = error instanceof FoveaError ? error.code : `${error}`;
  }
  const allowed = [...CODES[rejected], ...(room ? [] : ["limit"])];
  if (!code || !allowed.includes(code))
    throw new Error(`an append (${rejected}) ought to be refused, got ${code}`);
  if (subject.known() !== before)
    throw new Error(`from ${before} to ${subject.known()} by a call that was refused`);
}
