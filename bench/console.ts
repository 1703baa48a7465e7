// What the programs print: a progress bar, tables, and numbers as people write them.

import { SingleBar } from "cli-progress";
import type { Report } from "./program.ts";

/** A progress bar on a terminal, a line a step elsewhere. */
export function progress(): { report: Report; stop: () => void } {
  if (!process.stderr.isTTY) {
    return {
      report: ({ step }) => {
        if (step) console.error(`  ${step}`);
      },
      stop: () => {},
    };
  }
  const bar = new SingleBar({ format: "{bar} {percentage} %  {step}", stream: process.stderr, clearOnComplete: true });
  let started = false;
  return {
    report: ({ steps, step, done }) => {
      if (steps !== undefined) {
        bar.start(steps, 0, { step: "" });
        started = true;
      }
      if (step !== undefined) bar.update({ step });
      if (done !== undefined) bar.increment(done);
    },
    stop: () => {
      if (started) bar.stop();
    },
  };
}

/** 1.23, 12.3, 123: three digits, whatever the size. */
export const digits = (value: number): string =>
  value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);

export const milliseconds = (ms: number): string => (ms >= 1000 ? `${digits(ms / 1000)} s` : `${digits(ms)} ms`);

export function bytes(count: number): string {
  const units = ["B", "KiB", "MiB", "GiB"];
  let [value, unit] = [count, 0];
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024;
  return `${unit ? digits(value) : value} ${units[unit]}`;
}
