// The page that `npm run conformance` opens: it runs the vectors that it is told, which are files
// of the server.

import { answer } from "../../../bench/page/answer.ts";
import { describeAdapter } from "../../../bench/program.ts";
import { requestFoveaDevice } from "../../../src/index.ts";
import { Runner } from "../runner.ts";

const runner = new Runner(requestFoveaDevice);

Object.assign(window, {
  fovea: {
    adapter: () => answer(async () => describeAdapter(await runner.device())),
    run: (name: string) =>
      answer(async () => runner.run(await (await fetch(`/files/${name}`)).text())),
  },
});
