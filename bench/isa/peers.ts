// Another library's kernels, as it hands them to the browser while it computes.

import type { ViteDevServer } from "vite";
import { openPage } from "../browser.ts";
import type { IsaKernel } from "./compiler.ts";

/**
 * Returns onnxruntime-web's kernels of a prefill (S=512, H=8, D=64). The kernels that multiply most
 * are its attention.
 */
export async function peerKernels(server: ViteDevServer): Promise<IsaKernel[]> {
  const page = await openPage(server, () => {});
  try {
    const codes = await page.call<string[]>("peerShaders");
    return codes.map((code, index) => ({
      name: `onnxruntime-web kernel ${index + 1} of ${codes.length}`,
      code,
    }));
  } finally {
    await page.close();
  }
}
