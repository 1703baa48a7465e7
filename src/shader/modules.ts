// The shader modules that every attention kernel may import: the library, and the default text of
// each slot. A kernel adds its root and its variants of the slots; what no kernel imports stays out
// of an application's bundle.

import finite from "../../shaders/lib/finite.wesl?raw";
import invocation from "../../shaders/lib/invocation.wesl?raw";
import mask from "../../shaders/lib/mask.wesl?raw";
import params from "../../shaders/lib/params.wesl?raw";
import position from "../../shaders/lib/position.wesl?raw";
import softmax from "../../shaders/lib/softmax.wesl?raw";
import staged from "../../shaders/lib/staged.wesl?raw";
import tiles from "../../shaders/lib/tiles.wesl?raw";
import units from "../../shaders/lib/units.wesl?raw";
import work from "../../shaders/lib/work.wesl?raw";
import config from "../../shaders/slots/config.wesl?raw";
import dropout from "../../shaders/slots/dropout.wesl?raw";
import kvPlace from "../../shaders/slots/kv_place.wesl?raw";
import lse from "../../shaders/slots/lse.wesl?raw";
import output from "../../shaders/slots/output.wesl?raw";
import query from "../../shaders/slots/query.wesl?raw";
import rowMax from "../../shaders/slots/row_max.wesl?raw";
import rows from "../../shaders/slots/rows.wesl?raw";
import sequence from "../../shaders/slots/sequence.wesl?raw";
import similarity from "../../shaders/slots/similarity.wesl?raw";
import tables from "../../shaders/slots/tables.wesl?raw";
import terms from "../../shaders/slots/terms.wesl?raw";
import totals from "../../shaders/slots/totals.wesl?raw";
import walk from "../../shaders/slots/walk.wesl?raw";
import { FoveaError } from "../errors.ts";
import type { ModuleMap } from "./link.ts";
import { AS_KEY, AS_VALUE } from "./renames.ts";

export const MODULES: ModuleMap = {
  "package::lib::finite": finite,
  "package::lib::invocation": invocation,
  "package::lib::mask": mask,
  "package::lib::params": params,
  "package::lib::position": position,
  "package::lib::softmax": softmax,
  "package::lib::staged": staged,
  "package::lib::tiles": tiles,
  "package::lib::units": units,
  "package::lib::work": work,
  "package::slots::config": config,
  "package::slots::dropout": dropout,
  "package::slots::key": { name: "slots/query.wesl as key", text: query, rename: AS_KEY },
  "package::slots::kv_place": kvPlace,
  "package::slots::lse": lse,
  "package::slots::output": output,
  "package::slots::query": query,
  "package::slots::row_max": rowMax,
  "package::slots::rows": rows,
  "package::slots::sequence": sequence,
  "package::slots::similarity": similarity,
  "package::slots::tables": tables,
  "package::slots::terms": terms,
  "package::slots::totals": totals,
  "package::slots::value": { name: "slots/query.wesl as value", text: query, rename: AS_VALUE },
  "package::slots::walk": walk,
};

/** A constant in the text of a module of constants, with its value. */
const CONSTANT = /^const (\w+) = (\w+);/gm;

/**
 * Text for `slots/config`: the default file's constants, but with these values. Throws
 * FoveaError("shader") for a name that the file does not have.
 */
export const configModule = (values: Constants): ModuleMap =>
  constantsModule("config", config, values);

type Constants = Readonly<Record<string, number | boolean>>;

/**
 * Text for another slot that holds constants: the constants of the file `defaults`, but with these
 * values.
 */
export function constantsModule(slot: string, defaults: string, values: Constants): ModuleMap {
  const constants = new Map([...defaults.matchAll(CONSTANT)].map((match) => [match[1], match[2]]));
  for (const [name, value] of Object.entries(values)) {
    if (!constants.has(name))
      throw new FoveaError("shader", `slots/${slot}.wesl has no constant ${name}`);
    constants.set(name, `${value}${typeof value === "number" ? "u" : ""}`);
  }
  const text = [...constants].map(([name, value]) => `const ${name} = ${value};\n`).join("");
  return { [`package::slots::${slot}`]: { name: `slots/${slot}`, text } };
}
