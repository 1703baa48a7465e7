// Opens a page in a headless Firefox, which WebDriver BiDi drives; Playwright's own Firefox is
// another program.

import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { launch } from "puppeteer-core";
import type { OpenPage } from "../../bench/browser.ts";
import type { Adapter } from "../../bench/program.ts";
import { findFirefox } from "../../scripts/firefox.mjs";
import { FoveaError } from "../../src/index.ts";

/** WebGPU is not on by default everywhere, and never on a software driver. */
const PREFERENCES = { "dom.webgpu.enabled": true, "gfx.webgpu.ignore-blocklist": true };

/**
 * Opens the page. Rejects with FoveaError("device") if there is no Firefox, or WebGPU does not work
 * in it.
 */
export async function openFirefox(address: string, root: string): Promise<OpenPage> {
  if (!findFirefox())
    spawnSync(process.execPath, [join(root, "scripts/setup.mjs"), "--firefox"], {
      stdio: "inherit",
    });
  const executablePath = findFirefox();
  if (!executablePath) {
    throw new FoveaError(
      "device",
      "no Firefox was found, and none could be installed. Set FOVEA_FIREFOX to the program.",
    );
  }
  const options = {
    browser: "firefox" as const,
    executablePath,
    headless: true,
    protocolTimeout: 0,
  };
  const browser = await launch({ ...options, extraPrefsFirefox: PREFERENCES });
  try {
    const page = await browser.newPage();
    page.on("pageerror", (error) =>
      console.error(`page: ${error instanceof Error ? error.message : error}`),
    );
    await page.goto(address);
    await page.waitForFunction(() => "fovea" in window);
    const call = async <T>(name: string, ...args: unknown[]): Promise<T> => {
      const { value, error } = (await page.evaluate(
        (method, values) =>
          (window.fovea as unknown as Record<string, (...args: unknown[]) => unknown>)[method](
            ...values,
          ),
        name,
        args,
      )) as { value: T; error?: string };
      if (error !== undefined) throw new FoveaError("device", error);
      return value;
    };
    const adapter = await call<Adapter>("adapter");
    return { adapter, engine: await browser.version(), call, close: () => browser.close() };
  } catch (error) {
    await browser.close();
    throw error;
  }
}
