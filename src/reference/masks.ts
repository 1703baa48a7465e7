// Masks that hide keys one by one. They are not called for keys outside a row's run.

import type { ReferenceOptions } from "./options.ts";
import { positionOf, type Row } from "./rows.ts";
import { biasElement } from "./steps.ts";

/** True if the row sees the key. */
export type Mask = (row: Row, key: number) => boolean;

export function masksOf({ mask, bias, maskFunction, sinkTokens }: ReferenceOptions): Mask[] {
  const masks: Mask[] = [];
  if (sinkTokens) masks.push((row, key) => key < sinkTokens || key >= row.windowBegin);
  if (mask) {
    const element = biasElement(mask);
    masks.push((row, key) => element(row, key) !== 0);
  }
  if (bias) {
    const element = biasElement(bias);
    masks.push((row, key) => element(row, key) !== Number.NEGATIVE_INFINITY);
  }
  if (maskFunction) masks.push((row, key) => maskFunction(positionOf(row, key)));
  return masks;
}
