// Tries deliberate faults, one after the other, each in a copy of the project. A fault that no test
// notices shows that a test is missing.

import { type ChildProcess, fork } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import type { Mutant, Rooms } from "./mutant.ts";
/** A mutant with the name that reports give it: its room and its number there, counted from 1. */
export interface Named extends Mutant {
  readonly name: string;
}

/** Counts of the results. */
export interface Counts {
  readonly killed: number;
  /** Mutants that no test noticed, and those that could not be tried. */
  readonly failed: number;
  readonly equivalent: number;
}

export interface Settings {
  /** The project's folder. It is copied, never changed. */
  readonly root: string;
  /** The number of copies that are worked in at a time. */
  readonly workers: number;
  readonly print: (line: string) => void;
  /**
   * Milliseconds that a mutant's tests may take. Default a minute more than five times what they
   * take without it.
   */
  readonly patience?: (mutant: Mutant) => number;
}

/** What a process is told, in the form that worker.mjs describes. */
interface Order {
  readonly node: readonly string[];
  readonly browser: readonly string[];
  readonly filter: string | undefined;
  readonly changed: readonly string[];
}

interface Result {
  readonly passed: readonly string[];
  readonly failed: readonly { readonly name: string; readonly message: string }[];
  readonly broken: readonly string[];
}

/** How a test file went without any mutant. */
interface Clean {
  /** Full names of the tests that passed. */
  readonly passed: readonly string[];
  /** Why mutants can't be judged by the file. */
  readonly trouble: string | undefined;
  readonly milliseconds: number;
  /**
   * Whether it runs in Chromium. Dawn in Node starts sooner, and is enough for nearly all tests.
   */
  readonly inBrowser: boolean;
}

/** Folders of the root that copies share with the project, and folders that copies do without. */
const SHARED = ["node_modules", "dist"];
const LEFT_OUT = [".git", ".vite", ".vite-browser"];

const WORKER = join(
  import.meta.dirname ?? fileURLToPath(new URL(".", import.meta.url)),
  "worker.mjs",
);

/** Names the mutants of all rooms. */
export const namedMutants = (rooms: Rooms): Named[] =>
  Object.entries(rooms).flatMap(([room, mutants]) =>
    mutants.map((mutant, index) => ({ ...mutant, name: `${room} ${index + 1}` })),
  );

/** Says in one line what a mutant does. */
export function describeMutant({ name, file, text, replacement }: Named): string {
  const short = (code: string) =>
    JSON.stringify(code.length > 60 ? `${code.slice(0, 57)}...` : code);
  return `${name}: ${file}: ${short(text)} -> ${short(replacement)}`;
}

/** Runs the tests of each mutant against it, and says for each which test noticed it. */
export async function mutate(mutants: readonly Named[], settings: Settings): Promise<Counts> {
  const { root, workers, print } = settings;
  const counts = { killed: 0, failed: 0, equivalent: 0 };
  const fail = (mutant: Named, why: string) => {
    counts.failed++;
    print(`FAILED  ${describeMutant(mutant)}\n        ${why}`);
  };
  const runnable: Named[] = [];
  for (const mutant of mutants) {
    const trouble = textTrouble(root, mutant);
    if (trouble) fail(mutant, trouble);
    else if (mutant.equivalent === undefined) runnable.push(mutant);
    else {
      counts.equivalent++;
      print(`skipped ${describeMutant(mutant)}\n        equivalent: ${mutant.equivalent}`);
    }
  }
  if (!runnable.length) return counts;
  const copies = Array.from({ length: Math.min(workers, runnable.length) }, () => new Copy(root));
  const stop = () => {
    for (const copy of copies) copy.remove();
  };
  process.once("exit", stop);
  try {
    const clean = new Map<string, Clean>();
    await inParallel(copies, filtersByFile(runnable), async (copy, [file, filters]) => {
      const onDawn = await runClean(copy, file, filters, false);
      const again = onDawn.trouble && file.endsWith(".gpu.test.ts");
      clean.set(file, again ? await runClean(copy, file, filters, true) : onDawn);
    });
    await inParallel(copies, runnable, async (copy, mutant) => {
      const trouble = cleanTrouble(mutant, clean);
      if (trouble) return fail(mutant, trouble);
      const inBrowser = (file: string) => clean.get(file)?.inBrowser ?? false;
      const usual = mutant.tests.reduce(
        (sum, file) => sum + (clean.get(file)?.milliseconds ?? 0),
        0,
      );
      const limit = settings.patience?.(mutant) ?? usual * 5 + 60_000;
      const { killer, survived } = await tryMutant(copy, mutant, inBrowser, limit);
      if (survived) return fail(mutant, survived);
      counts.killed++;
      print(`killed  ${describeMutant(mutant)}\n        by ${killer}`);
    });
  } finally {
    stop();
    process.off("exit", stop);
  }
  return counts;
}

/** Says what is wrong with the text of a mutant, before anything is run. */
function textTrouble(
  root: string,
  { file, text, replacement, tests, equivalent }: Mutant,
): string | undefined {
  if (!existsSync(join(root, file))) return `there is no file ${file}`;
  const times = text ? readFileSync(join(root, file), "utf8").split(text).length - 1 : 0;
  if (times !== 1) return `its text must occur once in ${file}, and occurs ${times} times`;
  if (text === replacement) return "its replacement is its text";
  if (equivalent !== undefined) return undefined;
  if (!tests.length) return "it names no test file";
  const missing = tests.find((test) => !existsSync(join(root, test)));
  return missing && `there is no test file ${missing}`;
}

/**
 * Returns the filters of the mutants of each test file; no filters if a mutant needs the whole
 * file.
 */
function filtersByFile(mutants: readonly Named[]): [file: string, filters: readonly string[]][] {
  const all = new Map<string, Set<string | undefined>>();
  for (const { tests, filter } of mutants) {
    for (const file of tests) all.set(file, (all.get(file) ?? new Set()).add(filter));
  }
  return [...all].map(([file, filters]) => {
    const given = [...filters].filter((filter) => filter !== undefined);
    return [file, given.length < filters.size ? [] : given];
  });
}

async function runClean(
  copy: Copy,
  file: string,
  filters: readonly string[],
  inBrowser: boolean,
): Promise<Clean> {
  const started = performance.now();
  const filter = filters.length ? filters.map((one) => `(?:${one})`).join("|") : undefined;
  const tests = { node: inBrowser ? [] : [file], browser: inBrowser ? [file] : [] };
  const result = await copy.run({ ...tests, filter, changed: [] }, 600_000);
  const milliseconds = performance.now() - started;
  const { passed = [], failed = [], broken = [] } = result ?? {};
  const complaint = result ? (broken[0] ?? failed[0]?.name) : `${file}, which does not end`;
  return {
    passed,
    trouble: complaint && `fails without the mutant: ${complaint}`,
    milliseconds,
    inBrowser,
  };
}

/** Says why the tests of a mutant tell nothing about it. */
function cleanTrouble(
  { tests, filter }: Mutant,
  clean: ReadonlyMap<string, Clean>,
): string | undefined {
  const files = tests.map((file) => clean.get(file) as Clean);
  const trouble = files.find((file) => file.trouble)?.trouble;
  if (trouble) return trouble;
  const pattern = new RegExp(filter ?? "");
  const found = files.some(({ passed }) =>
    passed.some((name) => pattern.test(name.replaceAll(" > ", " "))),
  );
  return found
    ? undefined
    : `no test of ${tests.join(", ")} runs${filter ? ` whose name matches ${filter}` : ""}`;
}

async function tryMutant(
  copy: Copy,
  { file, text, replacement, tests, filter }: Named,
  inBrowser: (file: string) => boolean,
  limit: number,
): Promise<{ killer?: string; survived?: string }> {
  const put = copy.change(file, (original) => original.replace(text, () => replacement));
  try {
    const places = {
      node: tests.filter((test) => !inBrowser(test)),
      browser: tests.filter(inBrowser),
    };
    const result = await copy.run({ ...places, filter, changed: [file] }, limit);
    if (result === undefined)
      return { killer: `its tests, which do not end in ${Math.round(limit / 1000)} s` };
    const [first] = result.failed;
    if (first) return { killer: first.name };
    if (result.broken.length)
      return { survived: `with it tests do not even load: ${result.broken[0]}` };
    return { survived: `no test notices it: ${result.passed.length} pass` };
  } finally {
    put.back();
    copy.changed(file);
  }
}

/** Gives each of the items to a copy that is free. */
async function inParallel<Item>(
  copies: readonly Copy[],
  items: readonly Item[],
  work: (copy: Copy, item: Item) => Promise<void>,
): Promise<void> {
  const left = [...items];
  await Promise.all(
    copies.map(async (copy) => {
      for (let item = left.shift(); item !== undefined; item = left.shift()) await work(copy, item);
    }),
  );
}

/** A copy of the project, and a process that runs its tests. */
class Copy {
  readonly #folder = realpathSync(mkdtempSync(join(tmpdir(), "fovea-mutate-")));
  #process: Promise<ChildProcess> | undefined;
  #pid: number | undefined;
  /** Files whose text has changed since the process last saw it. */
  readonly #changed = new Set<string>();

  constructor(root: string) {
    const kept = (source: string) => {
      const path = relative(root, source);
      return !SHARED.includes(path) && !LEFT_OUT.includes(path);
    };
    cpSync(root, this.#folder, { recursive: true, filter: kept });
    for (const name of SHARED) {
      const target = join(root, name);
      if (existsSync(target))
        symlinkSync(realpathSync(target), join(this.#folder, name), "junction");
    }
  }

  change(file: string, edit: (text: string) => string): { back: () => void } {
    const path = join(this.#folder, file);
    const original = readFileSync(path, "utf8");
    writeFileSync(path, edit(original));
    return { back: () => writeFileSync(path, original) };
  }

  changed(file: string): void {
    this.#changed.add(file);
  }

  /** Runs tests; undefined if they take longer than the limit in milliseconds. */
  async run({ changed, ...order }: Order, limit: number): Promise<Result | undefined> {
    this.#process ??= this.#start();
    const child = await this.#process;
    const all = [...new Set([...this.#changed, ...changed])];
    this.#changed.clear();
    return new Promise((done, fail) => {
      const settle = (act: () => void) => {
        clearTimeout(timer);
        child.off("message", hear);
        child.off("exit", end);
        act();
      };
      const hear = (message: { result?: Result; error?: string }) => {
        if (message.result) settle(() => done(message.result));
        if (message.error)
          settle(() => fail(new Error(`the process that runs tests failed: ${message.error}`)));
      };
      const end = () => settle(() => fail(new Error("the process that runs tests ended")));
      const timer = setTimeout(() => {
        settle(() => done(undefined));
        this.#kill();
      }, limit);
      child.on("message", hear);
      child.on("exit", end);
      child.send({ ...order, changed: all });
    });
  }

  remove(): void {
    this.#kill();
    rmSync(this.#folder, { recursive: true, force: true, maxRetries: 5 });
  }

  #start(): Promise<ChildProcess> {
    // The process leads its own group, because a test that hangs must end with it. It inherits
    // nothing of a vitest that this may run in.
    const env = Object.fromEntries(
      Object.entries(process.env).filter(([name]) => !name.startsWith("VITEST")),
    );
    const child = fork(WORKER, [this.#folder], {
      detached: process.platform !== "win32",
      env,
      stdio: "ignore",
    });
    this.#pid = child.pid;
    return new Promise((done, fail) => {
      child.once("message", () => done(child));
      child.once("exit", (code) =>
        fail(new Error(`the process that runs tests ended with ${code}`)),
      );
    });
  }

  #kill(): void {
    const pid = this.#pid;
    this.#process = undefined;
    this.#pid = undefined;
    if (pid === undefined) return;
    try {
      process.kill(process.platform === "win32" ? pid : -pid, "SIGKILL");
    } catch {
      // it has ended
    }
  }
}
