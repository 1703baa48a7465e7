// jax-js, on WebGPU and on the CPU as WASM.

import type * as jaxJs from "@jax-js/jax";
import { joined } from "./arrays.ts";
import type { Contestant, Input } from "./contest.ts";

export type Jax = typeof jaxJs;
export type JaxArray = jaxJs.numpy.Array;

let opened: Promise<{ jax: Jax; backends: readonly string[] }> | undefined;

/**
 * The library, loaded once, with the device that it asks for itself. Arrays that are made from then
 * on live on the backend.
 */
export async function openJax(backend: "webgpu" | "wasm"): Promise<Jax> {
  opened ??= (async () => {
    const jax = await import("@jax-js/jax");
    return { jax, backends: await jax.init() };
  })();
  const { jax, backends } = await opened;
  if (!backends.includes(backend)) throw new Error(`jax-js has no ${backend} here`);
  jax.defaultDevice(backend);
  return jax;
}

/**
 * A function of arrays, compiled by jit, whose result is an array or several. In jax-js an
 * operation uses its operands up; `x.ref` keeps x for another.
 */
export async function jaxContestant(
  inputs: readonly Input[],
  compute: (jax: Jax, ...arrays: JaxArray[]) => JaxArray | JaxArray[],
  backend: "webgpu" | "wasm" = "webgpu",
): Promise<Contestant> {
  const jax = await openJax(backend);
  const arrays = inputs.map(({ data, shape }) => jax.numpy.array(data, { shape: [...shape] }));
  const compiled = jax.jit((...given: JaxArray[]) => compute(jax, ...given));
  const once = () => {
    jax.defaultDevice(backend); // of constants, too
    return [compiled(...arrays.map((array) => array.ref)) as JaxArray | JaxArray[]].flat();
  };
  return {
    kernel: `jax-js ${backend}`,
    workspaceBytes: Number.NaN,
    async run() {
      const results = await jax.blockUntilReady(once());
      for (const result of results) result.dispose();
    },
    read: async () =>
      joined(await Promise.all(once().map((result) => result.data() as Promise<Float32Array>))),
    destroy: () => {
      for (const array of arrays) array.dispose();
    },
  };
}
