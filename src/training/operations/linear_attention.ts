// Linear attention, whose state has one size however many tokens there are.

import type { OptionNames } from "../../given.ts";
import { planLinearAttention } from "../../linear/linear.ts";
import { planLinearAttentionBackward } from "../../linear/linear_backward.ts";
import type { LinearAttentionSettings as EngineSettings } from "../../linear/options.ts";
import { graphOf, takeSettings } from "../arguments.ts";
import type { Place, Value } from "../value.ts";

/** Options of {@link linearAttention}: those of the engine's function, with values for tensors. */
export interface LinearAttentionSettings
  extends Pick<EngineSettings, "updateRule" | "causal" | "featureMap" | "normalized" | "scale"> {
  /** [B, Hkv, N, 1] or [B, Hkv, N, D]: g of each token in log space. Default none. */
  readonly decay?: Value;
  /** [B, Hkv or 1, N, 1]: how much of a token's correction is written. Default none. */
  readonly beta?: Value;
}

const SETTINGS: OptionNames<LinearAttentionSettings> = {
  updateRule: "string",
  causal: "boolean",
  featureMap: "string",
  normalized: "boolean",
  scale: "number",
  decay: "any",
  beta: "any",
};

/**
 * Attention whose scores are products of feature maps, or whose state follows an update rule; see
 * the engine's `linearAttention`.
 *
 * @param q [B, H, M, D] f32
 * @param k [B, Hk, N, D]
 * @param v [B, Hkv, N, Dv]
 * @returns [B, max(H, Hkv), M, Dv]
 */
export function linearAttention(
  q: Value,
  k: Value,
  v: Value,
  given: LinearAttentionSettings = {},
): Value {
  const label = "linear attention";
  const { decay, beta, ...settings } = takeSettings(label, given, SETTINGS);
  const graph = graphOf(label, { q, k, v }, { decay, beta });
  const [B, H, M] = q.shape;
  const [, Hkv, , Dv] = v.shape;
  const values = { q, k, v, ...(decay && { decay }), ...(beta && { beta }) };
  const named = Object.entries(values) as readonly (readonly [keyof typeof values, Value])[];
  const inputs = named.map(([, value]) => value);
  const tensors = (at: Place) =>
    Object.fromEntries(named.map(([name, value]) => [name, at(value)])) as Record<
      "q" | "k" | "v",
      ReturnType<Place>
    >;
  const output = graph.computed("linear attention", [B, Math.max(H, Hkv), M, Dv], inputs);
  graph.add({
    label: "linear attention",
    inputs,
    outputs: [output],
    plan: (device, at) =>
      planLinearAttention(device, { ...settings, ...tensors(at), output: at(output) }),
    gradient({ of, into, wants }) {
      const dOutput = of(output);
      if (!dOutput) return;
      const learned = named.filter(([, value]) => wants(value));
      const gradients = learned.map(([name, value]) => {
        return [GRADIENTS[name], into(value)] as const;
      });
      graph.add({
        label: "linear attention backward",
        inputs: [...inputs, dOutput],
        outputs: gradients.map(([, value]) => value),
        plan: (device, at) =>
          planLinearAttentionBackward(device, {
            ...settings,
            ...tensors(at),
            dOutput: at(dOutput),
            gradients: gradients.map(([name]) => name),
            ...Object.fromEntries(gradients.map(([name, value]) => [name, at(value)])),
          }),
      });
    },
  });
  return output;
}

const GRADIENTS = { q: "dQ", k: "dK", v: "dV", decay: "dDecay", beta: "dBeta" } as const;
