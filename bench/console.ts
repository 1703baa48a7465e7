// How the programs show that they are at work.

import { SingleBar } from "cli-progress";
import type { Report } from "./program.ts";

/** Shows a progress bar on a terminal, and a line for each step elsewhere. */
export function progress(): { report: Report; stop: () => void } {
  if (!process.stderr.isTTY) {
    return {
      report: ({ step }) => {
        if (step) console.error(`  ${step}`);
      },
      stop: () => {},
    };
  }
  const bar = new SingleBar({
    format: "{bar} {percentage} %  {step}",
    stream: process.stderr,
    clearOnComplete: true,
  });
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
