// onnxruntime-web, on WebGPU and on the CPU as WASM.

import type * as ortJs from "onnxruntime-web";
import type { Contestant, Input } from "./contest.ts";
import { type ModelNode, modelOf } from "./onnx_model.ts";

type Ort = typeof ortJs;

/** Threads of the WASM build: as many as the page may use. */
const THREADS = () => (globalThis.crossOriginIsolated ? navigator.hardwareConcurrency : 1);

const opened = new Map<string, Promise<Ort>>();

/** The build for a provider, loaded once. Its WASM files are served from the package. */
export function openOrt(provider: "webgpu" | "wasm"): Promise<Ort> {
  let ort = opened.get(provider);
  if (!ort) {
    ort = (async () => {
      // The package is loaded from the server's files, because it finds its WASM beside them.
      const folder = new URL("/node_modules/onnxruntime-web/dist/", location.href).href;
      const loaded: Ort = await import(/* @vite-ignore */ `${folder}ort.${provider}.min.mjs`);
      loaded.env.wasm.wasmPaths = folder;
      loaded.env.wasm.numThreads = THREADS();
      return loaded;
    })();
    opened.set(provider, ort);
  }
  return ort;
}

/**
 * Runs a model of one node. On WebGPU, inputs and outputs are buffers of onnxruntime's own device.
 *
 * @param read What makes the result row-major in the contest's order.
 */
export async function ortContestant(
  provider: "webgpu" | "wasm",
  node: ModelNode,
  inputs: readonly Input[],
  read: (values: Float32Array) => ArrayLike<number>,
): Promise<Contestant> {
  const ort = await openOrt(provider);
  const session = await ort.InferenceSession.create(modelOf(node), {
    executionProviders: [provider],
    preferredOutputLocation: provider === "webgpu" ? "gpu-buffer" : "cpu",
    logSeverityLevel: 3,
  });
  const device = provider === "webgpu" ? ((await ort.env.webgpu.device) as GPUDevice) : undefined;
  const buffers: GPUBuffer[] = [];
  const upload = ({ data, shape }: Input) => {
    if (!device) return new ort.Tensor("float32", data, shape);
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
    const buffer = device.createBuffer({ size: data.byteLength, usage });
    device.queue.writeBuffer(buffer, 0, data);
    buffers.push(buffer);
    return ort.Tensor.fromGpuBuffer(buffer, { dataType: "float32", dims: shape });
  };
  const feeds = Object.fromEntries(
    node.inputs.map(({ name }, index) => [name, upload(inputs[index])]),
  );
  const [{ name: output }] = node.outputs;
  return {
    kernel: `onnxruntime-web ${ort.env.versions.web ?? ""}`.trim(),
    workspaceBytes: Number.NaN,
    async run() {
      const results = await session.run(feeds);
      await device?.queue.onSubmittedWorkDone();
      results[output].dispose();
    },
    async read() {
      const results = await session.run(feeds);
      const values = read((await results[output].getData()) as Float32Array);
      results[output].dispose();
      return values;
    },
    destroy() {
      for (const buffer of buffers) buffer.destroy();
      void session.release();
    },
  };
}
