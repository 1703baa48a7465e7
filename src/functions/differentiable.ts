// The text that kernels of gradients link in place of a score function's: the function, its
// derivatives, and what calls them under names that kernels know.

import { CALLED, type FunctionText } from "../kernels/slots.ts";
import { GuestText } from "../shader/guest_text.ts";
import type { ScoreFunction } from "./attention_function.ts";
import { gradientOf } from "./gradient.ts";

/**
 * The text of a score function that has derivatives, with those by the score and by the wanted
 * captures.
 *
 * @param wanted Names of captures that have derivatives
 */
export function differentiable(given: ScoreFunction, wanted: readonly string[] = []): FunctionText {
  const { text, parts } = given;
  const gradient = gradientOf(given);
  let reads = 0;
  const cases = wanted.flatMap((name, capture) => {
    const count = gradient.reads.get(name) as number | "one";
    return Array.from({ length: count === "one" ? 1 : count }, (_, element) => {
      const of = count === "one" ? "" : `[${element}]`;
      const index = gradient.text.heads.has(`index_${name}`) ? `index_${name}(at)${of}` : "0u";
      const derivative = `gradient_${name}(s, at)${of}`;
      return `  if (which == ${reads++}u) {\n    return vec3u(${capture}u, ${index}, bitcast<u32>(${derivative}));\n  }\n`;
    });
  });
  const source = `fn ${CALLED.slope}(s: f32, at: Position) -> f32 {
  return gradient(s, at);
}
fn ${CALLED.captured}(which: u32, s: f32, at: Position) -> vec3u {
${cases.join("")}  return vec3u();
}`;
  const names = new Set(["Position", ...gradient.text.declared.keys()]);
  const calls = new GuestText(`calls of ${gradient.text.label}`, source, {
    entry: CALLED.slope,
    names,
  });
  return {
    ...text,
    parts: [...parts, { text: gradient.text, suffix: "" }, { text: calls, suffix: "" }],
  };
}
