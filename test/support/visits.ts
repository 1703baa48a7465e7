// Visits to pages of the demo, in a Chromium on the software adapter.

import { join, resolve } from "node:path";
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright";
import { createServer, type ViteDevServer } from "vite";
import { afterAll, beforeAll } from "vitest";
import { BROWSER_ARGS, browserPath } from "../../scripts/browser.mjs";

const root = resolve(import.meta.dirname, "../..");
let server: ViteDevServer;
let browser: Browser;

/** Serves the demo and opens a browser for the tests of a file. */
export function serveDemo(): void {
  beforeAll(async () => {
    server = await createServer({
      root,
      configFile: join(root, "vite.config.ts"),
      logLevel: "error",
      server: { host: "127.0.0.1", port: 0, hmr: false, watch: null },
    });
    await server.listen();
    browser = await chromium.launch({ executablePath: browserPath(), args: BROWSER_ARGS.software });
  });
  afterAll(async () => {
    await browser?.close();
    await server?.close();
  });
}

/** Opens a page of the demo by its path; gives what the page logs as errors, too. */
export async function visit(
  path: string,
  options: BrowserContextOptions,
  prepare?: (page: Page) => Promise<unknown>,
) {
  const page = await browser.newPage(options);
  const errors: string[] = [];
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("console", (line) => {
    if (line.type() === "error") errors.push(line.text());
  });
  await prepare?.(page);
  await page.goto(`${server.resolvedUrls?.local[0]}demo/${path}`);
  return { page, errors };
}
