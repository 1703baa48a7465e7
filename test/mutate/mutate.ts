// `npm run mutate`: deliberate faults in copies of the project, each of which a test must notice.

import { readdirSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type Context, parse, positive } from "../../bench/start.ts";
import { FoveaError } from "../../src/index.ts";
import type { Mutant, Rooms } from "./mutant.ts";
import { describeMutant, mutate, type Named, namedMutants } from "./runner.ts";

const HELP = `
npm run mutate -- [--room NAME] [--only PATTERN] [--workers N] [--list]

Puts deliberate faults into copies of the project, one at a time, runs the tests that are to notice each, and says which
test did. The project itself is never changed.

  --room NAME      the mutants of one file of test/mutate
  --only PATTERN   those whose line (name, file, text, replacement) the regular expression matches
  --workers N      copies that are worked in at a time (2)
  --list           lists mutants, and runs nothing
  --help           this text

A mutant that no test notices is a failure: a test is missing. So is one whose text is not in its file exactly once, and
one whose tests fail without it, do not run, or do not load with it. Equivalent ones, which nothing can notice, are
skipped and named with the reason. Tests that need a GPU run in Node on Dawn, or in Chromium if they fail there.
`;

const OPTIONS = {
  room: { type: "string" },
  only: { type: "string" },
  workers: { type: "string", default: "2" },
  list: { type: "boolean" },
  help: { type: "boolean" },
} as const;

/** Files of this folder that hold no mutants. */
const OTHERS = ["mutant", "mutate", "runner"];

export async function main({ server, root, args }: Context): Promise<number> {
  const { values } = parse(() => parseArgs({ args, options: OPTIONS }), HELP);
  if (values.help) {
    console.log(HELP.trim());
    return 0;
  }
  const workers = positive("--workers", values.workers);
  const rooms = await loadRooms(join(root, "test/mutate"), (path) => server.ssrLoadModule(path));
  const mutants = chosen(rooms, values.room, values.only);
  if (values.list) {
    for (const mutant of mutants) console.log(describeMutant(mutant));
    return 0;
  }
  const started = performance.now();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
    process.once(signal, () => process.exit(1));
  const counts = await mutate(mutants, { root, workers, print: (line) => console.log(line) });
  console.log(
    `${mutants.length} mutants took ${((performance.now() - started) / 60_000).toFixed(1)} minutes`,
  );
  console.log(`${counts.killed} passed, ${counts.failed} failed, ${counts.equivalent} skipped`);
  return counts.failed ? 1 : 0;
}

/** Loads the mutants of every file of a folder, by the file's stem. */
export async function loadRooms(
  folder: string,
  load: (path: string) => Promise<Record<string, unknown>>,
): Promise<Rooms> {
  const stems = readdirSync(folder)
    .filter((name) => name.endsWith(".ts") && !name.endsWith(".test.ts"))
    .map((name) => name.slice(0, -".ts".length))
    .filter((stem) => !OTHERS.includes(stem));
  const rooms: Record<string, readonly Mutant[]> = {};
  for (const stem of stems.sort()) {
    const { MUTANTS } = await load(join(folder, `${stem}.ts`));
    if (!Array.isArray(MUTANTS))
      throw new FoveaError("argument", `test/mutate/${stem}.ts exports no MUTANTS.`);
    rooms[stem] = MUTANTS;
  }
  return rooms;
}

/**
 * Returns the mutants that the options leave. If there is none, that is an error, so that nobody
 * takes nothing for everything.
 */
export function chosen(rooms: Rooms, room: string | undefined, only: string | undefined): Named[] {
  if (room !== undefined && !(room in rooms)) {
    throw new FoveaError(
      "argument",
      `--room: there is no room ${room}; there is ${Object.keys(rooms).join(", ")}.`,
    );
  }
  const pattern = only === undefined ? undefined : patternOf(only);
  const mutants = namedMutants(room === undefined ? rooms : { [room]: rooms[room] }).filter(
    (mutant) => !pattern || pattern.test(describeMutant(mutant)),
  );
  if (!mutants.length)
    throw new FoveaError("argument", "no mutant is left: see --list for their names.");
  return mutants;
}

function patternOf(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch (cause) {
    throw new FoveaError("argument", `--only must be a regular expression, got ${text}.`, {
      cause,
    });
  }
}
