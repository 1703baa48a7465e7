// The loop of training: losses in their order, while later steps are on their way.

import type { Metrics, Session, System } from "./system.ts";

/** What a loop tells after a step. */
export interface Progress {
  /** Steps done. */
  readonly step: number;
  readonly loss: number;
  /** What was measured after this step, if something was. */
  readonly metrics?: Metrics;
}

/** How far a loop runs. */
export interface LoopOptions {
  /** Steps to do in all, those before this loop included. */
  readonly steps: number;
  /** Steps between two measurements. Default: those of the system. */
  readonly every?: number;
  /** Whether to stop after the steps that are on their way. */
  readonly isPaused?: () => boolean;
}

/** Steps that are on their way at a time. */
const AHEAD = 3;

/**
 * Trains up to a number of steps, and measures at the end and every so many steps. Stop the loop,
 * or let `isPaused` stop it, and another one goes on where it ended.
 */
export async function* train(
  session: Session,
  { every: usual }: Pick<System, "every">,
  { steps, every = usual, isPaused = () => false }: LoopOptions,
): AsyncGenerator<Progress> {
  let next = session.training.step;
  const running: { readonly step: number; readonly loss: Promise<number> }[] = [];
  while (true) {
    const isMeasured = (step: number) => step === steps || step % every === 0;
    // No step starts beyond one after which is measured.
    const last = running.at(-1)?.step;
    const mayStart = next < steps && !isPaused() && (last === undefined || !isMeasured(last));
    if (mayStart && running.length < AHEAD) {
      const loss = session.training.run(session.batch(next));
      loss.catch(() => undefined); // it is awaited below, in its turn
      running.push({ step: ++next, loss });
      continue;
    }
    const first = running.shift();
    if (!first) return;
    const { step } = first;
    const loss = await first.loss;
    if (isMeasured(step)) yield { step, loss, metrics: await session.evaluate() };
    else yield { step, loss };
  }
}
