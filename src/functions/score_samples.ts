// Evaluates a score function and its derivatives on the GPU, at single places.

import { guarded, settle, USAGE } from "../gpu/buffers.ts";
import { tensor } from "../gpu/make_tensor.ts";
import { checkBindings, compileKernel } from "../gpu/pipelines.ts";
import { Tensor } from "../gpu/tensor.ts";
import { checkScoreKernel, SAMPLE_WORDS, SAMPLES } from "../kernels/gradients/check_score.ts";
import { checkOperand } from "../plan/operand_checks.ts";
import { bindingRange } from "../plan/specs.ts";
import type { ScoreFunction } from "./attention_function.ts";
import { type CapturedNumber, checkCaptured, NUMBER_STRIDE, numberBytes } from "./captures.ts";
import { differentiable } from "./differentiable.ts";
import { gradientOf } from "./gradient.ts";

/** A score before the function, and its place. */
export interface Sample {
  readonly s: number;
  readonly batch: number;
  readonly head: number;
  readonly qIdx: number;
  readonly kvIdx: number;
  readonly position: number;
}

/** What the function and its derivatives give for a sample. */
export interface Evaluated {
  readonly score: number;
  readonly slope: number;
  /** The elements that the score reads: the number of the capture, the index, the derivative. */
  readonly reads: readonly {
    readonly capture: number;
    readonly index: number;
    readonly derivative: number;
  }[];
}

/** What is bound for a capture. */
export type Bound = Tensor | CapturedNumber;

/** A score function, ready to be evaluated. Captures are numbered as its derivatives have them. */
export class ScoreSamples {
  readonly #device: GPUDevice;
  readonly #function: ScoreFunction;
  readonly #reads: number;

  constructor(device: GPUDevice, given: ScoreFunction) {
    this.#device = device;
    this.#function = given;
    const { reads } = gradientOf(given);
    this.#reads = [...reads.values()].reduce<number>((sum, n) => sum + (n === "one" ? 1 : n), 0);
  }

  /** Evaluates the function, with other values of some captures. */
  async evaluate(
    samples: readonly Sample[],
    others: ReadonlyMap<string, Bound> = new Map(),
  ): Promise<Evaluated[]> {
    const device = this.#device;
    const given = this.#function;
    const label = "checkGradient";
    const wanted = [...gradientOf(given).reads.keys()];
    const source = checkScoreKernel(differentiable(given, wanted), this.#reads);
    checkBindings(device, label, source.bindings);
    const captures = Object.entries(given.captures).map(([name, value]) => {
      if (value instanceof Tensor) {
        checkCaptured(label, name, device, value);
        const operand = { spec: value, base: 0, fallback: value, written: false };
        checkOperand(`${label}: capture ${name}`, device, operand, value);
      }
      return others.get(name) ?? value;
    });
    const { pipeline, layout } = await compileKernel(device, source);
    const words = 2 + 3 * this.#reads;
    const inputs = tensor(device, [samples.length * SAMPLE_WORDS], {
      dtype: "u32",
      data: wordsOf(samples),
      label,
    });
    const results = tensor(device, [samples.length * words], { dtype: "u32", label });
    const numbers: GPUBuffer[] = [];
    try {
      const { done } = guarded(device, label, () => {
        const resources = captures.map((value): GPUBufferBinding => {
          if (value instanceof Tensor)
            return { buffer: value.buffer, ...(value.size && bindingRange(value)) };
          const usage = USAGE.UNIFORM | USAGE.COPY_DST;
          const buffer = device.createBuffer({ label, size: NUMBER_STRIDE, usage });
          numbers.push(buffer);
          device.queue.writeBuffer(buffer, 0, numberBytes(value));
          return { buffer, size: 4 };
        });
        const all = [{ buffer: inputs.buffer }, { buffer: results.buffer }, ...resources];
        const entries = all.map((resource, index) => ({
          binding: source.bindings[index].binding,
          resource,
        }));
        const encoder = device.createCommandEncoder({ label });
        const pass = encoder.beginComputePass({ label });
        pass.setPipeline(pipeline);
        pass.setBindGroup(0, device.createBindGroup({ label, layout, entries }));
        pass.dispatchWorkgroups(Math.ceil(samples.length / SAMPLES));
        pass.end();
        device.queue.submit([encoder.finish()]);
      });
      await settle([done, inputs.allocated, results.allocated]);
      return this.#evaluated(await results.read(), words);
    } finally {
      inputs.destroy();
      results.destroy();
      for (const buffer of numbers) buffer.destroy();
    }
  }

  #evaluated(found: Uint32Array, words: number): Evaluated[] {
    const floats = new Float32Array(found.buffer, found.byteOffset, found.length);
    return Array.from({ length: found.length / words }, (_, i) => ({
      score: floats[i * words],
      slope: floats[i * words + 1],
      reads: Array.from({ length: this.#reads }, (_, read) => {
        const at = i * words + 2 + 3 * read;
        return { capture: found[at], index: found[at + 1], derivative: floats[at + 2] };
      }),
    }));
  }
}

/** Samples as the shader reads them. */
function wordsOf(samples: readonly Sample[]): Uint32Array<ArrayBuffer> {
  const words = new Uint32Array(samples.length * SAMPLE_WORDS);
  const floats = new Float32Array(words.buffer);
  for (const [i, { s, batch, head, qIdx, kvIdx, position }] of samples.entries()) {
    words.set([0, batch, head, qIdx, kvIdx, position >>> 0], i * SAMPLE_WORDS);
    floats[i * SAMPLE_WORDS] = s;
  }
  return words;
}
