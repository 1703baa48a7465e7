// The slots of a score function that has derivatives, and of these.

import type { ModuleMap } from "../../shader/link.ts";
import { functionModules } from "../slot_modules.ts";
import { CALLED, type FunctionText } from "../slots.ts";

/**
 * The slot of a score function, whose text has its derivatives, and the slots of these; none if
 * there is no function.
 */
export function differentiableModules(score: FunctionText | undefined): ModuleMap {
  if (!score) return {};
  const names = Object.values(CALLED);
  const derivatives = names.map((entry) => [
    `package::slots::${entry}`,
    {
      name: `${entry} of the ${score.label}`,
      text: "",
      uses: ["package::slots::score"],
      guest: { entry, lines: () => [] },
    },
  ]);
  return { ...functionModules("score", score, names), ...Object.fromEntries(derivatives) };
}
