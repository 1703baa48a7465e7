// A walk through the pages of the small systems: train, pause, go on, ask, come back.

import type { BrowserContextOptions, Page } from "playwright";
import { describe, expect, it } from "vitest";
import { SYSTEMS } from "../../demo/systems/index.ts";
import { breadth } from "../support/breadth.ts";
import { serveDemo, visit } from "../support/visits.ts";

serveDemo();

const DESKTOP: BrowserContextOptions = { viewport: { width: 1280, height: 900 } };
const PHONE: BrowserContextOptions = {
  viewport: { width: 375, height: 667 },
  isMobile: true,
  hasTouch: true,
  deviceScaleFactor: 2,
};

/** The step and the loss that a page shows. */
const shown = async (page: Page) => {
  const text = (await page.locator("#state").textContent()) ?? "";
  const [, step, loss] = text.match(/Step (\d+) of \d+, loss ([\d.]+)/) ?? [];
  return { step: Number(step), loss: Number(loss) };
};

const isCutOff = (page: Page) =>
  page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);

describe("the pages of the systems", () => {
  it.each([
    ["a desktop", DESKTOP],
    ["a phone", PHONE],
  ])("train, pause, go on, answer and remember on %s", async (_, options) => {
    const { page, errors } = await visit("systems/attention_model/", options);
    await page.getByText("a software adapter on the CPU").waitFor();
    await page.getByRole("button", { name: "Start", exact: true }).click();
    await page.getByText(/^On the test data: loss/).waitFor({ timeout: 60_000 });
    const pause = page.getByRole("button", { name: "Pause" });
    if (await pause.isVisible()) await pause.click();
    const resume = page.getByRole("button", { name: /^(Go on|Done)$/ });
    await resume.waitFor();
    const paused = await shown(page);
    expect(paused.step).toBeGreaterThan(0);
    if (await resume.isEnabled()) await resume.click();
    await page.getByText(/^Step 100 of 100/).waitFor({ timeout: 60_000 });
    await page.getByRole("button", { name: "Done" }).waitFor();
    const done = await shown(page);
    expect(done.loss).toBeLessThan(2.6);
    expect(await page.locator("#loss svg").count()).toBe(1);
    expect(await page.locator("#pictures svg rect").count()).toBeGreaterThanOrEqual(5);
    await page.getByLabel("Five numbers from 0 to 10").fill("6 7 8 9 10");
    await page.getByRole("button", { name: "Ask" }).click();
    await page.getByText(/^Next: \d+$/).waitFor();
    expect(await isCutOff(page)).toBe(false);
    // What was learned is there after a visit elsewhere.
    await page.reload();
    await page.getByRole("button", { name: "Go on" }).waitFor();
    await page.getByRole("button", { name: "Start over" }).click();
    await page.getByRole("button", { name: "Start", exact: true }).waitFor();
    expect(errors).toEqual([]);
    await page.close();
  });

  const others = breadth(
    ...SYSTEMS.map(({ name }) => name).filter((name) => !name.startsWith("attention")),
  );

  it.each(others)(
    "train %s: the loss falls, pictures come, a pause holds",
    async (name) => {
      const { page, errors } = await visit(`systems/${name}/`, DESKTOP);
      await page.getByRole("button", { name: "Start", exact: true }).click();
      await page.getByText(/^Step \d+ of/).waitFor({ timeout: 60_000 });
      const first = await shown(page);
      await page.getByText(/^On the test data: loss/).waitFor({ timeout: 300_000 });
      await page.getByRole("button", { name: "Pause" }).click();
      await page.getByRole("button", { name: "Go on" }).waitFor({ timeout: 60_000 });
      const paused = await shown(page);
      expect(paused.loss).toBeLessThan(first.loss);
      await page.waitForTimeout(1_000);
      expect(await shown(page)).toEqual(paused);
      expect(await page.locator("#loss svg").count()).toBe(1);
      expect(await page.locator("#pictures svg").count()).toBeGreaterThan(0);
      expect(await isCutOff(page)).toBe(false);
      expect(errors).toEqual([]);
      await page.close();
    },
    400_000,
  );

  it.each(others)(
    "show what %s looks at before it has learned, and train it, on a phone",
    async (name) => {
      const { page, errors } = await visit(`systems/${name}/`, PHONE);
      await page.getByRole("button", { name: "Start", exact: true }).tap();
      await page.locator("#pictures svg").first().waitFor({ timeout: 60_000 });
      await page.getByText(/^Step \d\d+ of/).waitFor({ timeout: 120_000 });
      await page.locator("#loss svg").waitFor();
      await page.getByRole("button", { name: "Pause" }).tap();
      await page.getByRole("button", { name: "Go on" }).waitFor({ timeout: 60_000 });
      expect(await isCutOff(page)).toBe(false);
      expect(errors).toEqual([]);
      await page.close();
    },
    200_000,
  );

  it("say what to do without WebGPU", async () => {
    const { page } = await visit("systems/gpt/", DESKTOP, (one) =>
      one.addInitScript(() => Object.defineProperty(navigator, "gpu", { value: undefined })),
    );
    await page.getByText("This browser has no WebGPU").waitFor();
    await page.close();
  });

  it("have each system, and are listed", async () => {
    const { page, errors } = await visit("systems/", DESKTOP);
    for (const { name } of SYSTEMS)
      expect(await page.locator(`a[href="./${name}/"]`).count(), name).toBe(1);
    expect(errors).toEqual([]);
    await page.close();
  });
});
