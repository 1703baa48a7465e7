// Options that are a number for each head: slopes of ALiBi, and sinks.

import { Tensor } from "../gpu/tensor.ts";
import type { Descriptor } from "./descriptor.ts";
import { checkNumbers } from "./numbers.ts";

/** Describes `alibiSlopes`. */
export const ALIBI_SLOPES: Descriptor = ({ label, options: { alibiSlopes }, sizes }) => {
  if (alibiSlopes === undefined) return undefined;
  const { batch, heads } = sizes;
  const perEntry =
    alibiSlopes instanceof Tensor ? alibiSlopes.shape.length === 2 : alibiSlopes?.length !== heads;
  checkNumbers(`${label}: alibiSlopes`, alibiSlopes, [[heads], [batch, heads]]);
  const stride = perEntry ? heads : 0;
  return {
    keeps: "nothing",
    slots: { alibi: true },
    tables: [{ at: "slopes_at", name: "alibiSlopes", values: alibiSlopes, dtype: "f32" }],
    params: () => ({ slopes_stride_b: stride }),
  };
};

/** The largest sink. Kernels multiply it by log2(e), which must not overflow. */
const LARGEST_SINK = 2e38;

/** Describes `sinks`. */
export const SINKS: Descriptor = ({ label, options: { sinks }, sizes }) => {
  if (sinks === undefined) return undefined;
  checkNumbers(`${label}: sinks`, sinks, [[sizes.heads]], LARGEST_SINK);
  return {
    keeps: "all",
    slots: { sinks: true },
    tables: [{ at: "sinks_at", name: "sinks", values: sinks, dtype: "f32" }],
  };
};
