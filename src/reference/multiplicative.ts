// Multiplicative attention on the CPU, and its gradients: queries meet keys through a matrix.

import { attention, type ReferenceResult } from "./attention.ts";
import {
  attentionBackward,
  type ReferenceAttentionGradients,
  type ReferenceBackwardOptions,
} from "./gradients/attention_backward.ts";
import type { ReferenceOptions, ReferenceTensor } from "./options.ts";
import { project, projectUsedBackward } from "./projection.ts";
import { elements, toBhmd, transposed } from "./tensors.ts";

/** The matrix between queries and keys. */
export interface ReferenceMultiplicative {
  /** W: [Dq, D] for all heads, or [H, Dq, D]. */
  readonly weight: ReferenceTensor;
}

/**
 * Attention of the queries q W, whose scores are q W k^T. Source: Luong's general score (arXiv
 * 1508.04025, section 3.1).
 *
 * @param q [B, H, M, Dq]
 * @param k See `attention`, as for v
 * @param options those of `attention`, with a scale of 1 by default, and the weight
 */
export function multiplicativeAttention(
  q: ReferenceTensor,
  k: ReferenceTensor,
  v: ReferenceTensor,
  options: ReferenceOptions & ReferenceMultiplicative,
): ReferenceResult {
  const { operands, options: plain } = projected({ q, k, v }, options);
  return attention(operands.q, operands.k, operands.v, plain);
}

/**
 * The gradients of multiplicative attention: with q' = q W and dq' from attention,
 *
 *     dq = dq' W^T,   dW = q^T dq'
 *
 * summed over batch, rows, and the heads that share the matrix.
 *
 * @returns those of attention, dQ [B, H, M, Dq], and dWeight of the shape of the weight
 */
export function multiplicativeAttentionBackward(
  q: ReferenceTensor,
  k: ReferenceTensor,
  v: ReferenceTensor,
  options: ReferenceBackwardOptions & ReferenceMultiplicative,
): ReferenceAttentionGradients & { readonly dWeight: Float64Array } {
  const { operands, weight, query, options: plain } = projected({ q, k, v }, options);
  const gradients = attentionBackward(operands.q, operands.k, operands.v, plain);
  const { dX, dWeight } = projectUsedBackward(query, weight, gradients.dQ);
  const turned = transposed({ data: dWeight, shape: weight.shape });
  return { ...gradients, dQ: dX, dWeight: elements(turned, turned.shape) };
}

/** What attention is called with in place of q, k and v, all with axes [B, H, M, D]. */
function projected<Options extends ReferenceOptions & ReferenceMultiplicative>(
  { q, k, v }: Readonly<Record<"q" | "k" | "v", ReferenceTensor>>,
  { weight: given, ...options }: Options,
) {
  const { layout = "bhmd", precision = "f64" } = options;
  const query = toBhmd(q, layout);
  const weight = transposed(given);
  const columns = given.shape[given.shape.length - 1];
  const data = project(query, weight, undefined, { precision });
  return {
    query,
    weight,
    operands: {
      q: { data, shape: [...query.shape.slice(0, 3), columns] },
      k: toBhmd(k, layout),
      v: toBhmd(v, layout),
    },
    options: { scale: 1, ...options, layout: "bhmd" as const },
  };
}
