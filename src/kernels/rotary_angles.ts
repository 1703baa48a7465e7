// Rotary embedding for any kernel: the modules of slots/rotary and slots/angles, their bindings,
// and the tables of angles. The tables are computed in float64 here, because WGSL's sin and cos are
// only accurate near 0.

import rotary from "../../shaders/lib/rotary.wesl?raw";
import angles from "../../shaders/slots/angles.wesl?raw";
import constants from "../../shaders/slots/rotary.wesl?raw";
import anglesCached from "../../shaders/variants/angles_cached.wesl?raw";
import anglesTables from "../../shaders/variants/angles_tables.wesl?raw";
import type { ModuleMap } from "../shader/link.ts";
import { constantsModule } from "../shader/modules.ts";
import type { Binding, FloatDtype } from "../types.ts";

/** What the text depends on of a rotary embedding. Its frequencies are in tables. */
export interface RotaryChoice {
  /** R, even. */
  readonly rotaryDim: number;
  readonly interleaved: boolean;
  /** Whether the rotated rows take the place of those that were read. */
  readonly inPlace?: boolean;
  /** How many pairs turn by positions of time, height and width. */
  readonly sections?: readonly [t: number, h: number, w: number];
  readonly sectionsInterleaved?: boolean;
  /** The source of cos and sin: our tables, or a caller's tables of this type. */
  readonly angles: "tables" | FloatDtype;
}

/**
 * Positions that the tables of angles cover: from -ANGLE_POSITIONS up to, and without,
 * ANGLE_POSITIONS.
 */
export const ANGLE_POSITIONS = 2 ** 23;
/** Rows of a table: positions are numbers of three digits to this base. */
const DIGITS = 256;

/**
 * The modules that a kernel imports for a rotary embedding; without a choice nothing is rotated.
 */
export function rotaryModules(choice?: RotaryChoice): ModuleMap {
  const modules = { "package::lib::rotary": rotary, "package::slots::angles": angles };
  if (!choice) return { ...modules, "package::slots::rotary": constants };
  const { rotaryDim, interleaved, sections = [0, 0, 0], sectionsInterleaved = false } = choice;
  const variant =
    choice.angles === "tables"
      ? { name: "variants/angles_tables.wesl", text: anglesTables }
      : { name: "variants/angles_cached.wesl", text: anglesCached };
  return {
    ...modules,
    "package::slots::angles": variant,
    ...constantsModule("rotary", constants, {
      ROTARY_DIM: rotaryDim,
      ROTARY_INTERLEAVED: interleaved,
      ROTARY_IN_PLACE: choice.inPlace ?? false,
      SECTIONS: choice.sections !== undefined,
      SECTIONS_INTERLEAVED: sectionsInterleaved,
      SECTION_T: sections[0],
      SECTION_H: sections[1],
      SECTION_W: sections[2],
      ANGLES_HALF: /16/.test(choice.angles),
      ANGLES_BF16: choice.angles === "bf16",
    }),
  };
}

/** The bindings of a rotary embedding. */
export function rotaryBindings(choice?: RotaryChoice): Binding[] {
  if (!choice) return [];
  if (choice.angles === "tables")
    return [{ binding: 13, name: "angles", type: "read-only-storage" }];
  return [
    { binding: 13, name: "cos_cache", type: "read-only-storage" },
    { binding: 14, name: "sin_cache", type: "read-only-storage" },
  ];
}

/** Shape of the tables in f32: [3, 256, pairs, 2]. */
export const angleTablesShape = (pairs: number) => [3, DIGITS, pairs, 2] as const;

/**
 * The tables that variants/angles_tables reads: (cos, sin) of the angles of positions c, 256 b and
 * 65,536 a, where the last digit, a, counts from -128 up to 127 and lies at a modulo 256.
 *
 * @param frequencies Radians from one position to the next, for each pair
 * @param factor Factor of cos and sin
 */
export function angleTables(
  frequencies: ArrayLike<number>,
  factor: number,
): Float32Array<ArrayBuffer> {
  const pairs = frequencies.length;
  const tables = new Float32Array(3 * DIGITS * pairs * 2);
  let at = 0;
  for (const [table, step] of [1, DIGITS, DIGITS ** 2].entries()) {
    const scale = table === 0 ? factor : 1; // the factor must count once in the product of the three
    for (let digit = 0; digit < DIGITS; digit++) {
      const position = step * (table === 2 && digit >= DIGITS / 2 ? digit - DIGITS : digit);
      for (let pair = 0; pair < pairs; pair++) {
        const angle = position * frequencies[pair];
        tables[at++] = scale * Math.cos(angle);
        tables[at++] = scale * Math.sin(angle);
      }
    }
  }
  return tables;
}
