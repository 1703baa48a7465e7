// A worker that runs attention on its own device and answers with the output. The main thread sends
// the inputs.

import { attention, requestFoveaDevice, tensor } from "../../src/index.ts";

self.onmessage = async ({
  data,
}: MessageEvent<{ shape: number[]; q: Float32Array; k: Float32Array; v: Float32Array }>) => {
  const device = await requestFoveaDevice();
  const [q, k, v] = [data.q, data.k, data.v].map((values) =>
    tensor(device, data.shape, { data: values }),
  );
  const { output } = await attention(q, k, v, { causal: true, variant: "8x32" });
  self.postMessage({ output: await output.read(), hasDocument: typeof document !== "undefined" });
  device.destroy();
};
