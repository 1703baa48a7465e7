// The shader modules that every attention kernel may import: the library, and the default text of each slot. A kernel
// adds its root and its variants of the slots; what no kernel imports stays out of an application's bundle.

import mask from "../../shaders/lib/mask.wesl?raw";
import params from "../../shaders/lib/params.wesl?raw";
import tiles from "../../shaders/lib/tiles.wesl?raw";
import work from "../../shaders/lib/work.wesl?raw";
import config from "../../shaders/slots/config.wesl?raw";
import kv from "../../shaders/slots/kv.wesl?raw";
import lse from "../../shaders/slots/lse.wesl?raw";
import output from "../../shaders/slots/output.wesl?raw";
import query from "../../shaders/slots/query.wesl?raw";
import sequence from "../../shaders/slots/sequence.wesl?raw";
import { FoveaError } from "../errors.ts";
import type { ModuleMap } from "./link.ts";

export const MODULES: ModuleMap = {
  "package::lib::mask": mask,
  "package::lib::params": params,
  "package::lib::tiles": tiles,
  "package::lib::work": work,
  "package::slots::config": config,
  "package::slots::kv": kv,
  "package::slots::lse": lse,
  "package::slots::output": output,
  "package::slots::query": query,
  "package::slots::sequence": sequence,
};

/** Text for `slots/config`. Throws FoveaError("shader") for a name that the default file does not have. */
export function configModule(values: Readonly<Record<string, number | boolean>>): ModuleMap {
  const known = new Set([...config.matchAll(/^const (\w+)/gm)].map((match) => match[1]));
  const lines = Object.entries(values).map(([name, value]) => {
    if (!known.has(name)) throw new FoveaError("shader", `slots/config.wesl has no constant ${name}`);
    return `const ${name} = ${value}${typeof value === "number" ? "u" : ""};\n`;
  });
  return { "package::slots::config": { name: "slots/config", text: lines.join("") } };
}
