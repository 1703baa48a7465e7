// Pictures of training: the loss by steps, and where a model looks.

import * as Plot from "@observablehq/plot";
import { type Canvas, common } from "../../bench/plots.ts";
import type { Progress } from "./loop.ts";
import type { Picture } from "./system.ts";

/** Draws the loss of each step, its mean over some steps, and the loss of the test data. */
export function lossPlot(steps: readonly Progress[], canvas: Canvas) {
  const window = Math.max(1, Math.round(steps.length / 40));
  const measured = steps.flatMap(({ step, metrics }) =>
    metrics ? [{ step, loss: metrics.loss }] : [],
  );
  return Plot.plot({
    ...common(canvas),
    height: Math.round(Math.min(320, canvas.width * 0.6)),
    marginLeft: 55,
    marginBottom: 45,
    x: { label: "step", labelOffset: 40 },
    y: { label: "loss", grid: true, zero: true },
    marks: [
      Plot.lineY(steps, { x: "step", y: "loss", stroke: canvas.fill, strokeOpacity: 0.3 }),
      Plot.lineY(
        steps,
        Plot.windowY(window, { x: "step", y: "loss", stroke: canvas.fill, strokeWidth: 2 }),
      ),
      Plot.dot(measured, { x: "step", y: "loss", fill: "currentColor", r: 3 }),
    ],
  });
}

/** Draws where a model looks. */
export const picturePlot = (picture: Picture, canvas: Canvas) =>
  picture.kind === "map" ? mapPlot(picture, canvas) : imagePlot(picture, canvas);

function mapPlot(map: Extract<Picture, { kind: "map" }>, canvas: Canvas) {
  const { rows, columns, weights, rowLabel, columnLabel } = map;
  const cells = weights.flatMap((row, at) =>
    row.map((weight, column) => {
      const title = `${rows[at]} → ${columns[column]}: ${weight.toFixed(3)}`;
      return { row: at, column, weight, title: rows[at] ? title : title.slice(3) };
    }),
  );
  const longest = (names: readonly string[]) => Math.max(0, ...names.map(({ length }) => length));
  const top = Math.max(1e-9, ...cells.map(({ weight }) => Math.abs(weight)));
  const isTurned = longest(columns) > 2;
  const marginLeft = 25 + 8 * longest(rows) + (rowLabel ? 20 : 0);
  const marginTop = 15 + (isTurned ? 7 * longest(columns) : 10) + (columnLabel ? 20 : 0);
  const side = Math.min(40, (canvas.width - marginLeft - 20) / columns.length);
  return Plot.plot({
    ...common(canvas),
    width: Math.max(240, marginLeft + 20 + side * columns.length),
    height: marginTop + 15 + Math.max(24, side) * rows.length,
    marginLeft,
    marginTop,
    marginBottom: 15,
    padding: 0.04,
    x: {
      axis: "top",
      tickFormat: (at: number) => columns[at],
      tickRotate: isTurned ? -60 : 0,
      tickSize: 0,
      label: columnLabel ?? null,
    },
    y: { tickFormat: (at: number) => rows[at], tickSize: 0, label: rowLabel ?? null },
    marks: [
      Plot.cell(cells, {
        x: "column",
        y: "row",
        // A weight may be negative where there is no softmax.
        fill: ({ weight }: { weight: number }) => (weight < 0 ? "#c4473a" : canvas.fill),
        fillOpacity: ({ weight }: { weight: number }) => 0.04 + (0.96 * Math.abs(weight)) / top,
        title: "title",
      }),
    ],
  });
}

function imagePlot(image: Extract<Picture, { kind: "image" }>, canvas: Canvas) {
  const { pixels, weights } = image;
  const [height, width] = [pixels.length, pixels[0].length] as const;
  const patch = height / weights.length;
  const top = Math.max(...weights.flat());
  const dots = pixels.flatMap((row, y) => row.map((light, x) => ({ x, y, light })));
  const patches = weights.flatMap((row, y) =>
    row.map((weight, x) => ({ x: x * patch, y: y * patch, weight })),
  );
  const side = Math.min(280, canvas.width);
  return Plot.plot({
    ...common(canvas),
    width: side,
    height: (side * height) / width,
    margin: 0,
    x: { axis: null, domain: [0, width] },
    y: { axis: null, domain: [height, 0] },
    marks: [
      Plot.rect(dots, {
        x1: "x",
        x2: ({ x }: { x: number }) => x + 1,
        y1: "y",
        y2: ({ y }: { y: number }) => y + 1,
        fill: ({ light }: { light: number }) =>
          `rgb(${[1, 1, 1].map(() => Math.round(255 * light))})`,
        stroke: "none",
        shapeRendering: "crispEdges",
      }),
      Plot.rect(patches, {
        x1: "x",
        x2: ({ x }: { x: number }) => x + patch,
        y1: "y",
        y2: ({ y }: { y: number }) => y + patch,
        fill: canvas.fill,
        fillOpacity: ({ weight }: { weight: number }) => (0.75 * weight) / top,
        title: ({ weight }: { weight: number }) => weight.toFixed(3),
      }),
    ],
  });
}
