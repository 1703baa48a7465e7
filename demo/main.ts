// The demo: the ladder, live. Every rung is checked and timed in the visitor's own browser.

import { bytes, digits, milliseconds } from "../bench/format.ts";
import { type Measurement, measure, stepsOf } from "../bench/harness.ts";
import { LADDER } from "../bench/ladder.ts";
import { ladderPlot } from "../bench/plots.ts";
import { describeAdapter } from "../bench/program.ts";
import { FoveaError, requestFoveaDevice } from "../src/index.ts";

const ROUNDS = 5;

const element = <T extends HTMLElement>(id: string) => document.getElementById(id) as T;
const adapterLine = element<HTMLParagraphElement>("adapter");
const form = element<HTMLFormElement>("controls");
const bar = element<HTMLProgressElement>("progress");
const message = element<HTMLParagraphElement>("message");
const figure = element<HTMLElement>("plot");
const table = element<HTMLTableElement>("results");
const footnote = element<HTMLParagraphElement>("footnote");

/** Shows what went wrong, in words that help. */
function fail(error: unknown): void {
  message.hidden = false;
  message.textContent =
    error instanceof FoveaError ? error.message : `Something went wrong: ${error}`;
}

async function start(): Promise<void> {
  if (!navigator.gpu) {
    adapterLine.hidden = true;
    message.hidden = false;
    message.textContent = isSecureContext
      ? "This browser has no WebGPU, so there is nothing to run on. Current Chrome, Edge, Safari and Firefox have it on most systems."
      : "WebGPU needs a secure page: open this one over https, or on localhost.";
    return;
  }
  const device = await requestFoveaDevice();
  const { description, software } = describeAdapter(device);
  adapterLine.textContent = software
    ? `Running on ${description}: a software adapter on the CPU, so short sequences only.`
    : `Running on ${description}.`;
  const lengths = software ? [32, 64, 128] : [256, 512, 1024, 2048];
  const select = form.elements.namedItem("length") as HTMLSelectElement;
  select.append(...lengths.map((length) => new Option(`${length}`, `${length}`)));
  select.value = `${lengths[1]}`;
  form.hidden = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void climb(device).catch(fail);
  });
  void device.lost.then(({ reason }) => {
    if (reason !== "destroyed")
      fail(new FoveaError("device-lost", "The browser lost the GPU. Reload the page to go on."));
  });
}

/** Runs the ladder on the problem that the form describes. */
async function climb(device: GPUDevice): Promise<void> {
  const data = new FormData(form);
  const length = Number(data.get("length"));
  const D = Number(data.get("headDim"));
  const dims = { B: 1, H: 8, Hkv: 8, M: length, N: length, D, Dv: D, causal: data.has("causal") };
  const button = form.querySelector("button") as HTMLButtonElement;
  button.disabled = true;
  message.hidden = true;
  bar.hidden = false;
  bar.max = stepsOf({ implementations: LADDER, rounds: ROUNDS });
  bar.value = 0;
  try {
    await measure(device, {
      suite: "demo",
      name: `N=${length} D=${D}`,
      dims,
      implementations: LADDER,
      rounds: ROUNDS,
      verifyFlops: 5e7, // a tenth of a second, since the page stands still meanwhile
      onStep: () => {
        bar.value++;
      },
      onRound: show,
    });
  } finally {
    button.disabled = false;
    bar.hidden = true;
  }
}

/** Shows the table and the plot of what has been measured so far. */
function show(measurements: readonly Measurement[]): void {
  const slowest = measurements[0].ms.median;
  const rows = measurements.map(({ impl, ms, gflops, maxError, correct, workspaceBytes }) => {
    const rung = LADDER.find(({ name }) => name === impl);
    const row = document.createElement("tr");
    row.dataset.correct = `${correct}`;
    const cells = [
      impl,
      rung?.idea ?? "",
      milliseconds(ms.median),
      digits(gflops),
      `${digits(slowest / ms.median)}×`,
      correct ? maxError.toExponential(1) : `wrong: ${maxError.toExponential(1)}`,
      bytes(workspaceBytes),
    ];
    row.append(
      ...cells.map((text) => Object.assign(document.createElement("td"), { textContent: text })),
    );
    row.children[5].classList.toggle("wrong", !correct);
    return row;
  });
  table.tBodies[0].replaceChildren(...rows);
  table.hidden = false;
  const [{ timing, verdict }] = measurements;
  footnote.textContent = `Medians of ${ROUNDS} interleaved rounds, by ${timing}. ${verdict.rows} of ${verdict.ofRows} rows of each output were checked.`;
  footnote.hidden = false;
  figure.replaceChildren(
    ladderPlot(measurements, { width: Math.min(figure.clientWidth, 860), fill: "var(--accent)" }),
  );
}

void start().catch((error: unknown) => {
  adapterLine.hidden = true;
  fail(error);
});
