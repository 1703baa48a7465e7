// Plots of results, drawn in the demo's page, and by `npm run bench -- --readme` into files.

import * as Plot from "@observablehq/plot";
import type { Row } from "./harness.ts";
import { LIBRARIES } from "./peers/contest.ts";

/** What a plot is drawn on. */
export interface Canvas {
  readonly width: number;
  /** Colour of bars. */
  readonly fill: string;
  /** A document to draw with outside of a page. */
  readonly document?: Document;
  readonly background?: string;
}

/** What all plots have. */
export const common = ({ width, document, background = "transparent" }: Canvas) => ({
  width,
  ...(document && { document }),
  style: { fontSize: "14px", color: "inherit", background },
});

type Bar = Pick<Row, "impl" | "gflops">;

/** Draws the ladder's rungs by their speed. */
export const ladderPlot = (rows: readonly Bar[], canvas: Canvas) =>
  Plot.plot({
    ...common(canvas),
    marginLeft: 90,
    marginBottom: 50,
    x: { label: "GFLOP/s", labelOffset: 45, grid: true, zero: true, ticks: 5 },
    y: { label: null },
    marks: [
      Plot.barX(rows, { x: "gflops", y: "impl", fill: canvas.fill, sort: { y: null } }),
      Plot.ruleX([0]),
    ],
  });

/** A point of a line. */
export interface Point {
  readonly n: number;
  readonly ms: number;
  readonly line: string;
}

/** Draws time by length, both on logarithmic axes, with a line for each implementation. */
export const scalePlot = (points: readonly Point[], canvas: Canvas) =>
  Plot.plot({
    ...common(canvas),
    height: 420,
    marginLeft: 60,
    marginRight: 130,
    marginBottom: 50,
    x: {
      type: "log",
      base: 2,
      label: "N",
      labelOffset: 45,
      ticks: lengthsOf(points),
      tickFormat: ",",
    },
    y: { type: "log", label: "ms", grid: true, ticks: 6, tickFormat: "," },
    marks: [
      Plot.lineY(points, { x: "n", y: "ms", stroke: "line", marker: "circle" }),
      Plot.text(
        points,
        Plot.selectLast({ x: "n", y: "ms", z: "line", text: "line", textAnchor: "start", dx: 10 }),
      ),
    ],
  });

const lengthsOf = (points: readonly Point[]) =>
  [...new Set(points.map(({ n }) => n))].sort((a, b) => a - b);

/**
 * Draws the implementations of several cases by their time, on a logarithmic axis: the shorter the
 * better.
 */
export const contestPlot = (
  rows: readonly (Pick<Row, "case" | "impl"> & { readonly ms: number })[],
  canvas: Canvas,
) => {
  const ours = ({ impl }: { readonly impl: string }) =>
    LIBRARIES.includes(impl) ? "gray" : canvas.fill;
  return Plot.plot({
    ...common(canvas),
    marginLeft: 110,
    marginRight: 270,
    marginBottom: 50,
    x: {
      type: "log",
      nice: true,
      label: "ms",
      labelOffset: 45,
      grid: true,
      ticks: 6,
      tickFormat: ",",
    },
    y: { label: null },
    fy: { label: null },
    marks: [
      Plot.dot(rows, {
        x: "ms",
        y: "impl",
        fy: "case",
        fill: ours,
        r: 5,
        sort: { y: null, fy: null },
      }),
      Plot.frame({ strokeOpacity: 0.2 }),
    ],
  });
};
