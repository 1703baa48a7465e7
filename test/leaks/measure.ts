// Calls a case many times, and says what it left behind.

import { heapBytes, optimise } from "./heap.ts";
import type { Lab, LeakCase } from "./lab.ts";

/**
 * KiB by which the heap may grow between a quarter of the calls and the last one: of 1,500 calls,
 * 44 bytes each.
 */
export const HEAP_KIB = 64;
/** The same limit for calls that link texts, with optimised code: three texts' worth. */
export const LINKING_KIB = 1024;
/**
 * With fewer calls the heap is not looked at: functions that are compiled late would count as a
 * leak.
 */
export const HEAP_CALLS = 1000;
/** After this call at the latest, GPU objects are counted for the first time. */
const EARLY = 50;

export interface Leakage {
  readonly name: string;
  readonly calls: number;
  /**
   * GPU objects after an early call, after the last call, and when all that the calls share was
   * destroyed.
   */
  readonly objects: readonly [early: number, late: number, left: number];
  /**
   * KiB of the heap after a quarter of the calls, and after the last; zeros if there were too few
   * calls.
   */
  readonly heap: readonly [early: number, late: number];
  readonly seconds: number;
  /** What is wrong; empty if nothing is. */
  readonly faults: readonly string[];
}

/** Makes the calls of a case. */
export async function measure(
  lab: Lab,
  { name, together = 1, links = false, start }: LeakCase,
  calls: number,
): Promise<Leakage> {
  const started = performance.now();
  const before = lab.objects();
  lab.errors.length = 0;
  optimise(links);
  const quarter = Math.ceil(calls / 4 / together) * together;
  const early = Math.ceil(Math.min(EARLY, quarter) / together) * together;
  const objects = [0, 0, 0] as [number, number, number];
  const heap = [0, 0] as [number, number];
  const faults: string[] = [];
  try {
    const call = await start(lab);
    let made = 0;
    const until = async (end: number) => {
      for (; made < end; made += together) {
        const batch = Array.from({ length: Math.min(together, end - made) }, (_, next) =>
          call(made + next),
        );
        await Promise.all(batch);
      }
    };
    await until(early);
    objects[0] = lab.objects() - before;
    await until(quarter);
    if (calls >= HEAP_CALLS) heap[0] = Math.round((await heapBytes()) / 1024);
    await until(calls);
    objects[1] = lab.objects() - before;
    if (calls >= HEAP_CALLS) heap[1] = Math.round((await heapBytes()) / 1024);
  } catch (error) {
    faults.push(`a call failed: ${error}`);
  }
  lab.clear();
  await lab.device.queue.onSubmittedWorkDone();
  objects[2] = lab.objects() - before;
  if (objects[1] !== objects[0])
    faults.push(`${objects[1]} GPU objects after the last call, ${objects[0]} early on`);
  if (objects[2]) faults.push(`${objects[2]} GPU objects are left`);
  if (heap[1] - heap[0] > (links ? LINKING_KIB : HEAP_KIB))
    faults.push(`the heap grew by ${heap[1] - heap[0]} KiB`);
  if (lab.errors.length) faults.push(`errors that nobody caught: ${lab.errors[0]}`);
  optimise(true);
  const seconds = Math.round((performance.now() - started) / 100) / 10;
  return { name, calls, objects, heap, seconds, faults };
}
