// The page that `npm run fuzz` opens: it tries the problems that it is told.

import { answer } from "../../../bench/page/answer.ts";
import { describeAdapter } from "../../../bench/program.ts";
import { requestFoveaDevice } from "../../../src/index.ts";
import type { SuiteName } from "../runs.ts";
import type { Problem } from "../suites.ts";
import { Trials } from "../trials.ts";

const trials = new Trials(requestFoveaDevice);

Object.assign(window, {
  fovea: {
    adapter: () => answer(async () => describeAdapter(await trials.device())),
    try: (suite: SuiteName, problem: Problem) => answer(() => trials.try(suite, problem)),
  },
});
