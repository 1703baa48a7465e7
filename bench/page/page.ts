// The page that `npm start` and `npm run bench` open: it waits to be told what to run. Arrays
// travel as files of the server, since what a page is told and answers goes through JSON.

import { requestFoveaDevice } from "../../src/index.ts";
import { attentionContest } from "../attention.ts";
import type { Dims } from "../cost.ts";
import {
  describeAdapter,
  type Report,
  runInput,
  runSuites,
  type SuiteOptions,
} from "../program.ts";
import { answer } from "./answer.ts";

declare global {
  interface Window {
    /** Provided by the program that opened the page. */
    report: Report;
    fovea: typeof fovea;
  }
}

let device: Promise<GPUDevice> | undefined;
const theDevice = () => {
  device ??= requestFoveaDevice();
  return device;
};

async function fetchFloats(name: string): Promise<Float32Array> {
  const response = await fetch(`/files/${name}`);
  if (!response.ok) throw new Error(`the server has no file ${name}`);
  return new Float32Array(await response.arrayBuffer());
}
const store = (name: string, data: Float32Array) =>
  fetch(`/files/${name}`, { method: "PUT", body: data as Float32Array<ArrayBuffer> });

const fovea = {
  adapter: () => answer(async () => describeAdapter(await theDevice())),
  suites: (options: SuiteOptions) =>
    answer(async () => runSuites(await theDevice(), options, window.report)),
  /** The shaders that onnxruntime-web compiles for a prefill. */
  peerShaders: () =>
    answer(async () => {
      const prototype = GPUDevice.prototype;
      const { createShaderModule } = prototype;
      const codes: string[] = [];
      prototype.createShaderModule = function record(descriptor) {
        codes.push(descriptor.code);
        return createShaderModule.call(this, descriptor);
      };
      try {
        const dims = { B: 1, H: 8, Hkv: 8, M: 512, N: 512, D: 64, Dv: 64, causal: false };
        const contest = attentionContest("shaders", dims);
        const one = await contest.contestants["ort-webgpu"](await theDevice());
        await one.run();
        one.destroy();
        return codes;
      } finally {
        prototype.createShaderModule = createShaderModule;
      }
    }),
  input: (dims: Dims) =>
    answer(async () => {
      const [q, k, v] = await Promise.all(["q", "k", "v"].map(fetchFloats));
      const { output, lse, ...rest } = await runInput(await theDevice(), { dims, q, k, v });
      await Promise.all([store("output", output), store("lse", lse)]);
      return rest;
    }),
};
window.fovea = fovea;
