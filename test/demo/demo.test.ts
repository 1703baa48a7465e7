// A walk through the demo, on a desktop and on a phone, and without WebGPU.

import { join } from "node:path";
import type { BrowserContextOptions } from "playwright";
import { describe, expect, it } from "vitest";
import { breadth } from "../support/breadth.ts";
import { serveDemo, visit } from "../support/visits.ts";

serveDemo();

const PHONE = { width: 375, height: 667 };

describe("the demo", () => {
  it.each<[name: string, options: BrowserContextOptions]>([
    ["a desktop", { viewport: { width: 1280, height: 900 } }],
    ...breadth<[name: string, options: BrowserContextOptions]>([
      "a phone",
      { viewport: PHONE, isMobile: true, hasTouch: true, deviceScaleFactor: 2 },
    ]),
  ])("climbs the ladder on %s", async (name, options) => {
    const { page, errors } = await visit("", options);
    await page.getByText("a software adapter on the CPU").waitFor();
    await page.getByLabel("Tokens").selectOption("32");
    await page.getByLabel("Causal").check();
    await page.getByRole("button", { name: "Climb" }).click();
    await page.locator("progress").waitFor({ state: "visible" });
    await page.locator("progress").waitFor({ state: "hidden", timeout: 90_000 });

    const rows = page.locator("#results tbody tr");
    expect(await rows.count()).toBe(4);
    expect(await page.locator('#results tr[data-correct="true"]').count()).toBe(4);
    expect(await rows.first().textContent()).toMatch(/^1 naivethree kernels.*1\.00×.*KiB$/);
    expect(await rows.last().textContent()).toMatch(/^4 forwarda 2-D register tile.*0 B$/);
    expect(await page.locator("#plot svg rect").count()).toBe(4);
    expect(await page.locator("#footnote").innerText()).toContain("256 of 256 rows");
    // The page itself never scrolls sideways, in a narrow window either; the table does.
    for (const viewport of [PHONE, options.viewport]) {
      if (viewport) await page.setViewportSize(viewport);
      expect(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth)).toBe(
        true,
      );
    }
    if (process.env.FOVEA_SCREENSHOTS) {
      await page.screenshot({
        path: join(process.env.FOVEA_SCREENSHOTS, `${name.replace(" ", "-")}.png`),
        fullPage: true,
      });
    }
    expect(errors).toEqual([]);
    await page.close();
  });

  it("says so if there is no WebGPU", async () => {
    const { page, errors } = await visit("", {}, (page) =>
      page.addInitScript(() =>
        Object.defineProperty(Navigator.prototype, "gpu", { value: undefined }),
      ),
    );
    await page.getByRole("alert").getByText("This browser has no WebGPU").waitFor();
    expect(await page.locator("form").isVisible()).toBe(false);
    expect(errors).toEqual([]);
    await page.close();
  });

  it("says so if there is no adapter", async () => {
    const { page } = await visit("", {}, (page) =>
      page.addInitScript(() =>
        Object.defineProperty(GPU.prototype, "requestAdapter", { value: async () => null }),
      ),
    );
    await page.getByRole("alert").getByText("WebGPU has no adapter here").waitFor();
    await page.close();
  });
});
