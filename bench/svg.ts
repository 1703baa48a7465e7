// Plots as separate files, drawn outside of a page.

import { parseHTML } from "linkedom";
import type { Canvas } from "./plots.ts";

/** The text of an SVG file with a plot, on white, for pages of either colour. */
export function svgOf(plot: (canvas: Canvas) => Element): string {
  const { document } = parseHTML("<!doctype html><html><body></body></html>");
  const svg = plot({
    width: 860,
    fill: "#2a6fdb",
    background: "white",
    document: document as unknown as Document,
  });
  svg.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  return `${svg.outerHTML}\n`;
}
