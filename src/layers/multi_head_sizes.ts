// The sizes of a multi-head layer, which its weights give.

import { check, show } from "../errors.ts";
import { Tensor } from "../gpu/tensor.ts";
import { checkedSpec, expectShape, FLOATS } from "../plan/specs.ts";
import type { LinearWeights, MultiHeadWeights } from "./multi_head_weights.ts";

/** Sizes of a layer. */
export interface MultiHeadSizes {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly vDim: number;
  readonly queryWidth: number;
  readonly keyWidth: number;
  readonly valueWidth: number;
  readonly outputWidth: number;
}

/** The tensors of a layer, with their names in errors. */
export function weightTensors(weights: MultiHeadWeights): [name: string, tensor: Tensor][] {
  const layers = (["query", "key", "value", "output"] as const).flatMap((name) => {
    const layer = weights[name];
    return Object.entries(layer ?? {}).map(
      ([part, tensor]) => [`weights.${name}.${part}`, tensor] as [string, Tensor],
    );
  });
  const extra = (["biasK", "biasV"] as const).flatMap((name) => {
    const tensor = weights[name];
    return tensor ? [[`weights.${name}`, tensor] as [string, Tensor]] : [];
  });
  return [...layers, ...extra];
}

/**
 * Gives the sizes of a layer with these weights. Throws FoveaError that names shapes that don't go
 * together.
 */
export function resolveSizes(
  label: string,
  weights: MultiHeadWeights,
  options: { readonly heads: number; readonly kvHeads?: number },
): MultiHeadSizes {
  const { heads } = options ?? {};
  check(
    Number.isInteger(heads) && heads >= 1,
    "argument",
    () => `${label}: heads must be a whole number from 1 up, got ${show(heads)}.`,
  );
  for (const name of ["query", "key", "value"] as const) {
    check(
      typeof weights?.[name] === "object",
      "argument",
      () => `${label}: weights.${name} must be { weight, bias? }, got ${show(weights?.[name])}.`,
    );
  }
  for (const [name, tensor] of weightTensors(weights)) {
    check(
      tensor instanceof Tensor,
      "argument",
      () => `${label}: ${name} must be a Tensor; make one with tensor().`,
    );
  }
  const [queryRows, queryWidth] = linearSizes(label, "query", weights.query);
  const [keyRows, keyWidth] = linearSizes(label, "key", weights.key);
  const [valueRows, valueWidth] = linearSizes(label, "value", weights.value);
  const divides = (name: string, rows: number, parts: number, what: string) =>
    check(
      rows % parts === 0,
      "argument",
      () =>
        `${label}: the ${rows} rows of weights.${name}.weight must be a multiple of the ${parts} ${what}.`,
    );
  divides("query", queryRows, heads, "heads");
  const headDim = queryRows / heads;
  divides("key", keyRows, headDim, "elements of a head, as weights.query.weight has them");
  const kvHeads = keyRows / headDim;
  check(
    heads % kvHeads === 0 && (options.kvHeads ?? kvHeads) === kvHeads,
    "argument",
    () =>
      `${label}: weights.key.weight has ${kvHeads} heads of ${headDim}; expected ${options.kvHeads ?? `a number that divides ${heads}`}.`,
  );
  divides("value", valueRows, kvHeads, "key heads");
  const vDim = valueRows / kvHeads;
  const { output, biasK, biasV } = weights;
  const [outputWidth, outputInner] = output
    ? linearSizes(label, "output", output)
    : [heads * vDim, heads * vDim];
  check(
    outputInner === heads * vDim,
    "argument",
    () =>
      `${label}: weights.output.weight must be [any, ${heads * vDim}] for ${heads} heads of ${vDim}, got [${output?.weight.shape.join(", ")}].`,
  );
  check(
    !biasK === !biasV,
    "argument",
    () => `${label}: weights.biasK and weights.biasV go together; one is missing.`,
  );
  if (biasK)
    expectShape(label, "weights.biasK", checkedSpec(label, "weights.biasK", biasK, FLOATS), [
      keyRows,
    ]);
  if (biasV)
    expectShape(label, "weights.biasV", checkedSpec(label, "weights.biasV", biasV, FLOATS), [
      valueRows,
    ]);
  return { heads, kvHeads, headDim, vDim, queryWidth, keyWidth, valueWidth, outputWidth };
}

function linearSizes(
  label: string,
  name: string,
  { weight, bias }: LinearWeights,
): readonly number[] {
  const { shape } = checkedSpec(label, `weights.${name}.weight`, weight, FLOATS);
  check(
    shape.length === 2 && shape[0] >= 1,
    "argument",
    () => `${label}: weights.${name}.weight must be [out, in], got [${shape.join(", ")}].`,
  );
  const spec = bias && checkedSpec(label, `weights.${name}.bias`, bias, FLOATS);
  if (spec)
    expectShape(
      label,
      `weights.${name}.bias`,
      spec,
      [shape[0]],
      `for weights.${name}.weight [${shape.join(", ")}]`,
    );
  return shape;
}
