// Faults of caches: their calls, bookkeeping, pages and memory.

import type { Mutant } from "./mutant.ts";

const CALLS = "test/cache/calls.gpu.test.ts";
const MEMORY = "test/cache/memory.gpu.test.ts";
const LEDGER = "test/cache/ledger.test.ts";
const PAGES = "test/cache/pages.test.ts";

export const MUTANTS: readonly Mutant[] = [
  {
    file: "shaders/variants/sequence_cached.wesl",
    text: "q_offset = kv_len - q_len;",
    replacement: "q_offset = kv_len - q_rows;",
    tests: ["test/cache/attention.gpu.test.ts"],
    filter: "end at the last key of their entry",
  },
  {
    file: "shaders/cache_advance.wesl",
    text: "length + min(count, params.rows)",
    replacement: "length + count",
    tests: ["test/cache/append.gpu.test.ts"],
    filter: "on the GPU are limited to the rows",
  },
  {
    file: "src/cache/lengths.ts",
    text: "kept[entry] <= sinkTokens ? kept[entry] : peak",
    replacement: "kept[entry]",
    tests: [LEDGER],
  },
  {
    file: "src/cache/lengths.ts",
    text: "peaks: entries.map((from) => peaks[from]),",
    replacement: "peaks,",
    tests: [LEDGER],
  },
  {
    file: "src/cache/paged/view.ts",
    text: "this.#words.fill(UNKNOWN);",
    replacement: "",
    tests: ["test/cache/paged.gpu.test.ts"],
    filter: "told the pages that it never had",
  },
  {
    file: "src/cache/paged/batch.ts",
    text: "if (isTold) this.#view.forget();",
    replacement: "",
    tests: [CALLS],
    filter: "by an attention that is rejected for its output",
  },
  {
    file: "src/cache/paged/batch.ts",
    text: `            work(this.#taker(entries, told, (change) => change(tables)));
          } catch (error) {
            if (told.isTold) this.#view.forget();`,
    replacement: `            work(this.#taker(entries, told, (change) => change(tables)));
          } catch (error) {`,
    tests: [CALLS],
    filter: "and fails midway",
  },
  {
    file: "src/cache/paged/batch.ts",
    text: `              await work(this.#taker(entries, told, turn.apply), async () => {});
            } catch (error) {
              if (told.isTold) this.#view.forget();`,
    replacement: `              await work(this.#taker(entries, told, turn.apply), async () => {});
            } catch (error) {`,
    tests: [CALLS],
    filter: "an append that is rejected",
  },
  {
    file: "src/cache/ledger.ts",
    text: `    } catch (error) {
      state.rollBack();
      throw error;
    } finally {`,
    replacement: "    } finally {",
    tests: [LEDGER],
  },
  {
    file: "src/cache/ledger.ts",
    text: "const done = waits ? this.#tail.then(run) : run();",
    replacement: "const done = this.#tail.then(run);",
    tests: [LEDGER],
  },
  {
    file: "src/cache/append_bindings.ts",
    text: "[k, v, state].every",
    replacement: "[k, v].every",
    tests: ["test/cache/errors.gpu.test.ts"],
    filter: "of the wrong tensors, counts and memory",
  },
  {
    file: "src/cache/append_queue.ts",
    text: "await this.#submit(made, request, { ...tensors, ...kept }, take);",
    replacement: "await this.#submit(made, request, tensors, take);",
    tests: [CALLS],
    filter: "with what its tensors hold",
  },
  {
    file: "src/cache/growth.ts",
    text: "growth?.undo();",
    replacement: "",
    tests: [CALLS],
    filter: "takes the growth that it asked for",
  },
  {
    file: "src/cache/paged/pool.ts",
    text: "if (change.isFree) this.#free.pop();",
    replacement: "",
    tests: [PAGES],
  },
  {
    file: "src/cache/paged/pages.ts",
    text: "    for (const { pages } of moved) for (const page of pages) this.#pool.share(page);\n",
    replacement: "",
    tests: [PAGES],
  },
  {
    file: "src/cache/memory.ts",
    text: "encoder.copyBufferToBuffer(between, place * part, buffer, at(to) + begin, copied);",
    replacement: "encoder.copyBufferToBuffer(between, place * part, buffer, at(to), copied);",
    tests: [MEMORY],
    filter: "are copied in parts",
  },
  {
    file: "src/cache/state.ts",
    text: "end - first < LONGEST_RUN && ",
    replacement: "",
    tests: [MEMORY],
    filter: "that one command cannot count",
  },
];
