// A walk through the page that goes on with texts: load, generate, look, stop.

import type { BrowserContextOptions } from "playwright";
import { describe, expect, it } from "vitest";
import { filesOf } from "../support/checkpoints.ts";
import { type Gpt2Config, gpt2Weights } from "../support/reference_gpt2.ts";
import { serveDemo, visit } from "../support/visits.ts";

serveDemo();

const DESKTOP: BrowserContextOptions = { viewport: { width: 1280, height: 900 } };
const PHONE: BrowserContextOptions = {
  viewport: { width: 375, height: 667 },
  isMobile: true,
  hasTouch: true,
  colorScheme: "dark",
};

const CONFIG: Gpt2Config = {
  model_type: "gpt2",
  n_embd: 16,
  n_head: 2,
  n_layer: 2,
  n_positions: 4096,
  vocab_size: 19,
};

describe("the page of models", () => {
  it.each([
    ["a desktop", DESKTOP, false],
    ["a phone", PHONE, true],
  ] as const)(
    "loads, goes on, shows where it looked and stops on %s",
    async (_, options, isPhone) => {
      const { page, errors } = await visit("models/", options);
      const foreign: string[] = [];
      page.on("request", (request) => {
        const { hostname, protocol } = new URL(request.url());
        if (/^http/.test(protocol) && hostname !== "127.0.0.1") foreign.push(request.url());
      });
      await page.getByText("a software adapter on the CPU").waitFor();
      if (isPhone) {
        await page.getByRole("button", { name: "Take a tiny model" }).tap();
        await page.getByText("which has learned nothing").waitFor({ timeout: 60_000 });
      } else {
        const files = Object.entries(filesOf(CONFIG, gpt2Weights(CONFIG, 2)));
        await page.getByLabel("Files").setInputFiles(
          files.map(([name, bytes]) => {
            return { name, mimeType: "application/octet-stream", buffer: Buffer.from(bytes) };
          }),
        );
        await page.getByText(/^gpt2, 2 layers, .* the files that you chose/).waitFor();
        await page.getByLabel("Ids of tokens").fill("4 7 1 12");
      }
      const prompt = isPhone ? "the sea was ".length : 4;
      await page.getByLabel("New tokens").fill("5");
      await page.getByRole("button", { name: "Go on" }).click();
      await page
        .getByText(/^Done. 5 tokens, the first after \d+ ms, then/)
        .waitFor({ timeout: 90_000 });
      const tokens = page.locator("#text .token");
      expect(await tokens.count()).toBe(prompt + 5);
      const shades = () =>
        tokens.evaluateAll((all) =>
          all.map((one) =>
            Number.parseFloat((one as HTMLElement).style.getPropertyValue("--shade")),
          ),
        );
      const last = tokens.nth(prompt + 4);
      if (isPhone) await last.tap();
      else await last.hover();
      const seen = await shades();
      expect(Math.max(...seen)).toBe(100);
      expect(new Set(seen.slice(0, prompt + 4)).size).toBeGreaterThan(2);
      expect(seen[prompt + 4]).toBe(0); // it was not there yet
      expect(await page.locator("#looks").textContent()).toContain(
        "layer 0, head 0 looked most at",
      );
      await page.getByLabel("Head").selectOption("1");
      expect(await shades()).not.toEqual(seen);
      await page.getByLabel("Layer").selectOption("1");
      const other = await shades();
      await last.focus();
      await page.keyboard.press("ArrowLeft");
      expect(await page.locator("#looks").textContent()).toContain(
        `${prompt + 4}, layer 1, head 1`,
      );
      expect(await shades()).not.toEqual(other);
      await page.keyboard.press("Home");
      await page.getByText("A token of the prompt").waitFor();
      await page.getByLabel("New tokens").fill(isPhone ? "200" : "4000");
      await page.getByRole("button", { name: "Go on" }).click();
      await page.getByText(/^\d+ tokens?, the first/).waitFor({ timeout: 60_000 });
      await page.getByRole("button", { name: "Stop" }).click();
      await page.getByText(/^Stopped. \d+ token/).waitFor();
      const stopped = await tokens.count();
      expect(stopped).toBeLessThan(isPhone ? 200 : 4000);
      expect(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth)).toBe(
        true,
      );
      expect(foreign).toEqual([]);
      expect(errors).toEqual([]);
      await page.close();
    },
  );

  it("says what is wrong with files", async () => {
    const { page, errors } = await visit("models/", DESKTOP);
    const buffer = Buffer.from(JSON.stringify({ model_type: "mamba" }));
    await page
      .getByLabel("Files")
      .setInputFiles([{ name: "config.json", mimeType: "application/json", buffer }]);
    await page.getByText("there is neither model.safetensors nor").waitFor();
    expect(errors).toEqual([]);
    await page.close();
  });
});
