// Pictures as rows of patches.

import { check, show } from "../../errors.ts";
import { graphOf } from "../arguments.ts";
import type { Value } from "../value.ts";
import { linear } from "./dense.ts";
import { copyInto } from "./elements.ts";

/**
 * The patches of pictures, each a row: those of a picture row by row, and in each its channels,
 * rows and columns. Nothing is learned from where pictures come from: no gradient goes through.
 *
 * @param images [B, C, H, W], H and W multiples of the size
 * @returns [B, (H / size) (W / size), C size size]
 */
export function patches(images: Value, size: number): Value {
  const graph = graphOf("patches", { images });
  check(
    Number.isInteger(size) && size > 0,
    "argument",
    () => `patches: a size is a whole number from 1 up, got ${show(size)}.`,
  );
  const [B, C, H, W] = images.shape;
  check(
    images.shape.length === 4 && H % size === 0 && W % size === 0,
    "argument",
    () => `patches: [${images.shape}] is not [B, C, H, W] in whole patches of ${size} x ${size}.`,
  );
  const down = H / size;
  const across = W / size;
  const output = graph.computed("patches", [B, down, across, C, size, size], []);
  const rows = images.reshape(B, C, down, size, across, size).permute(0, 2, 4, 1, 3, 5);
  // A copy has four axes at most: of one row of patches and one channel.
  for (let row = 0; row < down; row++) {
    for (let channel = 0; channel < C; channel++) {
      const part = (of: Value) =>
        of
          .slice(1, row, row + 1)
          .slice(3, channel, channel + 1)
          .reshape(B, across, size, size);
      copyInto(part(rows), part(output));
    }
  }
  return output.reshape(B, down * across, C * size * size);
}

/**
 * A convolution of pictures whose stride is its size: a row for each patch.
 *
 * @param images [B, C, H, W]
 * @param weight [width, C, size, size]
 * @param bias [width]
 * @returns [B, (H / size) (W / size), width]
 */
export function patchEmbedding(images: Value, weight: Value, bias?: Value): Value {
  graphOf("patchEmbedding", { images, weight }, { bias });
  const [width, C, size] = weight.shape;
  return linear(patches(images, size), weight.reshape(width, C * size * size), bias);
}
