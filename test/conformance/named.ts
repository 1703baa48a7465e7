// Operators of vectors whose tensors go by name, as gradients and layers of PyTorch do.

import type { Tensor } from "../../src/index.ts";
import type { Vector } from "./vector.ts";

/** A vector as an operator sees it. */
export interface NamedCall {
  readonly device: GPUDevice;
  // biome-ignore lint/suspicious/noExplicitAny: JSON of the operator's attributes
  readonly attributes: Readonly<Record<string, any>>;
  /** The numbers of the inputs, as the file has them. */
  readonly vector: Vector;
  /** An input that the vector has to have. */
  tensor(name: string): Tensor;
  /** An input, if the vector has it. */
  optional(name: string): Tensor | undefined;
  /** Leaves a tensor to the runner, which destroys it. */
  own<T extends Tensor>(made: T): T;
}

/** Gives the outputs by their names. They are the runner's to destroy. */
export type NamedOperator = (
  call: NamedCall,
) => Promise<Readonly<Record<string, Tensor | undefined>>>;

/**
 * Runs an operator, and gives the outputs in the vector's order.
 *
 * @param uploaded The inputs
 * @param used Where tensors go that have to be destroyed
 */
export async function runNamed(
  operator: NamedOperator,
  device: GPUDevice,
  vector: Vector,
  { uploaded, used }: { readonly uploaded: readonly (Tensor | null)[]; readonly used: Tensor[] },
): Promise<(Tensor | undefined)[]> {
  const tensors = new Map(
    vector.inputs.map((input, index) => [input?.name, uploaded[index] ?? undefined]),
  );
  const results = await operator({
    device,
    attributes: vector.attributes,
    vector,
    tensor(name) {
      const found = tensors.get(name);
      if (!found) throw new Error(`the vector has no input ${name}`);
      return found;
    },
    optional: (name) => tensors.get(name),
    own(made) {
      used.push(made);
      return made;
    },
  });
  return vector.outputs.map((output) => output && results[output.name ?? ""]);
}
