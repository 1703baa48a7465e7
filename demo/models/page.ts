// The page that goes on with texts: loads a checkpoint, streams tokens, shows where each looked.

import { describeAdapter } from "../../bench/program.ts";
import { FoveaError, requestFoveaDevice } from "../../src/index.ts";
import {
  type FileSource,
  fileSource,
  generate,
  Model,
  opfsSource,
  type Tokenizer,
  urlSource,
} from "../../src/models/index.ts";
import { droppedFiles } from "./dropped.ts";
import { letters, smallSource } from "./small.ts";
import { TokenView } from "./tokens.ts";

/** Up to so many layers, each token comes with the attention of all of them. */
const MOST_WATCHED = 8;

const element = <T extends HTMLElement>(id: string) => document.getElementById(id) as T;
const input = (id: string) => element<HTMLInputElement>(id);
const number = (id: string) => Number(input(id).value);
const layerChoice = element<HTMLSelectElement>("layer");
const headChoice = element<HTMLSelectElement>("head");
const startButton = element<HTMLButtonElement>("start");
const stopButton = element<HTMLButtonElement>("stop");
const bar = element<HTMLProgressElement>("progress");

const view = new TokenView(element("text"), element("looks"), () => ({
  layer: Number(layerChoice.value),
  head: Number(headChoice.value),
}));

/** What is loaded. */
let loaded: { readonly model: Model; readonly tokenizer: Tokenizer | undefined } | undefined;
let isBusy = false;
let stopping = new AbortController();

/** Shows what went wrong, in words that help; nothing, to begin with. */
function tell(error?: unknown): void {
  const message = element("message");
  message.hidden = error === undefined;
  message.textContent =
    error instanceof FoveaError ? error.message : `Something went wrong: ${error}`;
}

async function tokenizerOf(source: FileSource): Promise<Tokenizer | undefined> {
  const json = async (name: string) => {
    const size = await source.size(name);
    if (size === undefined) return undefined;
    return JSON.parse(new TextDecoder().decode(await source.read(name, 0, size)));
  };
  const tokens = await json("tokenizer.json");
  if (!tokens) return undefined;
  const { Tokenizer: Made } = await import("@huggingface/tokenizers");
  return new Made(tokens, (await json("tokenizer_config.json")) ?? {});
}

/** Loads a checkpoint in place of the one before. */
async function load(device: GPUDevice, source: FileSource, given?: Tokenizer): Promise<void> {
  if (isBusy) throw new FoveaError("argument", "A model is at work: stop it, or wait for it.");
  isBusy = true;
  tell();
  element("state").textContent = "";
  element("model").textContent = `Loading ${source.label} …`;
  element("controls").hidden = true;
  bar.hidden = false;
  bar.value = 0;
  try {
    loaded?.model.destroy();
    loaded = undefined;
    view.clear();
    const onProgress = (bytes: number, total: number) => {
      bar.value = bytes / total;
    };
    const tokenizer = given ?? (await tokenizerOf(source));
    const model = await Model.load(device, source, { onProgress });
    loaded = { model, tokenizer };
    ready(source.label);
  } catch (error) {
    element("model").textContent = "";
    throw error;
  } finally {
    bar.hidden = true;
    isBusy = false;
  }
}

const optionsTo = (count: number) =>
  Array.from({ length: count }, (_, at) => new Option(String(at), String(at)));

function ready(label: string): void {
  if (!loaded) return;
  const { model, tokenizer } = loaded;
  const size = (model.bytes / 2 ** 20).toFixed(1);
  element("model").textContent = `${model.family}, ${model.layers} layers, ${size} MiB: ${label}.`;
  layerChoice.replaceChildren(...optionsTo(model.layers));
  headChoice.replaceChildren(...optionsTo(1));
  const what = tokenizer ? "Text" : "Ids of tokens";
  (element("prompting").querySelector("span") as HTMLElement).textContent = what;
  input("prompt").value = tokenizer ? "the sea was " : "1 2 3";
  element("controls").hidden = false;
}

/** The ids of the prompt. */
function promptIds(tokenizer: Tokenizer | undefined): number[] {
  const { value } = input("prompt");
  if (!tokenizer)
    return value
      .split(/[\s,]+/)
      .filter(Boolean)
      .map(Number);
  const given = tokenizer.encode(value);
  return Array.from("ids" in given ? given.ids : given, Number);
}

/** Goes on with the prompt until it ends or is stopped. */
async function goOn(): Promise<void> {
  if (!loaded || isBusy) return;
  const { model, tokenizer } = loaded;
  isBusy = true;
  stopping = new AbortController();
  tell();
  view.clear();
  startButton.disabled = true;
  stopButton.disabled = false;
  element("state").textContent = "Compiling and reading the text …";
  const spelled = (id: number) => tokenizer?.decode([id]) ?? `${id} `;
  const chosen = Number(layerChoice.value);
  const all = Array.from({ length: model.layers }, (_, at) => at);
  const attention = model.layers <= MOST_WATCHED ? all : [chosen];
  let count = 0;
  let isStopped = false;
  const began = performance.now();
  let first = began;
  try {
    const ids = promptIds(tokenizer);
    for (const id of ids) view.add({ text: spelled(id), looks: new Map() });
    const options = {
      maxNewTokens: number("count"),
      temperature: number("temperature"),
      topK: number("topK"),
      topP: number("topP"),
      seed: number("seed"),
      attention,
      signal: stopping.signal,
    };
    for await (const { token, results = {} } of generate(model, ids, options)) {
      if (count === 0) first = performance.now();
      count++;
      const looks = new Map(
        attention.map((layer) => {
          const { shape, data } = results[`attention.${layer}`];
          return [layer, { heads: shape[0], data }] as const;
        }),
      );
      const { heads } = [...looks.values()][0];
      if (headChoice.length !== heads) headChoice.replaceChildren(...optionsTo(heads));
      view.add({ text: spelled(token), looks });
      element("state").textContent = figures(count, began, first);
    }
  } catch (error) {
    isStopped = stopping.signal.aborted;
    if (!isStopped) throw error;
  } finally {
    const what = isStopped ? "Stopped" : "Done";
    element("state").textContent = count > 0 ? `${what}. ${figures(count, began, first)}` : what;
    startButton.disabled = false;
    stopButton.disabled = true;
    isBusy = false;
  }
}

function figures(count: number, began: number, first: number): string {
  const start = `${count} ${count === 1 ? "token" : "tokens"}, the first after ${Math.round(first - began)} ms`;
  const seconds = (performance.now() - first) / 1000;
  return count > 1 ? `${start}, then ${((count - 1) / seconds).toFixed(1)} tokens a second` : start;
}

async function open(): Promise<void> {
  if (!navigator.gpu) {
    throw new FoveaError(
      "device",
      isSecureContext
        ? "This browser has no WebGPU, so there is nothing to run on. Current Chrome, Edge, Safari and Firefox have it on most systems."
        : "WebGPU needs a secure page: open this one over https, or on localhost.",
    );
  }
  const device = await requestFoveaDevice();
  const { description, software } = describeAdapter(device);
  element("adapter").textContent = software
    ? `Running on ${description}: a software adapter on the CPU, so this takes a while.`
    : `Running on ${description}.`;
  element("load").hidden = false;
  const loadFiles = (files: Iterable<File>) =>
    load(device, fileSource(files, "the files that you chose")).catch(tell);
  for (const id of ["files", "folder"]) {
    input(id).addEventListener("change", () => {
      const { files } = input(id);
      if (files && files.length > 0) void loadFiles(files);
    });
  }
  element("small").addEventListener("click", () => {
    void smallSource(device)
      .then((source) => load(device, source, letters))
      .catch(tell);
  });
  element<HTMLFormElement>("from").addEventListener("submit", (event) => {
    event.preventDefault();
    const { value } = input("address");
    const folder = `models/${value.replace(/[^\w.-]+/g, "_")}`;
    void load(device, opfsSource(urlSource(value), folder)).catch(tell);
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer) void droppedFiles(event.dataTransfer).then(loadFiles).catch(tell);
  });
  element<HTMLFormElement>("controls").addEventListener("submit", (event) => {
    event.preventDefault();
    void goOn().catch(tell);
  });
  stopButton.addEventListener("click", () => stopping.abort());
  for (const choice of [layerChoice, headChoice])
    choice.addEventListener("change", () => view.show());
}

void open().catch((error: unknown) => {
  element("adapter").hidden = true;
  tell(error);
});
