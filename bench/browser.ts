// Opens the bench's page in a headless Chromium, on a GPU if there is one.

import { type Browser, chromium, type Page } from "playwright";
import type { ViteDevServer } from "vite";
import { BROWSER_ARGS, browserPath } from "../scripts/browser.mjs";
import { FoveaError } from "../src/errors.ts";
import type { Adapter, Report } from "./program.ts";

export interface OpenPage {
  readonly adapter: Adapter;
  /** Browser and version. */
  readonly engine: string;
  /**
   * Calls a function of `window.fovea`. Rejects with a FoveaError that carries the page's message.
   */
  call<T>(name: string, ...args: unknown[]): Promise<T>;
  close(): Promise<void>;
}

/**
 * Opens a page, the bench's by default, and tells the flags with which its browser finds the
 * adapter. What the page reports goes to `report`. Rejects with FoveaError("device") if WebGPU does
 * not work.
 */
export async function openPage(
  server: ViteDevServer,
  report: Report,
  path = "bench/page/index.html",
): Promise<OpenPage & { readonly args: readonly string[] }> {
  const address = `${server.resolvedUrls?.local[0]}${path}`;
  let failure = "";
  // On many machines a browser that may use a GPU finds none. Then a browser with the software
  // adapter is started.
  for (const args of [BROWSER_ARGS.hardware, BROWSER_ARGS.software]) {
    const { browser, page } = await launchPage(args, address, "fovea", report);
    const call = <T>(name: string, ...args: unknown[]) => callPage<T>(page, name, args);
    try {
      const adapter = await call<Adapter>("adapter");
      return { adapter, engine: engineOf(browser), args, call, close: () => browser.close() };
    } catch (error) {
      failure = (error as Error).message;
      await browser.close();
    }
  }
  throw new FoveaError(
    "device",
    `${browserPath()} can't do WebGPU here, not even in software: ${failure}`,
  );
}

/** Opens a page in a new browser, and waits until its global `name` is there. */
export async function launchPage(
  args: readonly string[],
  address: string,
  name: string,
  report?: Report,
) {
  const browser = await chromium.launch({
    executablePath: browserPath(),
    args: [...args],
    headless: true,
  });
  const page = await browser.newPage();
  page.on("pageerror", (error) => console.error(`page: ${error.message}`));
  if (report) await page.exposeFunction("report", report);
  await page.goto(address);
  await page.waitForFunction((name) => name in window, name);
  return { browser, page };
}

const engineOf = (browser: Browser) => `${browser.browserType().name()} ${browser.version()}`;

async function callPage<T>(page: Page, name: string, args: unknown[]): Promise<T> {
  const answer = await page.evaluate(
    ([method, values]) =>
      (window.fovea as unknown as Record<string, (...args: unknown[]) => unknown>)[method](
        ...values,
      ),
    [name, args] as const,
  );
  const { value, error } = answer as { value: T; error?: string };
  if (error !== undefined) throw new FoveaError("device", error);
  return value;
}
