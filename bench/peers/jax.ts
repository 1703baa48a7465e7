// jax-js on WebGPU.

import type * as jaxJs from "@jax-js/jax";
import type { Contestant, Input } from "./contest.ts";

export type Jax = typeof jaxJs;
export type JaxArray = jaxJs.numpy.Array;

let opened: Promise<Jax> | undefined;

/** The library, loaded once, with the device that it asks for itself. */
export function openJax(): Promise<Jax> {
  opened ??= (async () => {
    const jax = await import("@jax-js/jax");
    const backends = await jax.init();
    if (!backends.includes("webgpu")) throw new Error("jax-js has no WebGPU here");
    jax.defaultDevice("webgpu");
    return jax;
  })();
  return opened;
}

/** A function of arrays, compiled by jit. In jax-js an operation uses its operands up; `x.ref` keeps x for another. */
export async function jaxContestant(
  inputs: readonly Input[],
  compute: (jax: Jax, ...arrays: JaxArray[]) => JaxArray,
): Promise<Contestant> {
  const jax = await openJax();
  const arrays = inputs.map(({ data, shape }) => jax.numpy.array(data, { shape: [...shape] }));
  const compiled = jax.jit((...given: JaxArray[]) => compute(jax, ...given));
  const once = () => compiled(...arrays.map((array) => array.ref)) as JaxArray;
  return {
    kernel: "jax-js",
    workspaceBytes: Number.NaN,
    async run() {
      const result = await once().blockUntilReady();
      result.dispose();
    },
    read: () => once().data() as Promise<Float32Array>,
    destroy: () => {
      for (const array of arrays) array.dispose();
    },
  };
}
