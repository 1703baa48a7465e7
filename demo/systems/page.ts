// The page of a system: trains it, shows its loss and where it looks, and asks it.

import { describeAdapter } from "../../bench/program.ts";
import { FoveaError, requestFoveaDevice } from "../../src/index.ts";
import { readOpfs, removeOpfs, writeOpfs } from "../../src/training/index.ts";
import { drawingOn } from "./drawing.ts";
import { SYSTEMS } from "./index.ts";
import { type Progress, train } from "./loop.ts";
import { lossPlot, picturePlot } from "./pictures.ts";
import type { Answer, Session, System } from "./system.ts";

const SEED = 1;

const main = document.querySelector("main") as HTMLElement;
const system = SYSTEMS.find(({ name }) => name === main.dataset.system) as System;
/** Where the last checkpoint is kept between visits. */
const KEPT = `systems/${system.name}.safetensors`;

main.innerHTML = `
  <p><a href="../../">Fovea</a> · <a href="../">systems</a></p>
  <h1></h1>
  <p id="about"></p>
  <p id="adapter" role="status">Looking for a GPU …</p>
  <form id="controls" hidden>
    <button type="submit" id="start">Start</button>
    <button type="button" id="over" hidden>Start over</button>
    <output id="state"></output>
  </form>
  <progress id="progress" hidden></progress>
  <p id="message" role="alert" hidden></p>
  <p id="metrics" role="status"></p>
  <figure id="loss" aria-label="Loss by steps"></figure>
  <section id="ask" hidden>
    <h2>Ask it</h2>
    <form id="question"></form>
    <p id="answer" role="status"></p>
    <div id="pictures"></div>
  </section>`;

const element = <T extends HTMLElement>(id: string) => document.getElementById(id) as T;
const startButton = element<HTMLButtonElement>("start");
const overButton = element<HTMLButtonElement>("over");
const bar = element<HTMLProgressElement>("progress");
const message = element<HTMLParagraphElement>("message");
const question = element<HTMLFormElement>("question");

(main.querySelector("h1") as HTMLElement).textContent = system.title;
element("about").textContent = system.about;
document.title = `Fovea: ${system.title}`;

let session: Session | undefined;
let isRunning = false;
let told: Progress[] = [];

/** Shows what went wrong, in words that help. */
function fail(error: unknown): void {
  message.hidden = false;
  message.textContent =
    error instanceof FoveaError ? error.message : `Something went wrong: ${error}`;
}

async function open(): Promise<void> {
  if (!navigator.gpu) {
    throw new FoveaError(
      "device",
      isSecureContext
        ? "This browser has no WebGPU, so there is nothing to train on. Current Chrome, Edge, Safari and Firefox have it on most systems."
        : "WebGPU needs a secure page: open this one over https, or on localhost.",
    );
  }
  const device = await requestFoveaDevice();
  const { description, software } = describeAdapter(device);
  element("adapter").textContent = software
    ? `Running on ${description}: a software adapter on the CPU, so this takes a while.`
    : `Running on ${description}.`;
  const kept = await readOpfs(KEPT).catch(() => undefined);
  overButton.hidden = !kept;
  startButton.textContent = kept ? "Go on" : "Start";
  element("controls").hidden = false;
  element<HTMLFormElement>("controls").addEventListener("submit", (event) => {
    event.preventDefault();
    if (isRunning) isRunning = false;
    else void run(device, kept).catch(fail);
  });
  overButton.addEventListener("click", () => {
    void (async () => {
      isRunning = false;
      await removeOpfs(KEPT);
      location.reload();
    })().catch(fail);
  });
}

const begin = (device: GPUDevice, checkpoint: Uint8Array | undefined) =>
  system.start(device, {
    seed: SEED,
    checkpoint,
    // A page without the file system trains all the same.
    onCheckpoint: (bytes) => writeOpfs(KEPT, bytes).catch(() => undefined),
  });

/** Trains until it is paused, or has done all its steps. */
async function run(device: GPUDevice, kept: Uint8Array | undefined): Promise<void> {
  isRunning = true;
  message.hidden = true;
  startButton.disabled = true;
  element("state").textContent = "Compiling …";
  session ??= await begin(device, kept);
  showQuestion();
  await ask(); // what it says before it has learned
  startButton.disabled = false;
  startButton.textContent = "Pause";
  overButton.hidden = true;
  bar.hidden = false;
  bar.max = system.steps;
  try {
    for await (const one of train(session, system, {
      steps: system.steps,
      isPaused: () => !isRunning,
    })) {
      told.push(one);
      await show(one);
    }
    if (session.training.step > 0) await session.training.save();
  } catch (error) {
    if (!(error instanceof FoveaError) || error.code !== "device-lost") throw error;
    fail(error);
    await recover();
    return;
  } finally {
    isRunning = false;
    const isDone = (session?.training.step ?? 0) >= system.steps;
    startButton.disabled = isDone;
    startButton.textContent = isDone ? "Done" : "Go on";
    overButton.hidden = false;
  }
}

/** Goes on from the last checkpoint on another device. */
async function recover(): Promise<void> {
  const { bytes, step } = (session as Session).training.checkpoint;
  session?.destroy();
  session = await begin(await requestFoveaDevice(), bytes);
  told = told.filter((one) => one.step <= step);
  element("state").textContent = `The GPU was lost; step ${step} was kept.`;
}

/** Shows a step; measurements also show the curve and what the model says now. */
async function show({ step, loss, metrics }: Progress): Promise<void> {
  bar.value = step;
  element("state").textContent = `Step ${step} of ${system.steps}, loss ${loss.toFixed(3)}`;
  if (!metrics && told.length % 10) return;
  const width = Math.min(element("loss").clientWidth, 860);
  element("loss").replaceChildren(lossPlot(told, { width, fill: "var(--accent)" }));
  if (!metrics) return;
  const parts = Object.entries(metrics).map(([name, value]) => `${name} ${value.toFixed(3)}`);
  element("metrics").textContent = `On the test data: ${parts.join(", ")}`;
  await ask();
}

let read: () => string | readonly number[] | undefined = () => undefined;

/** Shows the way to ask, once there is a model. */
function showQuestion(): void {
  if (!element("ask").hidden) return;
  element("ask").hidden = false;
  const { input } = system;
  const label = document.createElement("label");
  label.textContent = `${input.label} `;
  const button = Object.assign(document.createElement("button"), { textContent: "Ask" });
  if (input.kind === "text") {
    const field = Object.assign(document.createElement("input"), { value: input.example });
    field.name = "text";
    label.append(field);
    question.append(label, button);
    read = () => field.value;
  } else {
    const drawing = drawingOn(input.size, () => void ask().catch(fail));
    label.append(drawing.canvas);
    const clear = Object.assign(document.createElement("button"), {
      type: "button",
      textContent: "Clear",
    });
    clear.addEventListener("click", () => drawing.clear());
    question.append(label, button, clear);
    read = drawing.pixels;
  }
  question.addEventListener("submit", (event) => {
    event.preventDefault();
    void ask().catch(fail);
  });
}

async function ask(): Promise<void> {
  if (session) answerWith(await session.answer(read()));
}

function answerWith({ text, pictures }: Answer): void {
  element("answer").textContent = text;
  const width = Math.min(element("pictures").clientWidth, 860);
  element("pictures").replaceChildren(
    ...pictures.map((picture) => {
      const figure = document.createElement("figure");
      const caption = Object.assign(document.createElement("figcaption"), {
        textContent: picture.title,
      });
      const frame = Object.assign(document.createElement("div"), { className: "scroll" });
      frame.append(picturePlot(picture, { width, fill: "var(--accent)" }));
      figure.append(caption, frame);
      return figure;
    }),
  );
}

void open().catch((error: unknown) => {
  element("adapter").hidden = true;
  fail(error);
});
