// The decoders by onnxruntime-web, as transformers.js runs them: a run of the graph for each step;
// keys and values stay on the GPU, where each step makes longer ones; logits are read back, and the
// token is chosen on the CPU.

import type * as ortJs from "onnxruntime-web";
import { type Decoder, decodingContestant, type Task } from "../models/decoding.ts";
import { largestAt } from "../models/reference.ts";
import type { Contestant } from "./contest.ts";
import { llamaGraph } from "./llama_onnx.ts";
import { graphModel } from "./onnx_model.ts";
import { openOrt } from "./ort.ts";

type Tensors = Record<string, ortJs.Tensor>;

/** The graph, and what runs it. */
async function opened({ llama }: Task, lastRow: boolean) {
  const ort = await openOrt("webgpu");
  const graph = llamaGraph(llama, lastRow);
  const present = graph.outputs.map(({ name }) => name).filter((name) => name !== "logits");
  const onGpu = Object.fromEntries(present.map((name) => [name, "gpu-buffer" as const]));
  const session = await ort.InferenceSession.create(graphModel(graph), {
    executionProviders: ["webgpu"],
    preferredOutputLocation: { logits: "cpu", ...onGpu },
    logSeverityLevel: 3,
  });
  const device = (await ort.env.webgpu.device) as GPUDevice;
  /** Reads tokens behind `length` others. */
  const step = async (tokens: readonly number[], length: number, past: Tensors) => {
    const total = length + tokens.length;
    const { logits, ...kept } = await session.run({
      ...past,
      input_ids: new ort.Tensor("int64", BigInt64Array.from(tokens, BigInt), [1, tokens.length]),
      seqlens_k: new ort.Tensor("int32", Int32Array.of(total - 1), [1]),
      total_sequence_length: new ort.Tensor("int32", Int32Array.of(total), []),
    });
    const renamed = Object.entries(kept).map(
      ([name, one]) => [name.replace("present", "past_key_values"), one] as const,
    );
    return { logits: logits.data as Float32Array, past: Object.fromEntries(renamed) as Tensors };
  };
  const kernel = `onnxruntime-web ${ort.env.versions.web ?? ""}`.trim();
  return { ort, session, device, step, kernel };
}

const dispose = (tensors: Tensors) => {
  for (const one of Object.values(tensors)) one.dispose();
};

/** Goes on with a text, of whose keys and values it is given the right ones. */
export async function ortDecoding(task: Task): Promise<Contestant> {
  const { llama, ids, golden } = task;
  const { ort, session, device, step, kernel } = await opened(task, false);
  const { kvHeads, headDim } = llama.sizes;
  const at = ids.length - 1;
  const buffers: GPUBuffer[] = [];
  const upload = (rows: readonly Float64Array[]) => {
    const data = new Float32Array(kvHeads * at * headDim);
    for (const [t, row] of rows.entries())
      for (let head = 0; head < kvHeads; head++)
        data.set(row.subarray(head * headDim, (head + 1) * headDim), (head * at + t) * headDim);
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
    const buffer = device.createBuffer({ size: data.byteLength, usage });
    device.queue.writeBuffer(buffer, 0, data);
    buffers.push(buffer);
    return ort.Tensor.fromGpuBuffer(buffer, {
      dataType: "float32",
      dims: [1, kvHeads, at, headDim],
    });
  };
  const first: Tensors = {};
  for (const [layer, { keys, values }] of golden.kept.entries()) {
    first[`past_key_values.${layer}.key`] = upload(keys);
    first[`past_key_values.${layer}.value`] = upload(values);
  }
  let past = first;
  let length = at;
  let token = ids[at];
  let logits = new Float32Array();
  const restart = async () => {
    if (past !== first) dispose(past);
    past = first;
    length = at;
    token = ids[at];
  };
  const next = async () => {
    const told = await step([token], length, past);
    if (past !== first) dispose(past);
    past = told.past;
    length++;
    logits = told.logits as Float32Array<ArrayBuffer>;
    token = largestAt(logits);
    return token;
  };
  const decoder: Decoder = {
    kernel,
    workspaceBytes: Number.NaN,
    restart,
    next,
    idle: () => device.queue.onSubmittedWorkDone(),
    async logits() {
      await next();
      return logits;
    },
    destroy() {
      void restart();
      for (const buffer of buffers) buffer.destroy();
      void session.release();
    },
  };
  return decodingContestant(decoder, task);
}

/** Reads a text, and tells the first token after it. Only the last row has logits. */
export async function ortPrompt(task: Task): Promise<Contestant> {
  const { llama, ids } = task;
  const { ort, session, device, step, kernel } = await opened(task, true);
  const { layers, kvHeads, headDim } = llama.sizes;
  const run = async () => {
    const past: Tensors = {};
    for (let layer = 0; layer < layers; layer++) {
      for (const kind of ["key", "value"]) {
        const none = new ort.Tensor("float32", new Float32Array(), [1, kvHeads, 0, headDim]);
        past[`past_key_values.${layer}.${kind}`] = none;
      }
    }
    const told = await step(ids, 0, past);
    const token = largestAt(told.logits);
    await device.queue.onSubmittedWorkDone();
    dispose(told.past);
    return { logits: told.logits, token };
  };
  return {
    kernel,
    workspaceBytes: Number.NaN,
    run,
    async read() {
      const { logits, token } = await run();
      return [...logits, token];
    },
    destroy: () => void session.release(),
  };
}
