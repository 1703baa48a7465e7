// The slots of what kernels of gradients call beside a score function.

import type { ModuleMap } from "../../shader/link.ts";
import type { FunctionText } from "../slots.ts";

/**
 * Modules of the slots whose functions the text of a score function has: its derivatives. The text
 * itself is the module of the slot `score`.
 */
export const derivativeModules = (score: FunctionText | undefined): ModuleMap =>
  Object.fromEntries(
    (score?.others ?? []).map((entry) => [
      `package::slots::${entry}`,
      {
        name: `${entry} of the ${score?.label}`,
        text: "",
        uses: ["package::slots::score"],
        guest: { entry, lines: () => [] },
      },
    ]),
  );
