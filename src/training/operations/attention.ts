// Attention, fused, with what it keeps for its gradients.

import { planAttentionBackward } from "../../attention/gradients/backward.ts";
import { planAttention } from "../../attention/plan_attention.ts";
import { planAttentionWeights } from "../../attention/weights.ts";
import type { Place, Value } from "../value.ts";

/** @internal The label of log-sum-exps. */
export const LSE = "log-sum-exp";

/** Options of {@link attention}: those of the engine's function, with values in place of tensors. */
export interface AttentionSettings {
  /** Key j is hidden from query i if j > i + keys - queries. Default false. */
  readonly causal?: boolean;
  /** Factor of the scores. Default 1 / sqrt(D), and 1 for additive similarity. */
  readonly scale?: number;
  /** [B] i32: how many of the keys count, for each entry. Default all. */
  readonly kvLengths?: Value;
  /** [B or 1, H or 1, M or 1, N or 1] u8: 0 hides a key. Default none. */
  readonly mask?: Value;
  /**
   * Additive attention: scores are the sum over d of vector[d] tanh(q[d] + k[d]), with a vector
   * [D] f32. Default: dot products.
   */
  readonly vector?: Value;
  /**
   * Is given the probabilities [B, H, M, N] while the program is recorded, to have them as an output
   * that people look at. They take a kernel of their own. Default: nobody looks.
   */
  readonly watch?: (weights: Value) => void;
}

/** The values that the settings hold, and the engine's options once they have tensors. */
function settled({ vector, kvLengths, mask, watch, ...rest }: AttentionSettings) {
  return {
    held: [vector, kvLengths, mask].filter((value) => value !== undefined),
    options: (at: Place) => ({
      ...rest,
      ...(kvLengths && { kvLengths: at(kvLengths) }),
      ...(mask && { mask: at(mask) }),
      ...(vector && { similarity: { kind: "additive", vector: at(vector) } as const }),
    }),
  };
}

/**
 * softmax(scale q k^T) v, in the fused kernels: nothing of size M x N is in memory, forward or
 * backward.
 *
 * @param q [B, H, M, D] f32
 * @param k [B, Hkv, N, D], H a multiple of Hkv
 * @param v [B, Hkv, N, Dv]
 * @returns [B, H, M, Dv], whose elements lie in the order [B, M, H, Dv], as projections of all
 *   heads together take them
 */
export function attention(q: Value, k: Value, v: Value, settings: AttentionSettings = {}): Value {
  const { graph } = q;
  const [B, H, M] = q.shape;
  const Dv = v.shape[3];
  const { vector, watch } = settings;
  const { held, options } = settled(settings);
  const inputs = [q, k, v, ...held];
  const output = graph.computed("attention", [B, M, H, Dv], inputs).permute(0, 2, 1, 3);
  const lse = graph.computed(LSE, [B, H, M], inputs);
  graph.add({
    label: "attention",
    inputs,
    outputs: [output, lse],
    plan: (device, at) =>
      planAttention(device, {
        q: at(q),
        k: at(k),
        v: at(v),
        output: at(output),
        lse: at(lse),
        ...options(at),
      }),
    gradient({ of, into, wants }) {
      const dOutput = of(output);
      if (!dOutput) return;
      // The kernels write all three; what is not wanted goes nowhere.
      const spare = (x: Value) => graph.computed("unused gradient", x.shape, []);
      const [dQ, dK, dV] = [q, k, v].map((x) => (wants(x) ? into(x) : spare(x)));
      const dVector = wants(vector) ? into(vector) : undefined;
      graph.add({
        label: "attention backward",
        inputs: [...inputs, output, lse, dOutput],
        outputs: dVector ? [dQ, dK, dV, dVector] : [dQ, dK, dV],
        plan: (device, at) =>
          planAttentionBackward(device, {
            q: at(q),
            k: at(k),
            v: at(v),
            output: at(output),
            lse: at(lse),
            dOutput: at(dOutput),
            dQ: at(dQ),
            dK: at(dK),
            dV: at(dV),
            ...(dVector && { dVector: at(dVector) }),
            ...options(at),
          }),
      });
    },
  });
  watch?.(attentionWeights(q, k, settings));
  return output;
}

/**
 * The probabilities of attention, [B, H, M, N], for people to look at: no gradient goes through
 * them.
 */
export function attentionWeights(q: Value, k: Value, settings: AttentionSettings = {}): Value {
  const { graph } = q;
  const [B, H, M] = q.shape;
  const { held, options } = settled(settings);
  const inputs = [q, k, ...held];
  const output = graph.computed("attention weights", [B, H, M, k.shape[2]], inputs);
  graph.add({
    label: "attention weights",
    inputs,
    outputs: [output],
    plan: (device, at) =>
      planAttentionWeights(device, {
        q: at(q),
        k: at(k),
        output: at(output),
        ...options(at),
      }),
  });
  return output;
}
